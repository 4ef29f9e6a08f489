//! What is waited for, and what looks wrong, as sentences. Pure.

use super::model::{Member, RuleSeen, TermSeen, names};
use crate::objects::Objects;
use kube::ResourceExt;
use pgconvoy_crds::{DurabilityMode, MemberPhase};
use pgconvoy_terms::{Phase, Rule, Term};
use std::collections::BTreeSet;

/// What the set waits for, besides what the operator's conditions say.
pub(super) fn waiting(objects: &Objects, seen: &TermSeen) -> Vec<String> {
    let mut said = vec![];
    let status = objects.set.status.clone().unwrap_or_default();
    match (status.observed_generation, objects.set.metadata.generation) {
        (None, _) => said.push(format!(
            "the operator to see this set (does it run, and does it watch namespace {}?)",
            objects.set.namespace().unwrap_or_default()
        )),
        (Some(saw), Some(is)) if saw < is => {
            said.push(format!("the operator to take up the newest spec (generation {is}, it saw {saw})"));
        }
        _ => {}
    }
    match seen {
        TermSeen::Absent if status.observed_generation.is_some() => said.push("its PgTerm to be made".to_owned()),
        TermSeen::NoneYet if status.epoch.is_some_and(|e| e > 0) => {
            said.push(format!("a person: kubectl pgconvoy term repair {}", objects.set.name_any()));
        }
        TermSeen::NoneYet => said.push("a first member to open epoch 1".to_owned()),
        TermSeen::Term(term) => said.extend(of_term(objects, &status.roster, term)),
        TermSeen::Absent | TermSeen::Unusable(_) => {}
    }
    said
}

fn of_term(objects: &Objects, roster: &[String], term: &Term) -> Vec<String> {
    let n = term.epoch.number;
    match term.phase {
        Phase::Recruiting => match term.rules_before().map(seal).collect::<Vec<_>>() {
            needs if needs.is_empty() => vec![format!("a member to be chosen that leads epoch {n}")],
            needs => needs.into_iter().map(|need| format!("pledges for epoch {n}: {need}")).collect(),
        },
        Phase::Elected => {
            let leader = term.leader.as_ref().map_or_else(|| "a member".to_owned(), |l| l.name.to_string());
            vec![format!("{leader} to be promoted: it is chosen to lead epoch {n}, enough members must confirm")]
        }
        Phase::Active => of_rules(objects, roster, term),
    }
}

/// Who has to pledge so that `rule` acknowledges nothing more.
fn seal(rule: &Rule) -> String {
    let (followers, w) = (rule.followers.len(), rule.acknowledgements as usize);
    let leader = &rule.leader.name;
    if w == 0 || w > followers {
        return format!("{leader}, who led epoch {} alone", rule.epoch.number);
    }
    format!(
        "{leader}, who led epoch {}, or {} of its followers {}",
        rule.epoch.number,
        followers + 1 - w,
        names(rule.followers.iter()).join(", ")
    )
}

fn of_rules(objects: &Objects, roster: &[String], term: &Term) -> Vec<String> {
    let current: Vec<&Rule> = term.rules.iter().filter(|r| r.epoch == term.epoch).collect();
    let (Some(old), Some(new)) = (current.first(), current.last()) else { return vec![] };
    if current.len() > 1 {
        let changed = |from: &Rule, to: &Rule| names(from.followers.difference(&to.followers));
        let mut sentence =
            format!("the change of the rule to {} to be confirmed by followers", RuleSeen::of(new).short());
        for (names, verb) in [(changed(new, old), "joins"), (changed(old, new), "leaves")] {
            if !names.is_empty() {
                sentence = format!("{sentence}; {} {verb}", names.join(", "));
            }
        }
        return vec![sentence];
    }
    let mut said = vec![];
    let inside: BTreeSet<String> = new.members().map(|m| m.name.to_string()).collect();
    let outside: Vec<&str> = roster.iter().filter(|m| !inside.contains(*m)).map(String::as_str).collect();
    if !outside.is_empty() {
        said.push(format!("{} to catch up and to count for commits", outside.join(", ")));
    }
    let leaving: Vec<&str> =
        inside.iter().filter(|m| !roster.is_empty() && !roster.contains(*m)).map(String::as_str).collect();
    if !leaving.is_empty() {
        said.push(format!("{} to leave the rule", leaving.join(", ")));
    }
    let asked = objects.set.spec.acknowledgements();
    if new.acknowledgements < asked {
        said.push(format!(
            "more followers in the rule: commits wait for {} acknowledgements, the spec asks for {asked}",
            new.acknowledgements
        ));
    }
    said
}

/// What looks wrong.
pub(super) fn notes(objects: &Objects, seen: &TermSeen, members: &[Member]) -> Vec<String> {
    let mut notes = vec![];
    if let TermSeen::Unusable(why) = seen {
        notes.push(format!("nobody obeys the PgTerm of this set: {why}"));
    }
    if let Some(term) = seen.term() {
        notes.extend(leader_gone(term, members));
        let lossy = term.history.iter().rfind(|f| f.lossy);
        notes.extend(
            lossy.map(|f| format!("acknowledged commits may have been lost when epoch {} began", f.epoch.number)),
        );
        let risky = objects.set.spec.durability.as_ref().and_then(|d| d.mode) != Some(DurabilityMode::Async);
        let alone = term.phase == Phase::Active && term.rules.last().is_some_and(|r| r.acknowledgements == 0);
        if risky && alone && objects.set.spec.members > 1 {
            notes.push("commits are on the leader's disk only for now".to_owned());
        }
    }
    notes.extend(operator_behind(objects, members));
    notes
}

/// A leader by the term that cannot be serving clients.
pub(super) fn leader_gone(term: &Term, members: &[Member]) -> Option<String> {
    let leader = term.leader.as_ref().filter(|_| term.phase == Phase::Active)?.name.to_string();
    let epoch = term.epoch.number;
    match members.iter().find(|m| m.name == leader).and_then(|m| m.pod.as_ref()) {
        None => Some(format!("{leader} leads epoch {epoch}, but has no pod: writes are not served")),
        Some(pod) if !pod.postgres_runs => Some(format!(
            "{leader} leads epoch {epoch}, but PostgreSQL's container does not run there: writes are not served"
        )),
        Some(pod) if pod.ready < pod.containers => {
            Some(format!("{leader} leads epoch {epoch}, but its pod is not ready"))
        }
        Some(_) => None,
    }
}

/// The operator's count of members beside the members' own words.
fn operator_behind(objects: &Objects, members: &[Member]) -> Option<String> {
    let status = objects.set.status.as_ref()?;
    let told = status.ready.as_ref()?;
    let counted: usize = told.split_once('/')?.0.parse().ok()?;
    let say = members
        .iter()
        .filter(|m| m.state == Some(MemberPhase::Attached) && status.roster.contains(&m.name))
        .filter(|m| m.pod.as_ref().is_some_and(|p| p.ready == p.containers))
        .count();
    (counted < say).then(|| {
        format!("the operator's last word is {told} attached, {say} members say that they are: it is behind, or does not run")
    })
}
