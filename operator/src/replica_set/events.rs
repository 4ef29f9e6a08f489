//! Events: one for each transition.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use pgconvoy_crds::PgReplicaSetStatus;
use pgconvoy_crds::conditions::{CONFIGURED, READY, STALLED, reasons};

/// Longest note that the API takes, in characters.
const NOTE_LIMIT: usize = 1000;

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(NOTE_LIMIT).collect()),
        action: action.to_owned(),
        secondary: None,
    }
}

/// An event about something that the operator did.
pub fn deed(reason: &str, note: &str) -> Event {
    event(EventType::Normal, reason, "Reconcile", note)
}

/// An event about something that a person should know.
pub fn warning(reason: &str, note: &str) -> Event {
    event(EventType::Warning, reason, "Reconcile", note)
}

/// The same event, with the member's pod as what else it is about: without, those of several members would be counted as one.
pub fn of_member(event: Event, namespace: &str, member: &str) -> Event {
    let pod = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(member.to_owned()),
        ..ObjectReference::default()
    };
    Event { secondary: Some(pod), ..event }
}

/// Reasons that are told whenever they come up, in whatever condition: somebody must do something.
const TOLD: [&str; 8] = [
    reasons::IMAGE_UNUSABLE,
    reasons::UNSCHEDULABLE,
    reasons::NO_STORAGE_CLASS,
    reasons::VOLUME_FULL,
    reasons::COPIES_LOST,
    reasons::FOREIGN_VOLUME,
    reasons::MEMBER_FAILED,
    reasons::CONFIGURATION_REFUSED,
];

/// What changed between two statuses that is worth an event. Of several conditions that say the same, one is told.
pub fn transitions(before: &PgReplicaSetStatus, after: &PgReplicaSetStatus) -> Vec<Event> {
    let mut events: Vec<Event> = vec![];
    let mut tell = |type_, has: &str, action, message: &str| {
        if !events.iter().any(|e| e.reason == has) {
            events.push(event(type_, has, action, message));
        }
    };
    // What a person must do first: Ready says of the same also how many members are attached.
    let order = |c: &&Condition| [STALLED, CONFIGURED, READY].iter().position(|t| *t == c.type_);
    let mut conditions: Vec<_> = after.conditions.iter().filter(|c| order(c).is_some()).collect();
    conditions.sort_by_key(order);
    for after in conditions {
        let before = before.conditions.iter().find(|c| c.type_ == after.type_);
        let (was, had) = before.map_or((None, None), |c| (Some(c.status.as_str()), Some(c.reason.as_str())));
        let (is, has) = (after.status.as_str(), after.reason.as_str());
        let new = had != Some(has) && TOLD.contains(&has);
        match (after.type_.as_str(), is) {
            (READY, "True") if was != Some("True") => tell(EventType::Normal, has, "Ready", &after.message),
            (READY, "False") if was == Some("True") || new => {
                tell(EventType::Warning, has, "NotReady", &after.message);
            }
            (STALLED, "True") if was != Some("True") || had != Some(has) => {
                tell(EventType::Warning, has, "Stalled", &after.message);
            }
            (CONFIGURED, "False") if new && has == reasons::CONFIGURATION_REFUSED => {
                tell(EventType::Warning, has, "Configure", &after.message);
            }
            (CONFIGURED, "True") if had == Some(reasons::CONFIGURATION_REFUSED) => {
                tell(EventType::Normal, has, "Configure", &after.message);
            }
            _ => {}
        }
    }
    if let Some(leader) = &after.leader
        && (before.leader.as_ref() != Some(leader) || before.epoch != after.epoch)
    {
        let note = format!("{leader} leads in epoch {}", after.epoch.unwrap_or_default());
        events.push(event(EventType::Normal, "LeaderActive", "Lead", &note));
    }
    events
}
