//! What led to the present state, as the members told it.

use crate::access::Access;
use crate::objects::Objects;
use crate::problem::Problem;
use crate::words::{age, columns};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

/// Reasons of Events that tell who leads, and why.
const REASONS: [&str; 10] = [
    "EpochOpened",
    "LeaderChanged",
    "Diverged",
    "PeerRefused",
    "TermForeign",
    "TermLost",
    "TermRolledBack",
    "TermMissing",
    "TermRefused",
    "TermUnreadable",
];
/// How many are shown.
const SHOWN: usize = 10;
/// How many are read.
const READ: u32 = 500;

/// An event that tells who leads, or why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) at: Timestamp,
    pub(super) reason: String,
    pub(super) message: String,
}

/// The newest of the set's events about leadership, oldest first.
pub(super) async fn read(access: &Access, objects: &Objects) -> Result<Vec<Told>, Problem> {
    let events: Api<Event> = Api::namespaced(access.client.clone(), &access.namespace);
    let uid = objects.set.uid().unwrap_or_default();
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(READ);
    let found = access.ask("Events", events.list(&params)).await?;
    Ok(choose(found.items))
}

pub(super) fn choose(events: Vec<Event>) -> Vec<Told> {
    let told = |e: Event| {
        let at = e.event_time.map(|t| t.0).or_else(|| e.last_timestamp.map(|t| t.0))?;
        let reason = e.reason.filter(|r| REASONS.contains(&r.as_str()))?;
        Some(Told { at, reason, message: e.message.unwrap_or_default() })
    };
    let mut chosen: Vec<Told> = events.into_iter().filter_map(told).collect();
    chosen.sort_by_key(|t| t.at);
    let excess = chosen.len().saturating_sub(SHOWN);
    chosen.drain(..excess);
    chosen
}

pub(super) fn tell(events: &[Told], now: Timestamp) -> Vec<String> {
    if events.is_empty() {
        return vec![
            "What happened: no Event tells; Kubernetes keeps them for an hour, the agents' logs for longer".to_owned(),
        ];
    }
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|e| vec![String::new(), format!("{} ago", age(now, e.at)), e.reason.clone(), e.message.clone()])
        .collect();
    std::iter::once("What happened".to_owned()).chain(columns(&rows)).collect()
}
