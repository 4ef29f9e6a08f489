//! Reading and answering requests.

use super::decide::{Deed, Seen, View, decide, ended};
use crate::clock;
use crate::coordination::{self, Watching, call};
use crate::settings::Identity;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::{self, Event as Watched};
use kube::{Client, ResourceExt};
use pgconvoy_crds::{GROUP, PgRequest, PgRequestStatus, RequestState, VERSION};
use pgconvoy_ha::{Event, Instant, Repair};
use serde_json::json;
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the same deed is not begun again, in milliseconds: what it leads to takes a moment to be seen.
const AGAIN: u64 = 3_000;
/// Requests that are kept at most; of more, those first in the alphabet.
const LIMIT: usize = 1_000;

/// Watches the requests of this member's set.
pub fn watch(
    client: Client,
    me: &Identity,
    seen: watch::Sender<Vec<Seen>>,
    metrics: coordination::Metrics,
) -> JoinHandle<()> {
    let api = coordination::untyped::<PgRequest>(client, &me.namespace);
    let config = watcher::Config::default().fields(&format!("spec.set={}", me.member.set()));
    let watching = Watch { found: BTreeMap::new(), seen };
    tokio::spawn(async move { coordination::follow(api, config, "the PgRequests", metrics, watching).await })
}

struct Watch {
    found: BTreeMap<String, Seen>,
    seen: watch::Sender<Vec<Seen>>,
}

impl Watch {
    fn publish(&self) {
        let now: Vec<Seen> = self.found.values().take(LIMIT).cloned().collect();
        self.seen.send_if_modified(|old| {
            let changed = *old != now;
            *old = now;
            changed
        });
    }
}

impl Watching<DynamicObject> for Watch {
    async fn take(&mut self, event: Watched<DynamicObject>) {
        match event {
            // Nothing is told of a list before it is whole.
            Watched::Init => self.found.clear(),
            Watched::InitApply(object) => self.found.extend(read(&object)),
            Watched::InitDone => self.publish(),
            Watched::Apply(object) => {
                self.found.extend(read(&object));
                self.publish();
            }
            Watched::Delete(object) => {
                self.found.remove(&object.name_any());
                self.publish();
            }
        }
    }
}

/// A request that does not parse is somebody's of a later version: it is left alone.
fn read(object: &DynamicObject) -> Option<(String, Seen)> {
    let name = object.name_any();
    let part = |of: &str| object.data.get(of).cloned();
    let spec = serde_json::from_value(part("spec")?).ok()?;
    let status = part("status").map(serde_json::from_value).transpose().ok()?.unwrap_or_default();
    let made = object.creation_timestamp()?.0;
    Some((name.clone(), Seen { name, made, spec, status }))
}

/// Writes what came of requests.
#[derive(Clone)]
pub struct Writer {
    api: Api<DynamicObject>,
    manager: String,
}

impl Writer {
    /// One for this member.
    pub fn new(client: Client, me: &Identity) -> Self {
        Self {
            api: coordination::untyped::<PgRequest>(client, &me.namespace),
            manager: format!("{}{}", pgconvoy_crds::names::MANAGER_AGENT_PREFIX, me.member),
        }
    }

    async fn write(self, name: String, status: PgRequestStatus) {
        let patch = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "PgRequest",
            "metadata": { "name": name },
            "status": status,
        });
        let what = format!("writing the status of PgRequest {name}");
        let params = PatchParams::apply(&self.manager).force();
        // What could not be written is decided afresh a moment later.
        if let Err(why) = call(&what, self.api.patch_status(&name, &params, &Patch::Apply(&patch))).await {
            tracing::warn!("{why}");
        }
    }
}

/// The agent's part in requests: turns them into events for the core, and what comes of these into their status.
pub struct Requests {
    writer: Writer,
    seen: watch::Receiver<Vec<Seen>>,
    /// What was begun last, and when.
    begun: Option<(Deed, Instant)>,
    /// The request that an event was last made of.
    acting: Option<String>,
    giving_up: Option<(u32, bool)>,
    repairing: Option<Repair>,
}

impl Requests {
    /// Nothing is under way.
    pub fn new(writer: Writer, seen: watch::Receiver<Vec<Seen>>) -> Self {
        Self { writer, seen, begun: None, acting: None, giving_up: None, repairing: None }
    }

    /// Ends when what is asked for has changed.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the core should hear now. Writes what needs writing.
    pub fn look(&mut self, view: &View<'_>, now: Instant) -> Vec<Event> {
        let deed = decide(&self.seen.borrow_and_update(), view, clock::wall());
        let mut events = vec![];
        let giving_up = match &deed {
            Some(Deed::TakeOver { epoch, accept_loss, .. }) => Some((*epoch, *accept_loss)),
            _ => None,
        };
        if giving_up != self.giving_up {
            self.giving_up = giving_up;
            let accept_loss = giving_up.is_some_and(|(_, accepts)| accepts);
            events.push(Event::TakeOver { epoch: giving_up.map(|(epoch, _)| epoch), accept_loss });
        }
        let repairing = match &deed {
            Some(Deed::Repair { accept_loss, .. }) => Some(Repair { accept_loss: *accept_loss, adopt: false }),
            _ => None,
        };
        if repairing != self.repairing {
            self.repairing.clone_from(&repairing);
            events.push(Event::Repair(repairing));
        }
        let Some(deed) = deed else {
            self.begun = None;
            return events;
        };
        let just_begun = |(last, at): &(Deed, Instant)| now.since(*at) < AGAIN && alike(last, &deed);
        if self.begun.as_ref().is_some_and(just_begun) {
            return events;
        }
        match &deed {
            Deed::Write { name, status } => drop(tokio::spawn(self.writer.clone().write(name.clone(), status.clone()))),
            Deed::HandOver { name, to } => {
                self.acting = Some(name.clone());
                events.push(Event::HandOver { to: to.clone() });
            }
            Deed::TakeOver { name, .. } | Deed::Repair { name, .. } => self.acting = Some(name.clone()),
        }
        self.begun = Some((deed, now));
        events
    }

    /// The core will not do what the last event asked for.
    pub fn refused(&mut self, why: String) {
        tracing::info!(request = self.acting, "refused: {why}");
        let Some(name) = self.acting.take() else { return };
        let seen = self.seen.borrow().iter().find(|r| r.name == name).cloned();
        if let Some(request) = seen {
            let status = ended(&request, RequestState::Failed, why, clock::wall());
            drop(tokio::spawn(self.writer.clone().write(name, status)));
        }
    }
}

/// Whether this is the same deed; the time in a status does not make it another one.
fn alike(one: &Deed, other: &Deed) -> bool {
    match (one, other) {
        (Deed::Write { name, status }, Deed::Write { name: other, status: theirs }) => {
            name == other && status.state == theirs.state && status.message == theirs.message
        }
        _ => one == other,
    }
}
