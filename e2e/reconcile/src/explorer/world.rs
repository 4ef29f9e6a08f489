//! What there is, without what may differ between runs that come to the same.

use pgconvoy_embedded::api::select::Selector;
use pgconvoy_embedded::api::{Api, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Objects by kind and name.
pub type World = BTreeMap<String, Value>;

/// What there is in the namespace of a set: everything but who leads in which epoch, UIDs, times, texts of conditions, keys and
/// passwords.
pub(super) fn of(api: &Api, (namespace, set): &(String, String)) -> World {
    let uid = api.kind_stored("pgreplicasets.pgconvoy.dev").and_then(|k| api.get(&k, namespace, set).ok());
    let uid = uid.map(|s| text(&s, "/metadata/uid").to_owned()).filter(|u| !u.is_empty());
    let mut all = World::new();
    let mut roles: Vec<String> = vec![];
    for kind in api.kinds() {
        if kind.kind == "Event" || !kind.namespaced {
            continue;
        }
        let page = api.list(kind, Some(namespace), &Selector::default(), 0, "");
        for object in page.map(|p| p.items).unwrap_or_default() {
            let mut metadata = object["metadata"].clone();
            for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
                metadata.as_object_mut().map(|m| m.remove(field));
            }
            if let Some(labels) = metadata["labels"].as_object_mut()
                && let Some(role) = labels.remove("pgconvoy.dev/role")
            {
                roles.push(role.to_string());
            }
            if let Some(annotations) = metadata["annotations"].as_object_mut() {
                for (name, value) in annotations.iter_mut() {
                    // Fingerprints of certificates and pods hold the set's UID, as does what is asked of the archive.
                    if ["pgconvoy.dev/pod-spec", "pgconvoy.dev/agent-before"].contains(&name.as_str()) {
                        *value = json!("…");
                    }
                }
            }
            let spec = match kind.kind.as_str() {
                "PgTerm" => term(&object["spec"]),
                "Lease" => json!(null),
                "Service" => {
                    let mut spec = object["spec"].clone();
                    ["clusterIP", "clusterIPs"].into_iter().for_each(|f| spec[f] = json!(null));
                    spec
                }
                "Pod" => {
                    let mut spec = object["spec"].clone();
                    spec["nodeName"] = json!(null);
                    spec
                }
                _ => object["spec"].clone(),
            };
            let status = match kind.kind.as_str() {
                "PgReplicaSet" => status(&object["status"]),
                "Pod" | "PersistentVolumeClaim" => json!(text(&object, "/status/phase")),
                _ => json!(null),
            };
            let data = match kind.kind.as_str() {
                "Secret" => json!(object["data"].as_object().map(|d| d.keys().cloned().collect::<Vec<_>>())),
                _ => object["data"].clone(),
            };
            let rest = json!({
                "metadata": metadata, "spec": spec, "status": status, "data": data, "rules": object["rules"],
                "roleRef": object["roleRef"], "subjects": object["subjects"], "endpoints": object["endpoints"],
            });
            let mut words = rest.to_string();
            if let Some(uid) = &uid {
                words = words.replace(uid, "<uid>");
            }
            all.insert(
                format!("{} {}", kind.qualified(), text(&object, "/metadata/name")),
                serde_json::from_str(&words).unwrap_or_default(),
            );
        }
    }
    roles.sort();
    all.insert("roles".to_owned(), json!(roles));
    all
}

fn member(text: &Value) -> Value {
    json!(text.as_str().and_then(|t| t.split('/').next()))
}

fn term(spec: &Value) -> Value {
    let rules = spec["configs"].as_array().into_iter().flatten().map(|rule| {
        let mut members: Vec<Value> = rule["followers"].as_array().into_iter().flatten().map(member).collect();
        members.push(member(&rule["leader"]));
        members.sort_by_key(Value::to_string);
        json!({ "members": members, "acknowledgements": rule["acknowledgements"] })
    });
    json!({ "phase": spec["phase"], "rules": rules.collect::<Vec<_>>(), "lossy": spec["lossy"], "setUid": spec["setUid"] })
}

fn status(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions: Vec<Value> = conditions.map(|c| json!([c["type"], c["status"], c["reason"]])).collect();
    let states = status["memberStates"].as_array().into_iter().flatten();
    let mut states: Vec<Value> = states
        .map(|s| json!([s["name"], s["state"], s["pendingRestart"], s["configurationError"], s["systemId"]]))
        .collect();
    states.sort_by_key(Value::to_string);
    let mut rest = status.clone();
    for field in ["conditions", "memberStates", "leader", "epoch", "lastFailover", "observedGeneration"] {
        rest.as_object_mut().map(|r| r.remove(field));
    }
    json!({ "conditions": conditions, "memberStates": states, "rest": rest, "led": !status["leader"].is_null() })
}

/// Without what tells how far a step came before the user went on: volumes of members that left, which may never have been made or
/// filled, and which agent ran before.
pub(super) fn without_history(world: &World) -> World {
    let left_behind = |name: &str| {
        let member = name.strip_prefix("persistentvolumeclaims ").and_then(|c| c.strip_suffix("-data"));
        member.is_some_and(|m| !world.contains_key(&format!("pods {m}")))
    };
    let mut rest: World =
        world.iter().filter(|(n, _)| !left_behind(n.as_str())).map(|(n, o)| (n.clone(), o.clone())).collect();
    for object in rest.values_mut() {
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove("pgconvoy.dev/agent-before");
        }
    }
    rest
}

/// Where two of them differ, in a few lines.
pub(super) fn difference(wanted: &World, got: &World) -> Option<String> {
    let names: std::collections::BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
    let mut lines = vec![];
    for name in names {
        match (wanted.get(name), got.get(name)) {
            (Some(w), Some(g)) if w == g => {}
            (Some(w), Some(g)) => lines.push(format!("{name}: {}", inside("", w, g))),
            (Some(_), None) => lines.push(format!("{name} is missing")),
            (None, Some(_)) => lines.push(format!("{name} should not be there")),
            (None, None) => {}
        }
    }
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn inside(at: &str, wanted: &Value, got: &Value) -> String {
    let fields = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    if wanted.is_object() && got.is_object() {
        let mut names = fields(wanted);
        names.extend(fields(got));
        names.sort();
        names.dedup();
        let different = names.iter().filter(|n| wanted.get(*n) != got.get(*n));
        return different.map(|n| inside(&format!("{at}/{n}"), &wanted[n], &got[n])).collect::<Vec<_>>().join(", ");
    }
    format!("{at} is {got} instead of {wanted}")
}
