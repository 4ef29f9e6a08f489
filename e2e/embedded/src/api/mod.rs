//! The API server without its sockets: kinds, objects, and what may be done with them. It reads no clock and no random
//! numbers but through its [`Surroundings`], so that a simulator can run it.

mod applying;
pub mod defaults;
mod delete;
pub mod discovery;
pub mod fields;
mod garbage;
pub mod kinds;
pub mod managers;
mod merge;
mod patch;
mod read;
pub mod refusal;
mod rules;
pub mod schema;
pub mod select;
pub mod shape;
pub mod table;
mod write;

pub use delete::DeleteOptions;
pub use read::{Page, WatchEvent};
pub use write::{PatchKind, WriteOptions};

use kinds::Kind;
use pgconvoy_e2e_store::{Change, Key, Store, Stored};
use refusal::Refusal;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the server needs from outside.
pub trait Surroundings: Send {
    /// The time, like `2026-01-01T00:00:00Z`, this many seconds from now.
    fn time(&mut self, seconds_from_now: i64) -> String;
    /// A UID that nothing else has.
    fn uid(&mut self) -> String;
}

/// Objects, by kind.
pub struct Api {
    store: Store,
    kinds: Vec<Arc<Kind>>,
    surroundings: Box<dyn Surroundings>,
    next_service: u32,
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The object as it is now, or a Status.
    pub object: Value,
    /// Whether it was not there before.
    pub created: bool,
    /// What the client should know.
    pub warnings: Vec<String>,
}

impl Api {
    /// A server without custom kinds that remembers the last `keep` changes for watches.
    pub fn new(surroundings: Box<dyn Surroundings>, keep: usize) -> Self {
        let kinds = kinds::built_in().into_iter().map(Arc::new).collect();
        Self { store: Store::new(keep), kinds, surroundings, next_service: 10 }
    }

    /// The same objects, history and kinds once more: what is written here is not written there.
    pub fn copy(&self, surroundings: Box<dyn Surroundings>) -> Self {
        let (store, kinds) = (self.store.clone(), self.kinds.clone());
        Self { store, kinds, surroundings, next_service: self.next_service }
    }

    /// What was written after `revision`, of whatever kind, oldest first.
    ///
    /// # Errors
    /// 410, when it is forgotten.
    pub fn changes(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Refusal> {
        self.store.since(revision).map_err(|c| Refusal::expired(revision, c.0))
    }

    /// The kind whose objects are stored under this name.
    pub fn kind_stored(&self, resource: &str) -> Option<Arc<Kind>> {
        self.kinds.iter().find(|k| k.stored == resource).cloned()
    }

    /// The kinds that are served.
    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// The kind of a path.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.kinds.iter().find(|k| k.group == group && k.version == version && k.plural == plural).cloned()
    }

    /// The last write's number.
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// Forgets every change so far: watches from before are told 410.
    pub fn compact(&mut self) {
        let now = self.store.revision();
        self.store.compact(now);
    }

    fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
        let namespace = if kind.namespaced { namespace } else { "" };
        Key::new(&kind.stored, namespace, name)
    }

    fn there(&self, kind: &Kind, namespace: &str, name: &str) -> Result<&Stored, Refusal> {
        self.store.get(&Self::key(kind, namespace, name)).ok_or_else(|| Refusal::not_found(kind, name))
    }

    /// Serves the kinds of a CustomResourceDefinition from now on.
    fn define(&mut self, definition: &mut Value) -> Result<(), String> {
        let new = kinds::of_definition(definition)?;
        self.undefine(definition);
        self.kinds.extend(new.into_iter().map(Arc::new));
        let now = self.surroundings.time(0);
        let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now });
        let versions = definition["spec"]["versions"].as_array().cloned().unwrap_or_default();
        let stored: Vec<&Value> = versions.iter().filter(|v| v["storage"] == true).map(|v| &v["name"]).collect();
        definition["status"] = json!({
            "acceptedNames": definition["spec"]["names"],
            "storedVersions": stored,
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        });
        Ok(())
    }

    /// Serves them no longer.
    fn undefine(&mut self, definition: &Value) {
        let (group, plural) = (&definition["spec"]["group"], &definition["spec"]["names"]["plural"]);
        self.kinds.retain(|k| !(k.custom() && *group == *k.group && *plural == *k.plural));
    }
}

/// A text of an object, or nothing.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
