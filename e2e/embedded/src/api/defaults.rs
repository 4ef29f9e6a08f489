//! What the API server fills in for Kubernetes' own kinds, and the two forms of an Event.

use super::kinds::Kind;
use serde_json::{Map, Value, json};

fn or(map: &mut Map<String, Value>, name: &str, value: Value) {
    if map.get(name).is_none_or(Value::is_null) {
        map.insert(name.to_owned(), value);
    }
}

fn at<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    object.pointer_mut(pointer).and_then(Value::as_object_mut)
}

fn each<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = object.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Fills in what a kind's objects have when nobody says it. Written into what is stored, as the real server does.
pub fn fill(kind: &Kind, object: &mut Value) {
    if kind.custom() {
        return;
    }
    // Types of Kubernetes' own have no nulls.
    drop_nulls(object);
    match kind.kind.as_str() {
        "Pod" => pod(object),
        "Service" => service(object),
        "Secret" => {
            if let Some(map) = object.as_object_mut() {
                or(map, "type", json!("Opaque"));
                text_into_data(map);
            }
        }
        "PersistentVolumeClaim" => {
            if let Some(spec) = at(object, "/spec") {
                or(spec, "volumeMode", json!("Filesystem"));
            }
            if let Some(map) = object.as_object_mut() {
                let status = map.entry("status").or_insert_with(|| json!({}));
                if let Some(status) = status.as_object_mut() {
                    or(status, "phase", json!("Pending"));
                }
            }
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            for subject in each(object, "/subjects") {
                if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
                    or(subject, "apiGroup", json!("rbac.authorization.k8s.io"));
                }
            }
        }
        "EndpointSlice" => {
            if let Some(map) = object.as_object_mut() {
                // The real one knows no difference between none and an empty list.
                for list in ["endpoints", "ports"] {
                    if map.get(list).and_then(Value::as_array).is_none_or(Vec::is_empty) {
                        map.insert(list.to_owned(), Value::Null);
                    }
                }
            }
            for port in each(object, "/ports") {
                or(port, "name", json!(""));
                or(port, "protocol", json!("TCP"));
            }
        }
        "Event" => {
            if let Some(map) = object.as_object_mut() {
                or(map, "source", json!({}));
            }
        }
        "PodDisruptionBudget" => {
            if let Some(map) = object.as_object_mut() {
                let none =
                    json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 });
                or(map, "status", none);
            }
        }
        "CustomResourceDefinition" => {
            let list = format!("{}List", object["spec"]["names"]["kind"].as_str().unwrap_or_default());
            if let Some(spec) = at(object, "/spec") {
                or(spec, "conversion", json!({ "strategy": "None" }));
            }
            if let Some(names) = at(object, "/spec/names") {
                or(names, "listKind", json!(list));
            }
        }
        "StorageClass" => {
            if let Some(map) = object.as_object_mut() {
                or(map, "reclaimPolicy", json!("Delete"));
                or(map, "volumeBindingMode", json!("Immediate"));
            }
        }
        "Namespace" => {
            if let Some(map) = object.as_object_mut() {
                or(map, "status", json!({ "phase": "Active" }));
                or(map, "spec", json!({ "finalizers": ["kubernetes"] }));
            }
        }
        _ => {}
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn text_into_data(secret: &mut Map<String, Value>) {
    use base64::Engine as _;
    let Some(Value::Object(text)) = secret.remove("stringData") else { return };
    let data = secret.entry("data").or_insert_with(|| json!({}));
    for (name, value) in text {
        let bytes = value.as_str().unwrap_or_default();
        data[name] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    }
}

fn service(object: &mut Value) {
    if let Some(spec) = at(object, "/spec") {
        or(spec, "type", json!("ClusterIP"));
        or(spec, "sessionAffinity", json!("None"));
        or(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    for port in each(object, "/spec/ports") {
        or(port, "protocol", json!("TCP"));
        let number = port.get("port").cloned().unwrap_or_default();
        or(port, "targetPort", number);
    }
    if let Some(map) = object.as_object_mut() {
        or(map, "status", json!({ "loadBalancer": {} }));
    }
}

fn pod(object: &mut Value) {
    if let Some(spec) = at(object, "/spec") {
        for (name, value) in [
            ("restartPolicy", json!("Always")),
            ("dnsPolicy", json!("ClusterFirst")),
            ("schedulerName", json!("default-scheduler")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("enableServiceLinks", json!(true)),
            ("serviceAccountName", json!("default")),
            ("preemptionPolicy", json!("PreemptLowerPriority")),
            ("priority", json!(0)),
            ("securityContext", json!({})),
        ] {
            or(spec, name, value);
        }
        let account = spec.get("serviceAccountName").cloned().unwrap_or_default();
        or(spec, "serviceAccount", account);
    }
    for list in ["/spec/containers", "/spec/initContainers"] {
        for container in each(object, list) {
            or(container, "terminationMessagePath", json!("/dev/termination-log"));
            or(container, "terminationMessagePolicy", json!("File"));
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let latest =
                !image.rsplit('/').next().unwrap_or_default().contains([':', '@']) || image.ends_with(":latest");
            or(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
            or(container, "resources", json!({}));
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(port) = port.as_object_mut() {
                    or(port, "protocol", json!("TCP"));
                }
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(Value::Object(probe)) = container.get_mut(probe) {
                    for (name, value) in
                        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
                    {
                        or(probe, name, json!(value));
                    }
                    if let Some(Value::Object(get)) = probe.get_mut("httpGet") {
                        or(get, "scheme", json!("HTTP"));
                        or(get, "path", json!("/"));
                    }
                }
            }
            for env in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(field) = env.pointer_mut("/valueFrom/fieldRef").and_then(Value::as_object_mut) {
                    or(field, "apiVersion", json!("v1"));
                }
            }
        }
    }
    for volume in each(object, "/spec/volumes") {
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            if let Some(Value::Object(source)) = volume.get_mut(source) {
                or(source, "defaultMode", json!(0o644));
            }
        }
    }
    let asks = |c: &Value| ["requests", "limits"].iter().any(|r| c["resources"].get(r).is_some());
    let list = |at: &str| object.pointer(at).and_then(Value::as_array).is_some_and(|l| l.iter().any(asks));
    let quality = if list("/spec/containers") || list("/spec/initContainers") { "Burstable" } else { "BestEffort" };
    if let Some(map) = object.as_object_mut() {
        let status = map.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            or(status, "phase", json!("Pending"));
            or(status, "qosClass", json!(quality));
        }
    }
}

/// The fields of an Event, as the core calls them and as `events.k8s.io` does.
const EVENT: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// From the form in which it is stored, the core's, to that of a kind.
pub fn shown(kind: &Kind, object: &mut Value) {
    if kind.kind == "Event" && kind.group == "events.k8s.io" {
        rename(object, |(core, new)| (core, new));
    }
    set_type(kind, object);
}

/// From the form of a kind to that in which it is stored.
pub fn to_store(kind: &Kind, object: &mut Value) {
    if kind.kind == "Event" && kind.group == "events.k8s.io" {
        rename(object, |(core, new)| (new, core));
    }
    set_type(kind, object);
}

fn rename(object: &mut Value, pair: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(map) = object.as_object_mut() else { return };
    for names in EVENT {
        let (from, to) = pair(names);
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn set_type(kind: &Kind, object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!(kind.api_version()));
        map.insert("kind".to_owned(), json!(kind.kind));
    }
}
