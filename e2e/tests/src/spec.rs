//! Sets that tests make themselves, and what is said about them.

use crate::set::condition;
use crate::{Namespace, Set, eventually};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Duration;

impl Namespace {
    /// Applies a set: a spec that is right, with `changes` merged into it. An absent field of `changes` is as in
    /// `examples/single.yaml`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply(&self, name: &str, changes: &Value) -> anyhow::Result<Set<'_>> {
        let mut spec = json!({
            "image": "docker.io/library/postgres:17",
            "members": 1,
            "storage": { "size": "1Gi", "whenDeleted": "Delete" },
        });
        merge(&mut spec, changes);
        let object = json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": name }, "spec": spec,
        });
        self.kubectl(&["apply", "-f", "-"], &object.to_string())?;
        Ok(Set { namespace: self, name: name.to_owned() })
    }
}

fn merge(into: &mut Value, changes: &Value) {
    let (Value::Object(into), Value::Object(changes)) = (&mut *into, changes) else {
        *into = changes.clone();
        return;
    };
    for (key, change) in changes {
        merge(into.entry(key.clone()).or_insert(Value::Null), change);
    }
}

impl Set<'_> {
    /// Changes the spec (merge patch: null takes a field away).
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn patch(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.namespace.kubectl(&["patch", "pgrs", &self.name, "--type=merge", "-p", &patch], "")?;
        Ok(())
    }

    /// Waits until a condition about the present spec has this status and reason, and a message with all `words`; gives
    /// the message.
    ///
    /// # Errors
    /// When it does not `within` that time, with what it said.
    pub fn says(
        &self,
        kind: &str,
        status: &str,
        reason: &str,
        words: &[&str],
        within: Duration,
    ) -> anyhow::Result<String> {
        let what = format!("{kind}={status} {reason} with {words:?}");
        self.wait(&what, within, |set| {
            let (is, has, message) = condition(set, kind);
            (is == status && has == reason && words.iter().all(|w| message.contains(w))).then_some(message)
        })
    }

    /// Waits for an Event about the set with this reason; its text.
    ///
    /// # Errors
    /// When there is none `within` that time.
    pub fn told(&self, reason: &str, within: Duration) -> anyhow::Result<String> {
        let about = format!("--field-selector=involvedObject.kind=PgReplicaSet,involvedObject.name={}", self.name);
        eventually(&format!("an Event {reason} about {}", self.name), within, || {
            let events = self.namespace.get(&["events", &about])?;
            let mut events = events["items"].as_array().into_iter().flatten();
            let found = events.find(|e| e["reason"] == reason).and_then(|e| e["message"].as_str());
            Ok(found.map(str::to_owned))
        })
    }

    /// The line that `kubectl get pgrs` prints of it.
    ///
    /// # Errors
    /// When there is none.
    pub fn listed(&self) -> anyhow::Result<String> {
        let line = self.namespace.kubectl(&["get", "pgrs", &self.name, "--no-headers"], "")?;
        ensure!(!line.trim().is_empty(), "kubectl get prints nothing of {}", self.name);
        Ok(line)
    }

    /// The entry of a member in the status.
    ///
    /// # Errors
    /// When there is none.
    pub fn member(&self, name: &str) -> anyhow::Result<Value> {
        let set = self.get()?;
        let mut states = set["status"]["memberStates"].as_array().into_iter().flatten();
        states.find(|s| s["name"] == name).cloned().with_context(|| format!("{name} says nothing of itself"))
    }
}
