//! Conditions that keep the time of their last change.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition as it should read, without the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `Ready`, …
    pub(super) type_: &'static str,
    /// Whether it holds.
    pub(super) holds: bool,
    /// One word.
    pub(super) reason: &'static str,
    /// A sentence.
    pub(super) message: String,
}

/// Longest message that a condition may have, in characters (the API's limit is 32768 bytes; nobody reads that much).
const MESSAGE_LIMIT: usize = 1024;

/// The conditions to write: those of `before` whose status stays keep their time.
pub(super) fn merge(before: &[Condition], verdicts: Vec<Verdict>, generation: i64, now: Timestamp) -> Vec<Condition> {
    let condition = |v: Verdict| {
        let status = if v.holds { "True" } else { "False" };
        let since =
            before.iter().find(|c| c.type_ == v.type_ && c.status == status).map(|c| c.last_transition_time.clone());
        Condition {
            type_: v.type_.to_owned(),
            status: status.to_owned(),
            reason: v.reason.to_owned(),
            message: v.message.chars().take(MESSAGE_LIMIT).collect(),
            observed_generation: Some(generation),
            last_transition_time: since.unwrap_or(Time(now)),
        }
    };
    verdicts.into_iter().map(condition).collect()
}
