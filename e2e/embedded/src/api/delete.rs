//! Deleting.

use super::kinds::Kind;
use super::refusal::Refusal;
use super::select::Selector;
use super::write::with_revision;
use super::{Api, Done, defaults, text};
use pgconvoy_e2e_store::Expect;
use serde_json::{Value, json};

/// How a deletion is asked for.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds that a pod gets; nothing: what it says itself.
    pub grace: Option<i64>,
    /// Delete only this one.
    pub uid: Option<String>,
    /// Delete only this form of it.
    pub resource_version: Option<String>,
    /// `Background`, `Foreground`, `Orphan`, or empty.
    pub propagation: String,
    /// Look only.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` body.
    pub fn parse(body: &Value) -> Self {
        Self {
            grace: body["gracePeriodSeconds"].as_i64(),
            uid: body.pointer("/preconditions/uid").and_then(Value::as_str).map(str::to_owned),
            resource_version: body.pointer("/preconditions/resourceVersion").and_then(Value::as_str).map(str::to_owned),
            propagation: text(body, "/propagationPolicy").to_owned(),
            dry_run: body["dryRun"].as_array().is_some_and(|d| !d.is_empty()),
        }
    }
}

impl Api {
    /// Deletes an object: at once, or as soon as its finalizers and its kubelet let it go.
    ///
    /// # Errors
    /// When it is not there, or not the one that was meant.
    pub fn delete(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Done, Refusal> {
        let before = self.there(kind, namespace, name)?.clone();
        let metadata = &before.object["metadata"];
        let uid = text(&before.object, "/metadata/uid").to_owned();
        if let Some(wanted) = options.uid.as_ref().filter(|w| **w != uid) {
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have \
                 been deleted and then recreated"
            );
            return Err(Refusal::precondition(kind, name, &why));
        }
        let there = text(&before.object, "/metadata/resourceVersion");
        if let Some(wanted) = options.resource_version.as_ref().filter(|w| *w != there) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
                 ({there}). The object might have been modified"
            );
            return Err(Refusal::precondition(kind, name, &why));
        }
        let mut object = (*before.object).clone();
        let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
        match options.propagation.as_str() {
            "Foreground" => finalizers.push(json!("foregroundDeletion")),
            "Orphan" => finalizers.push(json!("orphan")),
            _ => {}
        }
        finalizers.dedup();
        let grace = self.grace(kind, &before.object, options);
        let going = metadata.get("deletionTimestamp").is_some();
        if going && finalizers.len() == metadata["finalizers"].as_array().map_or(0, Vec::len) {
            let left = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
            if grace >= left && (grace > 0 || !finalizers.is_empty()) {
                return Ok(self.shown(kind, object, false));
            }
        }
        if options.dry_run {
            return Ok(self.shown(kind, object, false));
        }
        if finalizers.is_empty() && grace == 0 && kind.kind != "Namespace" {
            return self.take_away(kind, namespace, name, before.revision);
        }
        let time = self.surroundings.time(grace);
        let metadata = &mut object["metadata"];
        metadata["deletionTimestamp"] = json!(time);
        metadata["deletionGracePeriodSeconds"] = json!(grace);
        if !finalizers.is_empty() {
            metadata["finalizers"] = json!(finalizers);
        }
        if let (false, Some(generation)) = (going, metadata["generation"].as_i64()) {
            metadata["generation"] = json!(generation + 1);
        }
        if kind.kind == "Namespace" {
            object["status"]["phase"] = json!("Terminating");
        }
        let key = Self::key(kind, namespace, name);
        let stored = self.store.put(key, Expect::Revision(before.revision), |r| with_revision(object, r));
        let stored = stored.map_err(|_| Refusal::stale(kind, name))?;
        Ok(self.shown(kind, (*stored.object).clone(), false))
    }

    /// How long a pod that runs somewhere may take to stop; everything else goes at once.
    fn grace(&self, kind: &Kind, object: &Value, options: &DeleteOptions) -> i64 {
        let phase = text(object, "/status/phase");
        if kind.kind != "Pod" || text(object, "/spec/nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed") {
            return 0;
        }
        let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
        options.grace.unwrap_or(own).max(0)
    }

    fn shown(&self, kind: &Kind, mut object: Value, created: bool) -> Done {
        defaults::shown(kind, &mut object);
        Done { object, created, warnings: vec![] }
    }

    fn take_away(&mut self, kind: &Kind, namespace: &str, name: &str, revision: u64) -> Result<Done, Refusal> {
        let key = Self::key(kind, namespace, name);
        let time = self.surroundings.time(0);
        let last = |v: &Value, r| {
            let mut last = with_revision(v.clone(), r);
            if kind.kind == "Pod" && last["metadata"]["deletionGracePeriodSeconds"] != 0 {
                last["metadata"]["deletionTimestamp"] = json!(time);
                last["metadata"]["deletionGracePeriodSeconds"] = json!(0);
                let generation = last["metadata"]["generation"].as_i64().unwrap_or_default();
                last["metadata"]["generation"] = json!(generation + 1);
            }
            last
        };
        let gone = self.store.delete(&key, Expect::Revision(revision), last);
        let gone = gone.map_err(|_| Refusal::stale(kind, name))?;
        if kind.kind == "CustomResourceDefinition" {
            self.undefine(&gone.object);
            let stored = format!("{}.{}", text(&gone.object, "/spec/names/plural"), text(&gone.object, "/spec/group"));
            let keys: Vec<_> = self.store.list(&stored, None).map(|(k, _)| k.clone()).collect();
            for key in keys {
                let _ = self.store.delete(&key, Expect::Anything, |v, r| with_revision(v.clone(), r));
            }
        }
        let whole = matches!(
            kind.kind.as_str(),
            "Pod" | "Service" | "ServiceAccount" | "PersistentVolumeClaim" | "PersistentVolume"
        );
        if whole {
            return Ok(self.shown(kind, (*gone.object).clone(), false));
        }
        let mut details = json!({ "name": name, "kind": kind.plural, "uid": gone.object["metadata"]["uid"] });
        if !kind.group.is_empty() {
            details["group"] = json!(kind.group);
        }
        let object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        });
        Ok(Done { object, created: false, warnings: vec![] })
    }

    /// Deletes what a selector means; the objects as they were.
    ///
    /// # Errors
    /// When one of them cannot be deleted.
    pub fn delete_collection(
        &mut self,
        kind: &Kind,
        namespace: &str,
        selector: &Selector,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>, Refusal> {
        let page = self.list(kind, Some(namespace), selector, 0, "")?;
        for object in &page.items {
            match self.delete(kind, namespace, text(object, "/metadata/name"), options) {
                Err(r) if r.code != 404 => return Err(r),
                _ => {}
            }
        }
        Ok(page.items)
    }
}
