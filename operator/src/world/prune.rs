//! From objects as the API server has them to what the operator keeps of them.

use super::index::Place;
use crate::kinds::Kind;
use crate::replica_set::observed::{
    AgentSeen, ClaimSeen, Meta, PodSeen, PullerSeen, SecretSeen, TermSeen, Thing, Trouble,
};
use crate::replica_set::problem::{
    ANNOTATION_CERTIFICATE, ANNOTATION_POD_SPEC, ANNOTATION_SET_UID, ANNOTATION_SYSTEM_ID,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, DynamicObject};
use pgconvoy_crds::{PgTerm, names, pod};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn place(metadata: &ObjectMeta) -> Option<Place> {
    place_by(names::LABEL_SET, metadata)
}

fn place_by(label: &str, metadata: &ObjectMeta) -> Option<Place> {
    Some(Place {
        namespace: metadata.namespace.clone()?,
        set: metadata.labels.as_ref()?.get(label)?.clone(),
        name: metadata.name.clone()?,
    })
}

fn meta(metadata: &ObjectMeta) -> Meta {
    let owners = metadata.owner_references.iter().flatten();
    Meta {
        uid: metadata.uid.clone().unwrap_or_default(),
        owner: owners.filter(|o| o.controller == Some(true)).map(|o| o.uid.clone()).next(),
        deleting: metadata.deletion_timestamp.is_some(),
        fingerprint: None,
    }
}

fn annotation(metadata: &ObjectMeta, name: &str) -> Option<String> {
    metadata.annotations.as_ref()?.get(name).cloned()
}

/// Any object as its watch takes it: what is kept of it, if it is a set's.
///
/// # Errors
/// When it is not of that kind.
pub fn object(kind: Kind, object: Value) -> Result<Option<(Place, Thing)>, serde_json::Error> {
    Ok(match kind {
        Kind::Term => term(serde_json::from_value(object)?),
        Kind::Pod => pod(serde_json::from_value(object)?),
        Kind::Puller => puller(serde_json::from_value(object)?),
        Kind::Claim => claim(serde_json::from_value(object)?),
        Kind::Secret => secret(serde_json::from_value(object)?),
        Kind::Lease | Kind::EndpointSlice => other(serde_json::from_value(object)?),
        _ => kept(serde_json::from_value(object)?),
    })
}

/// A PgTerm belongs to the set of its own name.
pub fn term(object: DeserializeGuard<PgTerm>) -> Option<(Place, Thing)> {
    let (metadata, spec) = match object.0 {
        Ok(term) => (term.metadata, Ok(term.spec)),
        Err(invalid) => (invalid.metadata, Err(invalid.error)),
    };
    let name = metadata.name.clone()?;
    let place = Place { namespace: metadata.namespace.clone()?, set: name.clone(), name };
    Some((place, Thing::Term(TermSeen { meta: meta(&metadata), spec })))
}

/// What identifies an object and says whose it is.
pub fn other(object: DynamicObject) -> Option<(Place, Thing)> {
    Some((place(&object.metadata)?, Thing::Other(meta(&object.metadata))))
}

/// The same, with a fingerprint of all that a person could change.
pub fn kept(object: DynamicObject) -> Option<(Place, Thing)> {
    let fingerprint = Some(fingerprint(&object));
    Some((place(&object.metadata)?, Thing::Other(Meta { fingerprint, ..meta(&object.metadata) })))
}

/// Fingerprint of all that a person could change in an object: everything but its status and what the API server keeps.
pub fn fingerprint(object: &DynamicObject) -> String {
    let mut body = object.data.clone();
    if let Value::Object(fields) = &mut body {
        for field in ["status", "apiVersion", "kind"] {
            fields.remove(field);
        }
    }
    let m = &object.metadata;
    crate::hash::fingerprint(&json!([body, m.labels, m.annotations, m.owner_references]))
}

/// A volume claim.
pub fn claim(object: PersistentVolumeClaim) -> Option<(Place, Thing)> {
    let spec = object.spec.unwrap_or_default();
    let requests = spec.resources.and_then(|r| r.requests);
    let claim = ClaimSeen {
        meta: meta(&object.metadata),
        set_uid: annotation(&object.metadata, ANNOTATION_SET_UID),
        system_id: annotation(&object.metadata, ANNOTATION_SYSTEM_ID),
        requested: requests.and_then(|r| r.get("storage").map(|q| q.0.clone())),
        class: spec.storage_class_name,
        unbound: object.status.and_then(|s| s.phase).as_deref() == Some("Pending"),
    };
    Some((place(&object.metadata)?, Thing::Claim(claim)))
}

/// A Secret: which keys it has and how long its certificates are good.
pub fn secret(object: Secret) -> Option<(Place, Thing)> {
    let place = place(&object.metadata)?;
    let data: BTreeMap<String, Vec<u8>> = object.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
    let text = |key: &str| data.get(key).and_then(|v| String::from_utf8(v.clone()).ok());
    let leaves: Vec<_> = data.iter().filter(|(k, _)| k.ends_with(".crt")).map(|(_, v)| life(v)).collect();
    let complete = leaves.iter().all(Option::is_some);
    let leaves: Vec<_> = leaves.into_iter().flatten().collect();
    let secret = SecretSeen {
        meta: meta(&object.metadata),
        keys: data.iter().filter(|(_, v)| !v.is_empty()).map(|(k, _)| k.clone()).collect(),
        authority: text(pod::tls::CA),
        renew_at: leaves.iter().map(|l| l.renew_at).min().filter(|_| complete),
        issued_at: leaves.iter().map(|l| l.begins).max(),
        made_for: annotation(&object.metadata, ANNOTATION_CERTIFICATE),
        archive: annotation(&object.metadata, names::ANNOTATION_ARCHIVE),
    };
    Some((place, Thing::Secret(secret)))
}

struct Life {
    begins: Timestamp,
    renew_at: Timestamp,
}

/// When the first certificate of a PEM text began, and when two thirds of its life are over.
fn life(pem: &[u8]) -> Option<Life> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let renew_at = begins.checked_add(ends.checked_sub(begins)? / 3 * 2)?;
    Some(Life { begins: Timestamp::from_second(begins).ok()?, renew_at: Timestamp::from_second(renew_at).ok()? })
}

/// A pod.
pub fn pod(object: Pod) -> Option<(Place, Thing)> {
    let place = place(&object.metadata)?;
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    let asked = spec.init_containers.iter().flatten().find(|c| c.name == pod::CONTAINER_AGENT);
    let runs = status.init_container_statuses.iter().flatten().find(|c| c.name == pod::CONTAINER_AGENT);
    let agent = AgentSeen {
        image: asked.and_then(|c| c.image.clone()),
        container: runs.and_then(|c| c.container_id.clone()),
        before: annotation(&object.metadata, names::ANNOTATION_AGENT_BEFORE),
        ready: runs.is_some_and(|c| c.ready),
    };
    let conditions = status.conditions.unwrap_or_default();
    let unscheduled = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
        .map(|c| c.message.clone().or_else(|| c.reason.clone()).unwrap_or_default());
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let failure = match (status.reason, status.message) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (one, other) => one.or(other),
    };
    let seen = PodSeen {
        meta: meta(&object.metadata),
        spec_hash: annotation(&object.metadata, ANNOTATION_POD_SPEC),
        role: object.metadata.labels.as_ref().and_then(|l| l.get(names::LABEL_ROLE).cloned()),
        archive: annotation(&object.metadata, names::ANNOTATION_ARCHIVE),
        phase: status.phase.unwrap_or_default(),
        failure: failure.filter(|_| ended),
        unscheduled,
        troubles: containers.filter_map(trouble).collect(),
        node: spec.node_name,
        agent,
    };
    Some((place, Thing::Pod(seen)))
}

/// A pod that brings an image to a node.
pub fn puller(object: Pod) -> Option<(Place, Thing)> {
    let place = place_by(names::LABEL_PULLS_FOR, &object.metadata)?;
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    let container = status.container_statuses.iter().flatten().next();
    let waits = container.and_then(trouble).map(|t| format!("{}: {}", t.reason, t.message));
    let ended = container.and_then(|c| c.state.as_ref()?.terminated.as_ref()).filter(|t| t.exit_code != 0);
    let ended = ended.map(|t| {
        let message = t.message.clone().or_else(|| t.reason.clone()).unwrap_or_default();
        format!("it ended with code {}: {}", t.exit_code, message.trim())
    });
    let refused = status.message.or(status.reason);
    let seen = PullerSeen {
        meta: meta(&object.metadata),
        image: spec.containers.first().and_then(|c| c.image.clone()),
        node: spec.node_name,
        phase: status.phase.unwrap_or_default(),
        trouble: waits.or(ended).or(refused),
    };
    Some((place, Thing::Puller(seen)))
}

/// Waiting reasons that are no trouble.
const ORDINARY: [&str; 2] = ["PodInitializing", "ContainerCreating"];

fn trouble(status: &ContainerStatus) -> Option<Trouble> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().unwrap_or_default();
    if ORDINARY.contains(&reason.as_str()) {
        return None;
    }
    let (container, image) = (status.name.clone(), status.image.clone());
    if reason != "CrashLoopBackOff" {
        return Some(Trouble { container, image, reason, message: waiting.message.clone().unwrap_or_default() });
    }
    // The message of a back-off counts seconds; how the container ended last says more.
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let (reason, message) = match last {
        None => (reason, String::new()),
        Some(end) => {
            let message = end.message.as_deref().unwrap_or("").trim();
            let code = format!("it ended with code {}", end.exit_code);
            let message = if message.is_empty() { code } else { format!("{code}: {message}") };
            (end.reason.clone().unwrap_or(reason), message)
        }
    };
    Some(Trouble { container, image, reason, message })
}
