//! A pod's status.

use super::container::{Container, State};
use crate::clock;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The status of a pod with these containers. `before`: as it was, for the times of its conditions.
pub(super) fn of(
    before: &Value,
    uid: &str,
    place: (Option<Ipv4Addr>, &str),
    init: &[Container],
    main: &[Container],
    over: bool,
) -> Value {
    let (address, started) = place;
    let begun = |c: &Container| if c.sidecar { c.runs() } else { c.succeeded() };
    let initialised = init.iter().all(begun);
    let ready =
        initialised && main.iter().all(|c| c.runs() && c.ready) && init.iter().filter(|c| c.sidecar).all(|c| c.ready);
    let phase = if over {
        let failed = |c: &Container| matches!(c.state, State::Terminated { code, .. } if code != 0);
        if main.iter().any(failed) { "Failed" } else { "Succeeded" }
    } else if initialised && main.iter().any(|c| c.runs() || c.restarts > 0) {
        "Running"
    } else {
        "Pending"
    };
    let mut status = json!({
        "phase": phase,
        "qosClass": "Burstable",
        "conditions": [
            condition(before, "PodReadyToStartContainers", address.is_some() && !over, ""),
            condition(before, "Initialized", initialised, "ContainersNotInitialized"),
            condition(before, "Ready", ready && !over, "ContainersNotReady"),
            condition(before, "ContainersReady", ready && !over, "ContainersNotReady"),
            condition(before, "PodScheduled", true, ""),
        ],
        "startTime": started,
        "hostIP": crate::machine::network::NODE.to_string(),
        "hostIPs": [{ "ip": crate::machine::network::NODE.to_string() }],
        "initContainerStatuses": init.iter().map(|c| c.status(uid)).collect::<Vec<_>>(),
        "containerStatuses": main.iter().map(|c| c.status(uid)).collect::<Vec<_>>(),
    });
    if let Some(address) = address {
        status["podIP"] = json!(address.to_string());
        status["podIPs"] = json!([{ "ip": address.to_string() }]);
    }
    status
}

fn condition(before: &Value, kind: &str, is: bool, why_not: &str) -> Value {
    let word = if is { "True" } else { "False" };
    let list = before.pointer("/conditions").and_then(Value::as_array);
    let old = list.into_iter().flatten().find(|c| c["type"] == kind && c["status"] == word);
    let since = old.map_or_else(|| json!(clock::text(0)), |c| c["lastTransitionTime"].clone());
    let mut condition = json!({ "type": kind, "status": word, "lastProbeTime": null, "lastTransitionTime": since });
    if !is && !why_not.is_empty() {
        condition["reason"] = json!(why_not);
    }
    condition
}
