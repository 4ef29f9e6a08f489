//! A cluster whose API server the operator talks to, and whose pods and members are faked.

use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How the custom resource of the sets is stored.
pub(crate) const SETS: &str = "pgreplicasets.pgconvoy.dev";

/// What the operator does while there is nothing to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// Requests that began, a second.
    pub(crate) requests: f64,
    /// Watches that are open.
    pub(crate) watches: f64,
    /// Objects that were written, the operators' Lease aside.
    pub(crate) written: usize,
}

/// A cluster.
pub(crate) trait Bed {
    /// What the operator is to be started with.
    fn kubeconfig(&self) -> &Path;
    /// Makes an object of the kind that is stored under this name.
    fn create(&self, stored: &str, namespace: &str, object: Value) -> anyhow::Result<()>;
    /// Changes a set's spec by a merge patch.
    fn change(&self, namespace: &str, set: &str, spec: Value) -> anyhow::Result<()>;
    /// An object, as it was last heard of.
    fn get(&self, stored: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// The pods of a namespace, as they were last heard of.
    fn pods(&self, namespace: &str) -> Vec<Arc<Value>>;
    /// Looks on for so long.
    fn rest(&self, time: Duration) -> anyhow::Result<Rest>;
    /// Whether others than the operator make requests, too, so that one must look what they are without it.
    fn has_others(&self) -> bool;
    /// Takes the operators' Lease away: who was killed gives it not back, and waiting for its end is not what is measured.
    fn free_lease(&self) -> anyhow::Result<()>;
}
