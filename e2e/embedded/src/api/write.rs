//! Writing: create, update, patch, apply.

use super::kinds::Kind;
use super::managers::{self, Writer};
use super::refusal::Refusal;
use super::rules::{check_name, check_type, keep_immutable, managed, skeleton};
use super::schema::Wrong;
use super::{Api, Done, defaults, patch, read, text};
use pgconvoy_e2e_store::Expect;
use serde_json::{Map, Value, json};

/// How a write is asked for.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Who manages what is written.
    pub manager: String,
    /// Look only.
    pub dry_run: bool,
    /// Unknown fields: `Strict` refuses them, `Warn` tells, anything else says nothing.
    pub field_validation: String,
    /// Take fields of other managers.
    pub force: bool,
}

/// The kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// What a client cannot change.
const SYSTEM: [&str; 7] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

impl Api {
    pub(super) fn writer(kind: &Kind, options: &WriteOptions, applies: bool, subresource: &str) -> Writer {
        Writer {
            name: options.manager.clone(),
            applies,
            api_version: kind.api_version(),
            subresource: subresource.to_owned(),
        }
    }

    /// Makes an object.
    ///
    /// # Errors
    /// When it is there already or cannot be like this.
    pub fn create(
        &mut self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Done, Refusal> {
        check_type(kind, &object)?;
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(Refusal::internal("resourceVersion should not be set on objects to be created"));
        }
        defaults::to_store(kind, &mut object);
        let metadata = metadata_of(&mut object)?;
        for field in SYSTEM.iter().filter(|f| !matches!(**f, "name" | "namespace")) {
            metadata.remove(*field);
        }
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        if kind.status
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
        self.make(kind, namespace, object, options, None)
    }

    /// Puts a new object in. `managed`: its managers are there already.
    pub(super) fn make(
        &mut self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
        applied: Option<&Value>,
    ) -> Result<Done, Refusal> {
        let (now, uid) = (self.surroundings.time(0), self.surroundings.uid());
        let metadata = metadata_of(&mut object)?;
        let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
        if kind.namespaced && !given.is_empty() && given != namespace {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let mut name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() {
            let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
            if prefix.is_empty() {
                let why = "Required value: name or generateName is required";
                let wrong = Wrong { field: "metadata.name".into(), reason: "FieldValueRequired", message: why.into() };
                return Err(Refusal::invalid(kind, "", &[wrong]));
            }
            name = format!("{prefix}{}", &uid[..5]);
        }
        metadata.insert("name".to_owned(), json!(name));
        metadata.remove("namespace");
        if kind.namespaced {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), json!(now));
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        check_name(kind, &name)?;
        if kind.namespaced {
            self.check_namespace(kind, namespace, &name)?;
        }
        let key = Self::key(kind, namespace, &name);
        if self.store.get(&key).is_some() {
            return Err(Refusal::exists(kind, &name));
        }
        let warnings = self.normalise(kind, &name, &mut object, options)?;
        // What admission adds is nobody's.
        if applied.is_none() && managed(kind) {
            let writer = Self::writer(kind, options, false, "");
            let status = object.as_object_mut().and_then(|o| o.remove("status"));
            managers::update(&kind.shape, Some(&skeleton(kind)), &mut object, &writer, &now);
            status.into_iter().for_each(|s| object["status"] = s);
        }
        self.admit(kind, &name, &mut object)?;
        if options.dry_run {
            defaults::shown(kind, &mut object);
            return Ok(Done { object, created: true, warnings });
        }
        let stored = self.store.put(key, Expect::Absent, |r| with_revision(object, r));
        let stored = stored.map_err(|_| Refusal::exists(kind, &name))?;
        let mut object = (*stored.object).clone();
        defaults::shown(kind, &mut object);
        Ok(Done { object, created: true, warnings })
    }

    /// Replaces an object, or its status or scale.
    ///
    /// # Errors
    /// When it is not there, was written meanwhile, or cannot be like this.
    pub fn update(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Done, Refusal> {
        if subresource == "scale" {
            return self.update_scale(kind, namespace, name, &object, options);
        }
        check_type(kind, &object)?;
        if text(&object, "/metadata/name") != name {
            return Err(Refusal::other_name(text(&object, "/metadata/name"), name));
        }
        let unconditional = text(&object, "/metadata/resourceVersion").is_empty();
        let missing = self.store.get(&Self::key(kind, namespace, name)).is_none();
        if missing && unconditional && subresource.is_empty() && kind.kind == "Lease" {
            return self.create(kind, namespace, object, options);
        }
        let before = self.there(kind, namespace, name)?.object.clone();
        if kind.custom() && unconditional {
            return Err(Refusal::no_revision(kind, name));
        }
        defaults::to_store(kind, &mut object);
        self.finish(kind, name, subresource, &before, object, options, None)
    }

    /// Changes an object by a patch.
    ///
    /// # Errors
    /// When it is not there, the patch does not fit, others manage the fields, or the outcome cannot be like this.
    pub fn patch(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &str,
        (how, body): (PatchKind, &Value),
        options: &WriteOptions,
    ) -> Result<Done, Refusal> {
        if how == PatchKind::Apply {
            return self.apply(kind, namespace, name, subresource, body, options);
        }
        if how == PatchKind::Strategic && kind.custom() {
            return Err(Refusal::unsupported_patch());
        }
        let before = self.there(kind, namespace, name)?.object.clone();
        if subresource == "scale" {
            let mut scale = read::scale_of(kind, &before);
            change(kind, how, &mut scale, body)?;
            return self.update_scale(kind, namespace, name, &scale, options);
        }
        let mut object = (*before).clone();
        defaults::shown(kind, &mut object);
        change(kind, how, &mut object, body)?;
        if body.get("metadata").is_none_or(|m| m.get("resourceVersion").is_none())
            && let Ok(metadata) = metadata_of(&mut object)
        {
            metadata.remove("resourceVersion");
        }
        defaults::to_store(kind, &mut object);
        same_uid(kind, name, subresource, &before, &mut object)?;
        self.finish(kind, name, subresource, &before, object, options, None)
    }

    /// Gives a pod a node, which nobody else can.
    ///
    /// # Errors
    /// When it is gone.
    pub fn bind(&mut self, kind: &Kind, namespace: &str, name: &str, node: &str, time: &str) -> Result<(), Refusal> {
        let mut object = (*self.there(kind, namespace, name)?.object).clone();
        object["spec"]["nodeName"] = json!(node);
        object["status"]["conditions"] = json!([
            { "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time },
        ]);
        let key = Self::key(kind, namespace, name);
        let stored = self.store.put(key, Expect::Anything, |r| with_revision(object, r));
        stored.map(|_| ()).map_err(|_| Refusal::not_found(kind, name))
    }

    /// From what a client wants to what is stored.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn finish(
        &mut self,
        kind: &Kind,
        name: &str,
        subresource: &str,
        before: &Value,
        mut object: Value,
        options: &WriteOptions,
        applied: Option<Vec<managers::Manager>>,
    ) -> Result<Done, Refusal> {
        let there = text(before, "/metadata/resourceVersion").to_owned();
        let metadata = metadata_of(&mut object)?;
        let asked = metadata.get("resourceVersion").and_then(Value::as_str).unwrap_or_default();
        if !asked.is_empty() && asked != there {
            return Err(Refusal::stale(kind, name));
        }
        let uid = metadata.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let own = text(before, "/metadata/uid");
        if !uid.is_empty() && uid != own {
            let group = if kind.custom() { format!("{}/", kind.group) } else { String::new() };
            let place = format!("/registry/{group}{}/{}/{name}", kind.plural, text(before, "/metadata/namespace"));
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {place}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
                 failed: UID in precondition: {uid}, UID in object meta: {own}"
            );
            return Err(Refusal::conflict(kind, name, &why));
        }
        if subresource == "status" {
            // Nothing but the status, wherever it came from.
            let status = object.get_mut("status").map(Value::take);
            object = before.clone();
            if let Some(map) = object.as_object_mut() {
                map.remove("status");
                status.into_iter().for_each(|s| drop(map.insert("status".to_owned(), s)));
            }
        } else if kind.status
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
            before.get("status").into_iter().for_each(|s| drop(map.insert("status".to_owned(), s.clone())));
        }
        let metadata = metadata_of(&mut object)?;
        for field in SYSTEM.into_iter().chain(["managedFields", "resourceVersion"]) {
            match before["metadata"].get(field) {
                Some(v) => drop(metadata.insert(field.to_owned(), v.clone())),
                None => drop(metadata.remove(field)),
            }
        }
        let warnings = self.normalise(kind, name, &mut object, options)?;
        if subresource.is_empty() {
            keep_immutable(kind, name, before, &mut object)?;
            if kind.kind == "CustomResourceDefinition" {
                self.define(&mut object).map_err(|why| Refusal::bad_request(format!("{name}: {why}")))?;
            }
        }
        if kind.generation && subresource != "status" && specification(before) != specification(&object) {
            let next = before["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
            object["metadata"]["generation"] = json!(next);
        }
        let now = self.surroundings.time(0);
        match applied {
            Some(list) => managers::write(&mut object, list),
            None if !managed(kind) => {}
            None => {
                let writer = Self::writer(kind, options, false, subresource);
                managers::update(&kind.shape, Some(before), &mut object, &writer, &now);
            }
        }
        let namespace = text(before, "/metadata/namespace").to_owned();
        let show = |object: &Value, warnings| {
            let mut object = object.clone();
            defaults::shown(kind, &mut object);
            Ok(Done { object, created: false, warnings })
        };
        // A write that changes nothing is none.
        if managers::same_but_for_times(before, &object) {
            return show(before, warnings);
        }
        if options.dry_run {
            return show(&object, warnings);
        }
        let key = Self::key(kind, &namespace, name);
        let revision = there.parse().unwrap_or_default();
        if to_be_gone(kind, &object) {
            let gone = self.store.delete(&key, Expect::Revision(revision), |_, r| with_revision(object, r));
            let gone = gone.map_err(|_| Refusal::stale(kind, name))?;
            return show(&gone.object, warnings);
        }
        let stored = self.store.put(key, Expect::Revision(revision), |r| with_revision(object, r));
        show(&stored.map_err(|_| Refusal::stale(kind, name))?.object, warnings)
    }
}

/// A patch cannot make another object of it; but the status of a custom one takes nothing of the metadata that comes with
/// it, not even a wrong UID.
pub(super) fn same_uid(
    kind: &Kind,
    name: &str,
    subresource: &str,
    before: &Value,
    object: &mut Value,
) -> Result<(), Refusal> {
    let own = &before["metadata"]["uid"];
    let given = text(object, "/metadata/uid").to_owned();
    if !given.is_empty() && *own != *given && !(subresource == "status" && kind.custom()) {
        let why = format!("Invalid value: {given:?}: field is immutable");
        return Err(Refusal::invalid_field(kind, name, "metadata.uid", &why));
    }
    object["metadata"]["uid"] = own.clone();
    Ok(())
}

fn change(kind: &Kind, how: PatchKind, object: &mut Value, body: &Value) -> Result<(), Refusal> {
    match how {
        PatchKind::Merge => patch::merge(object, body),
        PatchKind::Json => patch::json(object, body)?,
        PatchKind::Strategic => patch::strategic(&kind.shape, object, body),
        PatchKind::Apply => return Err(Refusal::bad_request("an apply is no patch of the scale subresource")),
    }
    Ok(())
}

pub(super) fn metadata_of(object: &mut Value) -> Result<&mut Map<String, Value>, Refusal> {
    let map = object.as_object_mut().ok_or_else(|| Refusal::bad_request("the body is no object"))?;
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut().ok_or_else(|| Refusal::bad_request("metadata is no object"))
}

/// Everything but metadata and status.
fn specification(object: &Value) -> Map<String, Value> {
    let map = object.as_object().into_iter().flatten();
    map.filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status")).map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn with_revision(mut object: Value, revision: u64) -> Value {
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    object
}

/// Whether a deletion only waited for the finalizers that are gone now. A pod also waits for its kubelet.
fn to_be_gone(kind: &Kind, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let waits = metadata["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    let grace = kind.kind == "Pod" && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default() > 0;
    let namespace = kind.kind == "Namespace";
    metadata.get("deletionTimestamp").is_some() && !waits && !grace && !namespace
}
