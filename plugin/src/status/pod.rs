//! What a pod says about itself, in a few words.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use pgconvoy_crds::pod::CONTAINER_POSTGRES;
use serde::Serialize;

/// A pod as the table shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSeen {
    /// `Running`, `Pending`, `Terminating`, or why a container does not run, like `CrashLoopBackOff`.
    pub(crate) state: String,
    /// Containers that are ready, the agent included.
    pub(crate) ready: usize,
    pub(crate) containers: usize,
    /// Restarts of all of them.
    pub(crate) restarts: i32,
    /// Whether PostgreSQL's container runs.
    pub(crate) postgres_runs: bool,
    /// What is wrong, in Kubernetes' words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) messages: Vec<String>,
}

/// The containers that stay: those of `spec.containers`, and native sidecars.
fn lasting(pod: &Pod) -> Vec<&str> {
    let Some(spec) = &pod.spec else { return vec![] };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    sidecars.chain(&spec.containers).map(|c| c.name.as_str()).collect()
}

/// Looks at one.
pub(crate) fn look(pod: &Pod) -> PodSeen {
    let lasting = lasting(pod);
    let status = pod.status.as_ref();
    let statuses: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
        .collect();
    let stay = || statuses.iter().filter(|s| lasting.contains(&s.name.as_str()));
    let phase = status.and_then(|s| s.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    // An init container that fails holds up the pod as well, so all of them are asked.
    let stuck = statuses.iter().find_map(|s| stuck(s));
    let mut messages: Vec<String> = stuck.iter().map(|(_, message)| message.clone()).collect();
    messages.extend(unscheduled(pod));
    if let Some(status) = status.filter(|_| phase == "Failed") {
        let why = [status.reason.as_deref(), status.message.as_deref()];
        messages.push(format!("its pod failed: {}", why.into_iter().flatten().collect::<Vec<_>>().join(": ")));
    }
    let state = match stuck {
        _ if pod.metadata.deletion_timestamp.is_some() => "Terminating".to_owned(),
        Some((reason, _)) => reason,
        None => phase,
    };
    PodSeen {
        state,
        ready: stay().filter(|s| s.ready).count(),
        containers: lasting.len(),
        restarts: stay().map(|s| s.restart_count).sum(),
        postgres_runs: statuses
            .iter()
            .any(|s| s.name == CONTAINER_POSTGRES && s.state.as_ref().is_some_and(|s| s.running.is_some())),
        messages,
    }
}

/// Why a container waits, if it is not just being started.
fn stuck(status: &ContainerStatus) -> Option<(String, String)> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().filter(|r| r != "ContainerCreating" && r != "PodInitializing")?;
    let mut message = format!("container {}: {reason}", status.name);
    if let Some(more) = &waiting.message {
        message = format!("{message}: {more}");
    }
    if let Some(end) = status.last_state.as_ref().and_then(|s| s.terminated.as_ref()) {
        let reason = end.reason.as_deref().unwrap_or("it ended");
        message = format!("{message} (before: {reason}, exit status {})", end.exit_code);
    }
    Some((reason, message))
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!("its pod has no node: {}", scheduled.message.as_deref().unwrap_or("no reason is given")))
}
