//! A kubelet and agents that run nothing: they write what real ones would, deterministically. All that they remember lies in
//! the objects themselves.

mod agents;
mod objects;
mod pods;

pub use objects::Objects;

use pgconvoy_embedded::api::kinds::Kind;
use pgconvoy_embedded::api::{Api, PatchKind, WriteOptions, text};
use serde_json::{Value, json};
use std::sync::Arc;

/// An image whose name holds this cannot be had.
pub const MISSING: &str = "missing";
/// A parameter that takes effect at a start only.
pub const RESTART: &str = "max_connections";
/// A parameter that PostgreSQL refuses when it is [`NONSENSE`].
pub const RELOAD: &str = "work_mem";
/// What it refuses.
pub const NONSENSE: &str = "lots";
/// The data of every set has this name.
pub const SYSTEM_ID: &str = "7000000000000000001";

/// A kubelet and agents.
pub struct Faked {
    pods: Arc<Kind>,
    claims: Arc<Kind>,
    terms: Arc<Kind>,
    sets: Arc<Kind>,
}

/// One set, as it is dealt with.
struct At<'a> {
    of: &'a Faked,
    api: &'a mut dyn Objects,
    namespace: &'a str,
    name: &'a str,
}

impl Faked {
    /// For an API server that knows pgconvoy's kinds.
    pub fn new(api: &Api) -> Option<Self> {
        Some(Self {
            pods: api.kind("", "v1", "pods")?,
            claims: api.kind("", "v1", "persistentvolumeclaims")?,
            terms: api.kind("pgconvoy.dev", "v1alpha1", "pgterms")?,
            sets: api.kind("pgconvoy.dev", "v1alpha1", "pgreplicasets")?,
        })
    }

    /// Does the next thing that there is to do for a set; whether there was one.
    pub fn step(&self, api: &mut dyn Objects, namespace: &str, set: &str) -> bool {
        let mut at = At { of: self, api, namespace, name: set };
        at.bind_claim() || at.agents() || at.end_pod() || at.run_pod()
    }
}

impl At<'_> {
    fn list(&self, kind: &Kind, label: &str) -> Vec<Arc<Value>> {
        let of_set = |o: &&Arc<Value>| o.pointer("/metadata/labels").is_some_and(|l| l[label] == self.name);
        self.api.objects(kind, self.namespace).into_iter().filter(|o| of_set(&o)).collect()
    }

    fn options(manager: &str) -> WriteOptions {
        WriteOptions { manager: manager.to_owned(), force: true, ..WriteOptions::default() }
    }

    fn say(&mut self, kind: &Kind, name: &str, status: Value) -> bool {
        let body = json!({ "status": status });
        let how = (PatchKind::Merge, &body);
        self.api.status(kind, self.namespace, name, how, &Self::options("kubelet"))
    }

    /// Volumes are there at once.
    fn bind_claim(&mut self) -> bool {
        let claims = self.of.claims.clone();
        let unbound =
            |c: &Arc<Value>| text(c, "/status/phase") != "Bound" && text(c, "/metadata/deletionTimestamp").is_empty();
        let claim = self.list(&claims, pgconvoy_crds::names::LABEL_SET).into_iter().find(unbound);
        claim.is_some_and(|c| self.say(&claims, text(&c, "/metadata/name"), json!({ "phase": "Bound" })))
    }
}
