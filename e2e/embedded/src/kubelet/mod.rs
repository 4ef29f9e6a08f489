//! The kubelet: runs the containers of pods as processes of this machine.

mod container;
mod environment;
mod images;
mod node;
mod pod;
mod probe;
mod services;
mod status;
mod volumes;

use crate::api::select::Selector;
use crate::api::text;
use crate::http::Server;
use crate::machine::{Settings, Word};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tokio::sync::{mpsc, watch};

/// What every part of the kubelet knows.
pub(crate) struct Shared {
    pub(crate) server: Server,
    pub(crate) settings: Settings,
    /// What people are told.
    pub(crate) words: mpsc::UnboundedSender<Word>,
    numbers: AtomicU32,
}

impl Shared {
    pub(crate) fn new(server: Server, settings: Settings, words: mpsc::UnboundedSender<Word>) -> Arc<Self> {
        Arc::new(Self { server, settings, words, numbers: AtomicU32::new(1) })
    }
}

/// Runs pods, binds claims, leads Services to their endpoints, cleans up; for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut changes = shared.server.changes();
    let mut pods: HashMap<String, watch::Sender<Value>> = HashMap::new();
    let mut services = services::Services::default();
    loop {
        changes.borrow_and_update();
        while shared.server.with(|a| a.collect()) {}
        node::bind(&shared);
        services.follow(&shared);
        let Some(kind) = shared.server.with(|a| a.kind("", "v1", "pods")) else { return };
        let page = shared.server.with(|a| a.list(&kind, None, &Selector::default(), 0, ""));
        let objects = page.map(|p| p.items).unwrap_or_default();
        // Taken away by force: the processes go at once.
        for (uid, sender) in &pods {
            if !objects.iter().any(|o| text(o, "/metadata/uid") == uid) {
                sender.send_if_modified(|o| {
                    let news = o["metadata"]["deletionGracePeriodSeconds"] != 0;
                    o["metadata"]["deletionTimestamp"] = serde_json::json!(crate::clock::text(0));
                    o["metadata"]["deletionGracePeriodSeconds"] = serde_json::json!(0);
                    news
                });
            }
        }
        for object in objects {
            if text(&object, "/spec/nodeName").is_empty() {
                continue;
            }
            let uid = text(&object, "/metadata/uid").to_owned();
            match pods.get(&uid) {
                Some(sender) => {
                    sender.send_if_modified(|old| {
                        let changed = *old != object;
                        *old = object;
                        changed
                    });
                }
                None => {
                    let (sender, receiver) = watch::channel(object);
                    tokio::spawn(pod::run(shared.clone(), receiver));
                    pods.insert(uid, sender);
                }
            }
        }
        pods.retain(|_, sender| !sender.is_closed());
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            // A pod whose task has ended while nothing changed.
            () = tokio::time::sleep(std::time::Duration::from_secs(10)) => {}
        }
    }
}
