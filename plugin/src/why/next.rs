//! What the next election would come to, by the rules that stand. Pure.

use crate::status::lag::Lag;
use crate::status::model::{Member, Report};
use crate::words::{columns, size};
use pgconvoy_crds::MemberPhase;
use pgconvoy_terms::{MemberId, Phase, Rule, Term};
use std::collections::BTreeSet;

/// Every member but the leader, what it could do, and what that comes to.
pub(super) fn tell(report: &Report, term: Option<&Term>) -> Vec<String> {
    let Some(term) = term else { return vec!["What comes next: a first member opens epoch 1".to_owned()] };
    let active = term.phase == Phase::Active;
    let leader = term.leader.as_ref().filter(|_| active);
    let mut lines = vec![match leader {
        Some(leader) => format!("If {} were gone", leader.name),
        None => "What the election waits for".to_owned(),
    }];
    if term.rules.is_empty() {
        lines.push("  nothing was acknowledged that could be missed: whoever answers may lead".to_owned());
    }
    lines.extend(term.rules.iter().map(|r| format!("  {}", needs(r))));
    let others: Vec<&Member> =
        report.members.iter().filter(|m| leader.is_none_or(|l| l.name.to_string() != m.name)).collect();
    let rows: Vec<Vec<String>> = others.iter().map(|m| row(m, term)).collect();
    lines.extend(columns(&rows));
    lines.push(format!("  {}", verdict(&others, term, leader.is_some())));
    lines
}

/// What ends a rule.
fn needs(rule: &Rule) -> String {
    let (n, w) = (rule.followers.len(), rule.acknowledgements as usize);
    let (leader, number) = (&rule.leader.name, rule.epoch.number);
    match w {
        0 if n == 0 => format!("the rule of epoch {number} ends with {leader} only, which leads alone"),
        0 => format!(
            "the rule of epoch {number} ends with the promise of {leader}, or by the clock (async: its last commits are then lost)"
        ),
        w => format!(
            "the rule of epoch {number} ends with the promise of {leader}, or of {} of its {n} followers; {} members must take part",
            n + 1 - w,
            w + 1
        ),
    }
}

/// Whether its data counts in the rules, and whether it answers, as far as its own words and its pod tell.
fn able(member: &Member) -> bool {
    matches!(member.state, Some(MemberPhase::Attached | MemberPhase::CatchingUp)) && member.reachable()
}

fn identity(member: &Member, rule: &Rule) -> Option<MemberId> {
    let data = member.incarnation.as_deref()?;
    rule.members().find(|id| id.name.to_string() == member.name && id.incarnation.to_string() == data).cloned()
}

fn row(member: &Member, term: &Term) -> Vec<String> {
    let counts = term.rules.iter().all(|r| identity(member, r).is_some());
    let can = match (able(member), counts) {
        (true, true) => "can promise".to_owned(),
        (true, false) => "does not count: its data is newer than the rules".to_owned(),
        (false, _) => "does not answer".to_owned(),
    };
    let far = match &member.lag {
        Some(Lag::Streaming { bytes, .. }) => format!("{} behind", size(*bytes)),
        Some(Lag::NotStreaming) => "does not stream".to_owned(),
        None => "-".to_owned(),
    };
    let words = member.messages.first().cloned().unwrap_or_default();
    vec![String::new(), member.name.clone(), can, far, words]
}

fn verdict(others: &[&Member], term: &Term, led: bool) -> String {
    let there = |rule: &Rule| -> BTreeSet<MemberId> {
        others.iter().filter(|m| able(m)).filter_map(|m| identity(m, rule)).collect()
    };
    let short = term.rules.iter().find(|r| r.acknowledgements > 0 && !r.confirmed_by(&there(r)));
    if let Some(rule) = short {
        return format!(
            "nobody could lead: {} of the members of epoch {} can promise now",
            there(rule).len(),
            rule.epoch.number
        );
    }
    let lapses = term.rules.iter().any(|r| r.acknowledgements == 0 && !r.sealed_by(&there(r)));
    match (lapses, led) {
        (true, _) if others.iter().any(|m| able(m)) => {
            "another would lead after some 16 s (of two members: 30 s), without what only the leader has".to_owned()
        }
        (true, _) => "nobody could lead".to_owned(),
        (false, true) => "another would lead in a second or two, with every acknowledged commit".to_owned(),
        (false, false) => "enough can promise: whoever has most is elected".to_owned(),
    }
}
