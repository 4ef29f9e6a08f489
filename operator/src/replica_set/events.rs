//! Events: one for each transition.

use kube::runtime::events::{Event, EventType};
use pgconvoy_crds::PgReplicaSetStatus;
use pgconvoy_crds::conditions::{READY, STALLED};

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

/// What changed between two statuses that is worth an event.
pub fn transitions(before: &PgReplicaSetStatus, after: &PgReplicaSetStatus) -> Vec<Event> {
    let mut events = vec![];
    for after in &after.conditions {
        let before = before.conditions.iter().find(|c| c.type_ == after.type_);
        let (was, had) = before.map_or((None, None), |c| (Some(c.status.as_str()), Some(c.reason.as_str())));
        let (is, has) = (after.status.as_str(), after.reason.as_str());
        match (after.type_.as_str(), is) {
            (READY, "True") if was != Some("True") => {
                events.push(event(EventType::Normal, has, "Ready", &after.message))
            }
            (READY, "False") if was == Some("True") => {
                events.push(event(EventType::Warning, has, "NotReady", &after.message))
            }
            (STALLED, "True") if was != Some("True") || had != Some(has) => {
                events.push(event(EventType::Warning, has, "Stalled", &after.message));
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
