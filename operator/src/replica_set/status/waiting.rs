//! What a member is waited for.

use crate::replica_set::observed::{ClaimSeen, Observed, PodSeen, Trouble};
use crate::replica_set::plan::Plan;
use pgconvoy_crds::conditions::reasons;
use pgconvoy_crds::{MemberPhase, MemberState, names, pod};
use pgconvoy_terms::MemberName;

/// Why a member is not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The member.
    pub member: MemberName,
    /// Reason of the condition.
    pub reason: &'static str,
    /// What follows `waiting for <member>: `.
    pub text: String,
    /// Whether it takes a person to get on.
    pub stalls: bool,
}

/// Kubernetes' words for an image that cannot be had.
const IMAGE_REASONS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];
/// Those of them that do not mend themselves.
const IMAGE_REASONS_FOR_GOOD: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];

/// Why `member` of the roster, which is not attached, is not.
pub fn waiting_for(observed: &Observed, plan: &Plan, member: &MemberName) -> Waiting {
    let name = member.to_string();
    let waiting = |reason, text: String| Waiting { member: member.clone(), reason, text, stalls: false };
    let Some(pod) = observed.pod(&name) else {
        let text = match observed.claim(&names::data_claim(member)) {
            Some(c) if c.meta.deleting => "its volume claim is being deleted".to_owned(),
            _ => "its pod is being made".to_owned(),
        };
        return waiting(reasons::MEMBERS_STARTING, text);
    };
    if pod.meta.deleting {
        return waiting(reasons::MEMBERS_STARTING, "its pod is stopping".to_owned());
    }
    if pod.ended() {
        let why = pod.failure.as_deref().unwrap_or("it ended");
        return waiting(reasons::MEMBERS_STARTING, format!("its pod failed and is made again: {why}"));
    }
    if let Some(why) = &pod.unscheduled {
        return unscheduled(observed, &names::data_claim(member), why, waiting);
    }
    let state =
        observed.status.member_states.iter().find(|s| s.name == name && s.pod_uid.as_ref() == Some(&pod.meta.uid));
    if let Some(trouble) = pod.troubles.iter().find(|t| IMAGE_REASONS.contains(&t.reason.as_str())) {
        let stalls = IMAGE_REASONS_FOR_GOOD.contains(&trouble.reason.as_str());
        return Waiting { stalls, ..waiting(reasons::IMAGE_UNUSABLE, image(trouble)) };
    }
    // A container that cannot be started tells more than what the agent said before.
    if let Some(trouble) = pod.troubles.first() {
        return waiting(container_reason(trouble), container(trouble));
    }
    match state {
        Some(state) => said(plan, state, waiting),
        None => waiting(reasons::MEMBERS_STARTING, starting(pod)),
    }
}

fn unscheduled(
    observed: &Observed,
    claim: &str,
    why: &str,
    waiting: impl Fn(&'static str, String) -> Waiting,
) -> Waiting {
    let volume = match observed.claim(claim).filter(|c| c.unbound) {
        Some(ClaimSeen { class: Some(class), .. }) if observed.no_such_class.as_ref() == Some(class) => {
            let text = format!(
                "there is no storage class {class}, so no volume can be made for its claim {claim}: make that class, or \
                 delete this set and its claims and apply it with one that `kubectl get storageclass` shows"
            );
            return Waiting { stalls: true, ..waiting(reasons::NO_STORAGE_CLASS, text) };
        }
        Some(ClaimSeen { class: Some(class), .. }) => {
            format!(" (there is no volume for its claim {claim} of storage class {class} yet)")
        }
        Some(_) => format!(" (there is no volume for its claim {claim} yet; it names no storage class)"),
        None => String::new(),
    };
    waiting(reasons::UNSCHEDULABLE, format!("cannot be scheduled: {why}{volume}"))
}

fn starting(pod: &PodSeen) -> String {
    match pod.phase.as_str() {
        "Pending" => "its containers are being started".to_owned(),
        _ => "its agent has not reported yet".to_owned(),
    }
}

/// The text of one failed pull comes in two wrappings, by turns: both are made the same, so that the status rests.
fn image(trouble: &Trouble) -> String {
    let message = trouble.message.as_str();
    let message = match message.strip_prefix("Back-off pulling image ") {
        Some(rest) => rest.split_once(": ErrImagePull: ").map_or("", |(_, why)| why),
        None => message,
    };
    let what = if trouble.container == pod::CONTAINER_POSTGRES { "the PostgreSQL image" } else { "the agent's image" };
    let name = trouble.image.as_str();
    let space = if name.is_empty() { "" } else { " " };
    let message = message.trim();
    let why = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{what}{space}{name} cannot be pulled{why}")
}

fn container_reason(trouble: &Trouble) -> &'static str {
    let start = matches!(trouble.reason.as_str(), "RunContainerError" | "StartError" | "CreateContainerError");
    if trouble.container == pod::CONTAINER_POSTGRES && start {
        reasons::IMAGE_UNUSABLE
    } else {
        reasons::MEMBERS_STARTING
    }
}

fn container(trouble: &Trouble) -> String {
    let Trouble { container, reason, message, .. } = trouble;
    if message.is_empty() {
        format!("container {container} does not run ({reason})")
    } else {
        format!("container {container} does not run ({reason}): {message}")
    }
}

/// Reasons that agents give.
const MENDED: [&str; 2] = [reasons::VOLUME_FULL, reasons::IMAGE_UNUSABLE];

fn said(plan: &Plan, state: &MemberState, waiting: impl Fn(&'static str, String) -> Waiting) -> Waiting {
    let message = state.message.as_deref().map(str::trim).filter(|m| !m.is_empty());
    let with = |text: &str| message.map_or_else(|| text.to_owned(), |m| format!("{text}: {m}"));
    if let Some(error) = state.configuration_error.as_deref().filter(|_| state.state != Some(MemberPhase::Attached)) {
        let text = format!("PostgreSQL refuses the configuration: {error}");
        return Waiting { stalls: true, ..waiting(reasons::CONFIGURATION_REFUSED, text) };
    }
    // What the agent calls by one of our own words, a person can mend.
    if let Some(reason) = MENDED.into_iter().find(|r| state.reason.as_deref() == Some(r)) {
        let text = message.unwrap_or("it says no more").to_owned();
        return Waiting { stalls: true, ..waiting(reason, text) };
    }
    let text = match state.state {
        Some(MemberPhase::Failed) => {
            return Waiting { stalls: true, ..waiting(reasons::MEMBER_FAILED, with("it needs a person")) };
        }
        Some(MemberPhase::Attached) if plan.rule.epoch > 0 => {
            with(&format!("not attached in epoch {} yet", plan.rule.epoch))
        }
        Some(MemberPhase::Attached) => with("attached, but there is no epoch"),
        Some(MemberPhase::Starting) | None => with("starting"),
        Some(MemberPhase::Initializing) => with("making the first database"),
        Some(MemberPhase::Cloning) => with("copying the data of another member"),
        Some(MemberPhase::Recovering) => with("replaying its log"),
        Some(MemberPhase::CatchingUp) => with("catching up"),
        Some(MemberPhase::Fenced) => with("fenced"),
        Some(MemberPhase::Stopping) => with("stopping"),
    };
    waiting(reasons::MEMBERS_STARTING, text)
}
