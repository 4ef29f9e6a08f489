//! What a faked kubelet and agents see of a cluster, and what they may do in it.

use pgconvoy_embedded::api::kinds::Kind;
use pgconvoy_embedded::api::{Api, DeleteOptions, PatchKind, WriteOptions};
use serde_json::Value;
use std::sync::Arc;

/// The objects of a cluster. Writes answer whether they were done: one that was refused is tried again when something has
/// changed.
pub trait Objects {
    /// One object.
    fn object(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Value>;
    /// The objects of a namespace.
    fn objects(&self, kind: &Kind, namespace: &str) -> Vec<Arc<Value>>;
    /// Gives a pod a node.
    fn bind(&mut self, pods: &Kind, namespace: &str, name: &str, node: &str) -> bool;
    /// Changes an object's status by a merge patch, or applies it.
    fn status(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch: (PatchKind, &Value),
        options: &WriteOptions,
    ) -> bool;
    /// Replaces an object, unless it was written meanwhile.
    fn replace(&mut self, kind: &Kind, namespace: &str, name: &str, object: Value, options: &WriteOptions) -> bool;
    /// Deletes a pod whose containers have ended.
    fn end(&mut self, pods: &Kind, namespace: &str, name: &str) -> bool;
}

impl Objects for Api {
    fn object(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Value> {
        self.get(kind, namespace, name).ok()
    }

    fn objects(&self, kind: &Kind, namespace: &str) -> Vec<Arc<Value>> {
        self.stored(kind, namespace).cloned().collect()
    }

    fn bind(&mut self, pods: &Kind, namespace: &str, name: &str, node: &str) -> bool {
        Api::bind(self, pods, namespace, name, node, "2026-01-01T00:00:00Z").is_ok()
    }

    fn status(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch: (PatchKind, &Value),
        options: &WriteOptions,
    ) -> bool {
        self.patch(kind, namespace, name, "status", patch, options).is_ok()
    }

    fn replace(&mut self, kind: &Kind, namespace: &str, name: &str, object: Value, options: &WriteOptions) -> bool {
        self.update(kind, namespace, name, "", object, options).is_ok()
    }

    fn end(&mut self, pods: &Kind, namespace: &str, name: &str) -> bool {
        let now = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
        self.delete(pods, namespace, name, &now).is_ok()
    }
}
