//! The agent's archiving as a whole on real servers: what it tells in the status and by Events. Kubernetes is a few answers.

use crate::member::{Member, epoch, say};
use http_body_util::BodyExt;
use pgconvoy_agent::{
    archive::{self, Handle, Reign, Role},
    coordination::{Events, Metrics, Snapshots, watch_snapshots},
    settings::{Identity, PostgresSettings},
};
use pgconvoy_crds::PgSnapshotStatus;
use pgconvoy_terms::SystemId;
use pgconvoy_wire::{Client, Config, Target};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// An API server that takes Events, and knows the PgSnapshots that it was given.
#[derive(Clone, Default)]
pub(crate) struct Api {
    /// Reasons and notes.
    events: Arc<Mutex<Vec<(String, String)>>>,
    snapshots: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Api {
    fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let found = api.answer(&parts.method, parts.uri.path(), serde_json::from_slice(&body).ok());
                let missing = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 });
                let status = if found.is_some() { 200 } else { 404 };
                let answer = found.unwrap_or(missing).to_string().into_bytes();
                let answer = hyper::Response::builder().status(status).body(kube::client::Body::from(answer));
                Ok::<_, kube::Error>(answer.unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &hyper::Method, path: &str, body: Option<Value>) -> Option<Value> {
        if path.ends_with("/events") && *method == hyper::Method::POST {
            let event = body?;
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            self.events.lock().unwrap().push((text("reason"), text("note")));
            return Some(event);
        }
        let name = path.split_once("/pgsnapshots/")?.1.trim_end_matches("/status").to_owned();
        let mut snapshots = self.snapshots.lock().unwrap();
        if *method == hyper::Method::PUT {
            snapshots.insert(name.clone(), body?);
        }
        snapshots.get(&name).cloned()
    }

    /// Asks for a snapshot.
    pub(crate) fn ask(&self, name: &str) {
        let object = json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshot", "spec": { "set": "t" },
            "metadata": { "name": name, "namespace": "default", "resourceVersion": "1" },
        });
        self.snapshots.lock().unwrap().insert(name.to_owned(), object);
    }

    /// What is said of a snapshot.
    pub(crate) fn snapshot(&self, name: &str) -> PgSnapshotStatus {
        let object = self.snapshots.lock().unwrap()[name].clone();
        serde_json::from_value(object["status"].clone()).unwrap_or_default()
    }
}

/// The agent's task, and what it told.
pub(crate) struct Archiving {
    pub(crate) handle: Handle,
    pub(crate) api: Api,
    /// Those that the task is told of.
    pub(crate) open: watch::Sender<Snapshots>,
    /// Reasons and messages of the status, each once.
    pub(crate) said: Arc<Mutex<Vec<(String, String)>>>,
    tasks: Vec<JoinHandle<()>>,
    _settings: watch::Sender<PostgresSettings>,
}

impl Drop for Archiving {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What an agent's archiving does on a member that leads epoch 1 alone.
pub(crate) async fn archiving(member: &Member) -> Archiving {
    archiving_as(member, member.config.identity.clone(), Api::default()).await
}

/// The same under another identity, and with what an API server knows already.
pub(crate) async fn archiving_as(member: &Member, identity: Identity, api: Api) -> Archiving {
    let settings = PostgresSettings { generation: 1, roster: vec![member.name.clone()], ..member.current_settings() };
    let (settings_in, settings) = watch::channel(settings);
    let (events, writing) = Events::start(api.client(), &identity, Metrics::default());
    let (_, client) = watch_snapshots(api.client(), &identity, watch::channel(Snapshots::new()).0, Metrics::default());
    let (open_in, open) = watch::channel(Snapshots::new());
    let figures = archive::Metrics::default();
    let driver = member.driver.handle.clone();
    let (task, handle) = archive::spawn(identity, driver, settings, events, figures, (open, client));
    let said: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let (list, mut saying) = (said.clone(), handle.said.clone());
    let listening = tokio::spawn(async move {
        while saying.changed().await.is_ok() {
            let Some(now) = saying.borrow_and_update().clone() else { continue };
            let now = (now.reason, now.message.unwrap_or_default());
            let mut list = list.lock().unwrap();
            if list.last() != Some(&now) {
                say(&format!("archiving: {}: {}", now.0, now.1));
                list.push(now);
            }
        }
    });
    let reign = Reign { epoch: epoch(1), leader: member.id(), parent: None };
    handle.role.send_replace(Role::Leads { system: system(member).await, reigns: vec![reign] });
    Archiving { handle, api, open: open_in, said, tasks: vec![task, writing, listening], _settings: settings_in }
}

impl Archiving {
    /// Waits until the status gives this reason.
    pub(crate) async fn says(&mut self, reason: &str) -> String {
        let waited = timeout(SOON, self.handle.said.wait_for(|s| s.as_ref().is_some_and(|s| s.reason == reason))).await;
        match waited {
            Ok(said) => said.unwrap().clone().unwrap().message.unwrap_or_default(),
            Err(_) => panic!("not {reason}: {:?}", self.said.lock().unwrap()),
        }
    }

    pub(crate) fn event(&self, reason: &str) -> Option<String> {
        self.api.events.lock().unwrap().iter().find(|(r, _)| r == reason).map(|(_, note)| note.clone())
    }
}

pub(crate) async fn system(member: &Member) -> SystemId {
    let identity = &member.config.identity;
    let target = Target::Unix { dir: identity.paths.run.clone(), port: identity.postgres_port };
    Client::connect(&Config::new(target, "postgres")).await.unwrap().identify_system().await.unwrap().system_id
}
