//! Which members the set should have.

use crate::replica_set::observed::{Observed, Rule};
use crate::replica_set::validate::Validated;
use pgconvoy_terms::MemberName;
use std::collections::BTreeSet;

/// The roster: so many members as the spec asks for.
///
/// Members that are in it stay; it grows by the lowest free ordinals and shrinks by the highest, but never by the
/// leader. While nobody leads it does not shrink: the next leader may be any of them.
pub fn roster(set: &Validated, observed: &Observed, rule: &Rule) -> BTreeSet<MemberName> {
    let mut roster: BTreeSet<MemberName> = observed
        .status
        .roster
        .iter()
        .filter_map(|n| n.parse().ok())
        .filter(|m: &MemberName| m.set() == set.name)
        .collect();
    if roster.is_empty() {
        // A lost status must not throw out members that hold data.
        roster = rule.members.clone();
    }
    if let Some(leader) = &rule.leader {
        roster.insert(leader.clone());
    }
    for ordinal in 1.. {
        if roster.len() >= set.members {
            break;
        }
        roster.insert(set.member(ordinal));
    }
    let leaderless = rule.epoch > 0 && rule.leader.is_none();
    while roster.len() > set.members && !leaderless {
        let Some(last) = roster.iter().rev().find(|m| Some(*m) != rule.leader.as_ref()).cloned() else { break };
        roster.remove(&last);
    }
    roster
}

/// The roster as it stands in the status, in the order of ordinals.
pub fn names(roster: &BTreeSet<MemberName>) -> Vec<String> {
    roster.iter().map(ToString::to_string).collect()
}
