//! What no operator may do, whatever it was told.

use super::line::Call;
use pgconvoy_embedded::api::{Api, text};
use serde_json::Value;

/// Why this call must not be made, if it must not.
pub(super) fn forbids(
    api: &Api,
    (namespace, set): &(String, String),
    may_lose_volumes: bool,
    call: &Call,
) -> Option<String> {
    if call.method != "DELETE" {
        return None;
    }
    let mut steps = call.path.rsplit('/');
    let (name, plural) = (steps.next().unwrap_or_default(), steps.next().unwrap_or_default());
    let kind = api.kinds().iter().find(|k| k.plural == plural)?;
    let there = api.get(kind, namespace, name).ok()?;
    let owner = api.kind_stored("pgreplicasets.pgconvoy.dev").and_then(|k| api.get(&k, namespace, set).ok());
    let uid = owner.as_ref().map(|o| text(o, "/metadata/uid")).unwrap_or_default();
    let ours = there
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|o| o["uid"] == uid);
    let kept =
        ["pgterms", "leases", "services", "configmaps", "roles", "rolebindings", "serviceaccounts", "endpointslices"];
    let roster: Vec<&Value> =
        owner.iter().flat_map(|o| o["status"]["roster"].as_array().into_iter().flatten()).collect();
    let member = name.trim_end_matches("-data").trim_end_matches("-tls");
    let stays = roster.iter().any(|m| **m == member);
    match plural {
        "persistentvolumeclaims" if !may_lose_volumes || stays => Some("a volume that must stay is deleted".to_owned()),
        "secrets" if stays || name.ends_with("-ca") || name.ends_with("-app") => {
            Some("a Secret that is needed is deleted".to_owned())
        }
        _ if kept.contains(&plural) => Some("it is deleted".to_owned()),
        "pods" if !ours => Some("a pod of somebody else is deleted".to_owned()),
        "pods" if stays => two_at_once(api, namespace, &roster, name, &there),
        _ => None,
    }
}

/// A member that runs may be taken away only while all others run.
fn two_at_once(api: &Api, namespace: &str, roster: &[&Value], name: &str, pod: &Value) -> Option<String> {
    if text(pod, "/status/phase") != "Running" || pod.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let pods = api.kind("", "v1", "pods")?;
    let away = roster.iter().filter_map(|m| m.as_str()).filter(|m| *m != name).find(|m| {
        let other = api.get(&pods, namespace, m);
        other.is_err() || other.is_ok_and(|o| o.pointer("/metadata/deletionTimestamp").is_some())
    });
    away.map(|other| format!("{name}, which runs, is deleted while {other} is away"))
}
