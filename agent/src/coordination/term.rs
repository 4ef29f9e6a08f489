//! The PgTerm: watched as a hint, read as proof, changed by compare-and-swap.

use super::error::call;
use super::watching::{Watching, follow, untyped};
use super::{About, ApiError, Events, Metrics};
use crate::clock;
use crate::settings::Identity;
use kube::api::{DynamicObject, ObjectMeta, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use pgconvoy_crds::{PgTerm, PgTermSpec};
use pgconvoy_ha::{Instant, Register, SwapOutcome};
use pgconvoy_terms::Term;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What to do about a PgTerm that holds nonsense; its name follows.
const UNREADABLE: &str = "Delete it (what runs goes on), and type: kubectl pgconvoy term repair";

/// The set's PgTerm. Clones share what they know.
#[derive(Clone)]
pub struct TermClient {
    api: Api<DynamicObject>,
    name: String,
    set_uid: String,
    /// Metadata of the newest version seen: a replace must send labels and owners along, or they are gone.
    newest: Arc<Mutex<Option<ObjectMeta>>>,
    events: Events,
}

impl TermClient {
    /// The PgTerm of this member's set, through `client` ([`super::Clients::coordination`]).
    pub fn new(client: Client, me: &Identity, events: Events) -> Self {
        Self {
            api: untyped::<PgTerm>(client, &me.namespace),
            name: me.member.set().to_owned(),
            set_uid: me.set_uid.clone(),
            newest: Arc::default(),
            events,
        }
    }

    /// Watches it, and puts every version into `registers`. One that cannot be read, belongs to another set or is gone
    /// becomes an alarm instead. The task ends only when the receiver is dropped.
    pub fn watch(&self, registers: mpsc::Sender<Register>, metrics: Metrics) -> JoinHandle<()> {
        let this = self.clone();
        tokio::spawn(async move {
            let config = watcher::Config::default().fields(&format!("metadata.name={}", this.name));
            let api = this.api.clone();
            let closed = registers.clone();
            let watching = Watch { client: this, registers, listed: false };
            tokio::select! {
                () = follow(api, config, "the PgTerm", metrics, watching) => {}
                () = closed.closed() => {}
            }
        })
    }

    /// Reads it from a quorum of etcd, and says when that was asked for: what it returns was so at or after that time.
    ///
    /// # Errors
    /// When it cannot be read within the deadline, is gone, belongs to another set, or holds what nobody may obey (the
    /// last two are alarms too).
    pub async fn read(&self) -> Result<(Register, Instant), ApiError> {
        let what = format!("reading PgTerm {}", self.name);
        let asked = clock::now();
        // No resourceVersion in the request: the server must not answer from a cache.
        let object = call(&what, self.api.get(&self.name)).await?;
        let register = self.register(object).map_err(|why| ApiError::Unreadable { what, why })?;
        Ok((register, asked))
    }

    /// Replaces what version `version` holds by `term`.
    pub async fn swap(&self, version: &str, term: &Term) -> SwapOutcome {
        let metadata = match self.metadata_of(version).await {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return SwapOutcome::Lost,
            Err(error) => return outcome(error),
        };
        let record = PgTerm { metadata, spec: PgTermSpec::write(&self.set_uid, term) };
        let api: Api<PgTerm> =
            Api::namespaced(self.api.clone().into_client(), record.metadata.namespace.as_deref().unwrap_or_default());
        let what = format!("changing PgTerm {}", self.name);
        match call(&what, api.replace(&self.name, &PostParams::default(), &record)).await {
            Ok(written) => {
                self.remember(&written.metadata);
                // The server may have changed what was sent (admission): what counts is what it holds.
                match self.parse(&written.metadata, Ok(written.spec)) {
                    Ok(register) => SwapOutcome::Won(register),
                    Err(why) => SwapOutcome::Refused(self.alarm(why)),
                }
            }
            Err(error) => outcome(error),
        }
    }

    /// The metadata of exactly this version; `None` when the register has moved on.
    async fn metadata_of(&self, version: &str) -> Result<Option<ObjectMeta>, ApiError> {
        let is = |m: &ObjectMeta| m.resource_version.as_deref() == Some(version);
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(metadata) = newest.filter(is) {
            return Ok(Some(metadata));
        }
        let what = format!("reading PgTerm {} before changing it", self.name);
        let object = call(&what, self.api.get(&self.name)).await?;
        self.remember(&object.metadata);
        Ok(Some(object.metadata).filter(is))
    }

    fn remember(&self, metadata: &ObjectMeta) {
        // Absent in a replace, managedFields stay as they are on the server.
        let slim = ObjectMeta { managed_fields: None, ..metadata.clone() };
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(slim);
    }

    /// What the object says, or the sentence of an alarm that has been raised.
    fn register(&self, object: DynamicObject) -> Result<Register, String> {
        self.remember(&object.metadata);
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        let spec = serde_json::from_value::<PgTermSpec>(spec).map_err(|e| e.to_string());
        self.parse(&object.metadata, spec).map_err(|why| self.alarm(why))
    }

    fn parse(&self, metadata: &ObjectMeta, spec: Result<PgTermSpec, String>) -> Result<Register, String> {
        let name = &self.name;
        let version = metadata
            .resource_version
            .clone()
            .ok_or_else(|| format!("PgTerm {name} came without a resourceVersion; it is not obeyed"))?;
        let spec =
            spec.map_err(|e| format!("PgTerm {name} cannot be read ({e}); nobody obeys it. {UNREADABLE} {name}"))?;
        if spec.set_uid != self.set_uid {
            return Err(format!(
                "PgTerm {name} belongs to a PgReplicaSet with UID {:?}, not to this one ({}); it is not obeyed",
                spec.set_uid, self.set_uid
            ));
        }
        let term = spec.read().map_err(|e| format!("PgTerm {name}: {e}; nobody obeys it. {UNREADABLE} {name}"))?;
        Ok(Register { version, term, remade: spec.remade })
    }

    fn alarm(&self, why: String) -> String {
        self.events.warn(About::Set, "TermUnreadable", &why);
        why
    }
}

/// What an error means for a swap.
fn outcome(error: ApiError) -> SwapOutcome {
    match error {
        ApiError::Conflict { .. } => SwapOutcome::Lost,
        // An answer that cannot be read says nothing about whether it was done.
        ApiError::NoAnswer { .. } | ApiError::Unavailable { .. } | ApiError::Unreadable { .. } => {
            tracing::debug!("{error}");
            SwapOutcome::Unknown
        }
        ApiError::Missing { .. } | ApiError::Refused { .. } => SwapOutcome::Refused(error.to_string()),
    }
}

struct Watch {
    client: TermClient,
    registers: mpsc::Sender<Register>,
    listed: bool,
}

impl Watching<DynamicObject> for Watch {
    async fn take(&mut self, event: Event<DynamicObject>) {
        let name = &self.client.name;
        match event {
            Event::Init => self.listed = false,
            Event::InitApply(object) | Event::Apply(object) => {
                self.listed = true;
                if let Ok(register) = self.client.register(object) {
                    // A closed channel ends the task, see `TermClient::watch`.
                    let _ = self.registers.send(register).await;
                }
            }
            Event::InitDone if self.listed => {}
            Event::InitDone | Event::Delete(_) => {
                self.client.events.warn(
                    About::Set,
                    "TermMissing",
                    &format!(
                        "PgTerm {name} does not exist: what runs goes on, and no other leader can be elected. The operator makes \
                         an empty one; then type: kubectl pgconvoy term repair {name}"
                    ),
                );
            }
        }
    }
}
