//! Whether enough of the copies that a rule counts on are left.

use super::super::observed::Observed;
use super::super::plan::Plan;
use super::super::validate::Validated;
use pgconvoy_crds::MemberPhase;
use pgconvoy_terms::MemberId;
use std::collections::BTreeSet;

/// That of a rule's copies too many are gone: a member that has other data now, or none, does not stand for what it had. Then
/// nothing can be acknowledged, or nobody can lead, by the rules.
pub(super) fn lost(set: &Validated, observed: &Observed, plan: &Plan) -> Option<String> {
    let states: Vec<_> = observed.present_states().collect();
    let gone = |id: &MemberId| {
        states.iter().find(|s| s.name == id.name.to_string()).is_some_and(|s| match &s.incarnation {
            Some(data) => *data != id.incarnation.to_string(),
            // It has looked, and there was nothing.
            None => matches!(s.state, Some(MemberPhase::Failed | MemberPhase::Cloning | MemberPhase::CatchingUp)),
        })
    };
    plan.rule.counted.iter().filter(|r| r.acknowledgements > 0).find_map(|rule| {
        let (lost, left): (BTreeSet<_>, BTreeSet<_>) = rule.members().cloned().partition(gone);
        if rule.confirmed_by(&left) {
            return None;
        }
        let names = |of: &BTreeSet<MemberId>| of.iter().map(|m| m.name.to_string()).collect::<Vec<_>>().join(", ");
        let known = match left.contains(&rule.leader) {
            true => format!("{} still has every commit", rule.leader.name),
            false => "the others cannot know whether they have every commit".to_owned(),
        };
        Some(format!(
            "writes wait: the data that {} had is gone, {known}, and by the rule of epoch {} too few are left to go on ({} of its \
             followers must hold a commit). Bring back a volume that was lost, or give up what only those members had: \
             kubectl pgconvoy takeover {} --epoch {} --accept-loss",
            names(&lost),
            rule.epoch.number,
            rule.acknowledgements,
            set.name,
            plan.rule.epoch,
        ))
    })
}
