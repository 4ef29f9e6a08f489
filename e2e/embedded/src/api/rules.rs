//! What an object must and cannot be: schemas, names, namespaces, what admission adds, what never changes.

use super::kinds::Kind;
use super::refusal::Refusal;
use super::schema::Wrong;
use super::write::WriteOptions;
use super::{Api, defaults, garbage, text};
use serde_json::{Map, Value, json};

impl Api {
    /// Prunes, fills in, refuses.
    pub(super) fn normalise(
        &self,
        kind: &Kind,
        name: &str,
        object: &mut Value,
        options: &WriteOptions,
    ) -> Result<Vec<String>, Refusal> {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            // As typed metadata comes out again: what is empty is not there.
            let empty = |v: &Value| v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(Map::is_empty);
            for field in ["annotations", "finalizers", "labels", "ownerReferences"] {
                if metadata.get(field).is_some_and(empty) {
                    metadata.remove(field);
                }
            }
        }
        let mut warnings = vec![];
        if let Some(schema) = &kind.schema {
            warnings = unknown(kind, schema.prune(object), options)?;
            schema.default_into(object);
            let wrong = schema.validate(object);
            if !wrong.is_empty() {
                return Err(Refusal::invalid(kind, name, &wrong));
            }
        }
        defaults::fill(kind, object);
        for reference in object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten() {
            for field in ["uid", "name", "kind", "apiVersion"] {
                if reference[field].as_str().unwrap_or_default().is_empty() {
                    let why = "Invalid value: \"\": must not be empty";
                    return Err(Refusal::invalid_field(kind, name, &format!("metadata.ownerReferences.{field}"), why));
                }
            }
        }
        Ok(warnings)
    }

    pub(super) fn check_namespace(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
        let Some(namespaces) = self.kind("", "v1", "namespaces") else { return Err(Refusal::no_path()) };
        let found = self.there(&namespaces, "", namespace)?;
        if text(&found.object, "/status/phase") == "Terminating" {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(Refusal::forbidden(kind, name, &why));
        }
        Ok(())
    }

    /// What admission adds to a new object.
    pub(super) fn admit(&mut self, kind: &Kind, name: &str, object: &mut Value) -> Result<(), Refusal> {
        match kind.kind.as_str() {
            "CustomResourceDefinition" => {
                self.define(object).map_err(|why| Refusal::bad_request(format!("{name}: {why}")))?;
            }
            "Service" if text(object, "/spec/clusterIP") == "None" => {
                object["spec"]["clusterIPs"] = json!(["None"]);
                let any = object["spec"].get("selector").is_none();
                object["spec"]["ipFamilies"] = if any { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) };
                object["spec"]["ipFamilyPolicy"] = json!(if any { "RequireDualStack" } else { "SingleStack" });
            }
            "Service" if text(object, "/spec/clusterIP").is_empty() => {
                let address = format!("10.96.{}.{}", self.next_service / 250, self.next_service % 250 + 1);
                self.next_service += 1;
                object["spec"]["clusterIP"] = json!(address);
                object["spec"]["clusterIPs"] = json!([address]);
                object["spec"]["ipFamilies"] = json!(["IPv4"]);
                object["spec"]["ipFamilyPolicy"] = json!("SingleStack");
            }
            "PersistentVolumeClaim" => {
                object["metadata"]["finalizers"] = json!([garbage::PVC_PROTECTION]);
                if object["spec"].get("storageClassName").is_none()
                    && let Some(classes) = self.kind("storage.k8s.io", "v1", "storageclasses")
                {
                    let key = "storageclass.kubernetes.io/is-default-class";
                    let mut list = self.store.list(&classes.stored, None);
                    let default = list.find(|(_, s)| s.object["metadata"]["annotations"][key] == "true");
                    if let Some((k, _)) = default {
                        object["spec"]["storageClassName"] = json!(k.name);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether it is written down who updates it. The real server does not do it for what is renewed all the time.
pub(super) fn managed(kind: &Kind) -> bool {
    kind.kind != "Lease"
}

/// What an object has before anybody gave it anything: parts that Kubernetes' own types always have.
pub(super) fn skeleton(kind: &Kind) -> Value {
    let mut nothing = json!({ "metadata": {} });
    if !kind.custom() {
        nothing["spec"] = match kind.kind.as_str() {
            "Pod" => json!({ "containers": [] }),
            "PersistentVolumeClaim" => json!({ "resources": {} }),
            "CustomResourceDefinition" => json!({ "names": {} }),
            _ => json!({}),
        };
    }
    if kind.kind == "Event" {
        nothing["source"] = json!({});
    }
    nothing
}

/// What to say of fields that are not in the schema.
pub(super) fn unknown(kind: &Kind, pruned: Vec<String>, options: &WriteOptions) -> Result<Vec<String>, Refusal> {
    let sentences: Vec<String> = pruned.into_iter().map(|f| format!("unknown field {f:?}")).collect();
    match options.field_validation.as_str() {
        "Strict" if !sentences.is_empty() => {
            let (name, version) = (&kind.kind, &kind.version);
            Err(Refusal::bad_request(format!(
                "{name} in version {version:?} cannot be handled as a {name}: strict decoding error: {}",
                sentences.join(", ")
            )))
        }
        "Ignore" => Ok(vec![]),
        _ => Ok(sentences),
    }
}

pub(super) fn nulls_go(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(nulls_go);
        }
        Value::Array(list) => list.iter_mut().for_each(nulls_go),
        _ => {}
    }
}

pub(super) fn check_type(kind: &Kind, object: &Value) -> Result<(), Refusal> {
    let (version, name) = (text(object, "/apiVersion"), text(object, "/kind"));
    // The typed clients of some languages leave them out.
    if (version.is_empty() && name.is_empty()) || (version == kind.api_version() && name == kind.kind) {
        return Ok(());
    }
    if version != kind.api_version() {
        let given = if version.is_empty() { "" } else { version };
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    Err(Refusal::bad_request(format!("the kind in the data ({name}) does not match the expected kind ({})", kind.kind)))
}

pub(super) fn check_name(kind: &Kind, name: &str) -> Result<(), Refusal> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    // Roles and their bindings are called almost anything.
    let free = kind.group == "rbac.authorization.k8s.io";
    let well = name.len() <= 253
        && name.chars().all(|c| label(c) || matches!(c, '-' | '.'))
        && name.starts_with(label)
        && name.ends_with(label);
    if well || (free && !name.contains(['/', '%'])) {
        return Ok(());
    }
    let why = format!(
        "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
         or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    );
    Err(Refusal::invalid_field(kind, name, "metadata.name", &why))
}

/// What of an object cannot be changed; what a client left out of that stays.
pub(super) fn keep_immutable(kind: &Kind, name: &str, before: &Value, object: &mut Value) -> Result<(), Refusal> {
    match kind.kind.as_str() {
        "Pod" => {
            // Images may change in place; little else.
            let frozen = |pod: &Value| {
                let mut spec = pod["spec"].clone();
                for list in ["containers", "initContainers"] {
                    for container in spec[list].as_array_mut().into_iter().flatten() {
                        container["image"] = Value::Null;
                    }
                }
                spec["tolerations"] = Value::Null;
                spec["activeDeadlineSeconds"] = Value::Null;
                spec
            };
            if frozen(before) != frozen(object) {
                let why = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
                let wrong = Wrong { field: "spec".into(), reason: "FieldValueForbidden", message: why.into() };
                return Err(Refusal::invalid(kind, name, &[wrong]));
            }
        }
        "Service" => {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if object["spec"].get(field).is_none_or(Value::is_null)
                    && let Some(v) = before["spec"].get(field)
                {
                    object["spec"][field] = v.clone();
                }
            }
        }
        "RoleBinding" | "ClusterRoleBinding" if before["roleRef"] != object["roleRef"] => {
            return Err(Refusal::invalid_field(kind, name, "roleRef", "Invalid value: cannot change roleRef"));
        }
        _ => {}
    }
    Ok(())
}
