//! PgSnapshots: which are asked of this set and not begun, and what becomes of one.

use super::error::call;
use super::watching::{Watching, follow, untyped};
use super::{ApiError, Metrics};
use crate::settings::Identity;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use pgconvoy_crds::names::MANAGER_AGENT_PREFIX;
use pgconvoy_crds::{ArchivedSet, GROUP, PgArchive, PgSnapshot, PgSnapshotStatus, SnapshotPhase, VERSION};
use serde_json::json;
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Those that are asked of this set and not at their end, by name.
pub type Snapshots = BTreeMap<String, PgSnapshotStatus>;

/// Reads and writes them.
#[derive(Clone)]
pub struct SnapshotClient {
    api: Api<PgSnapshot>,
    archives: Api<PgArchive>,
}

/// Watches them.
pub fn watch_snapshots(
    client: Client,
    me: &Identity,
    open: watch::Sender<Snapshots>,
    metrics: Metrics,
) -> (JoinHandle<()>, SnapshotClient) {
    let api = untyped::<PgSnapshot>(client.clone(), &me.namespace);
    let watching = Watch { set: me.member.set().to_owned(), listed: Snapshots::new(), open };
    let task = tokio::spawn(follow(api, watcher::Config::default(), "PgSnapshots", metrics, watching));
    (
        task,
        SnapshotClient {
            api: Api::namespaced(client.clone(), &me.namespace),
            archives: Api::namespaced(client, &me.namespace),
        },
    )
}

impl SnapshotClient {
    /// Makes this the status of the snapshot, if `may` holds of what is there. Whether it was done: false when somebody else
    /// was quicker.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn put(
        &self,
        name: &str,
        status: &PgSnapshotStatus,
        may: impl Fn(&PgSnapshotStatus) -> bool,
    ) -> Result<bool, ApiError> {
        let mut object = call(&format!("reading PgSnapshot {name}"), self.api.get(name)).await?;
        if !may(&object.status.clone().unwrap_or_default()) {
            return Ok(false);
        }
        // It carries the version that was read.
        object.status = Some(status.clone());
        let what = format!("writing the status of PgSnapshot {name}");
        match call(&what, self.api.replace_status(name, &PostParams::default(), &object)).await {
            Ok(_) => Ok(true),
            Err(ApiError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl SnapshotClient {
    /// Says of the PgSnapshots of a system that what they were is no more in the archive. One whose object is gone is passed over.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn expired(&self, name: &str, system: &str, at: &str) -> Result<(), ApiError> {
        let there = match call(&format!("reading PgSnapshot {name}"), self.api.get(name)).await {
            Err(ApiError::Missing { .. }) => return Ok(()),
            there => there?.status.unwrap_or_default(),
        };
        let mine =
            |s: &PgSnapshotStatus| s.phase == Some(SnapshotPhase::Completed) && s.system_id.as_deref() == Some(system);
        let message = Some(format!("retention removed it from the archive at {at}"));
        let gone = PgSnapshotStatus { phase: Some(SnapshotPhase::Expired), message, ..there.clone() };
        if mine(&there) { self.put(name, &gone, mine).await.map(drop) } else { Ok(()) }
    }

    /// Makes this the set's entry in the status of a PgArchive.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn retained(&self, archive: &str, entry: &ArchivedSet) -> Result<(), ApiError> {
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "PgArchive",
            "metadata": { "name": archive },
            "status": { "sets": [entry] },
        });
        // The set's: whichever of its members leads.
        let manager = format!("{MANAGER_AGENT_PREFIX}{}-archive", entry.set);
        let parameters = PatchParams::apply(&manager).force();
        let patch = Patch::Apply(&body);
        let what = format!("writing the status of PgArchive {archive}");
        call(&what, self.archives.patch_status(archive, &parameters, &patch)).await.map(drop)
    }
}

struct Watch {
    set: String,
    listed: Snapshots,
    open: watch::Sender<Snapshots>,
}

impl Watch {
    fn note(&mut self, object: &DynamicObject) {
        let Some(name) = object.metadata.name.clone() else { return };
        let ours = object.data.pointer("/spec/set").and_then(|s| s.as_str()) == Some(self.set.as_str());
        let status = object.data.get("status").cloned().unwrap_or_default();
        // One that a later version writes is its own business.
        let status =
            if status.is_null() { Some(PgSnapshotStatus::default()) } else { serde_json::from_value(status).ok() };
        let ended = |s: &PgSnapshotStatus| !matches!(s.phase, None | Some(SnapshotPhase::Running));
        match status.filter(|s| ours && !ended(s) && object.metadata.deletion_timestamp.is_none()) {
            Some(status) => drop(self.listed.insert(name, status)),
            None => drop(self.listed.remove(&name)),
        }
    }
}

impl Watching<DynamicObject> for Watch {
    async fn take(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => return self.note(&object),
            Event::Apply(object) => self.note(&object),
            Event::Delete(object) => {
                self.listed.remove(object.metadata.name.as_deref().unwrap_or_default());
            }
            Event::InitDone => {}
        }
        self.open.send_if_modified(|open| {
            let changed = *open != self.listed;
            open.clone_from(&self.listed);
            changed
        });
    }
}
