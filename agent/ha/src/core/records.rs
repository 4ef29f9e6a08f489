//! What the records of several members come to, when the register is not what they go by: the term that a repair puts there.
//!
//! It is safe whoever was heard, and whenever: a member that was not, or that has acted on something later meanwhile, does not
//! find its own last change in the new chain, and does not obey.

use crate::Repair;
use pgconvoy_terms::{CHAIN_LIMIT, ChangeId, Epoch, Fork, HISTORY_LIMIT, MemberId, Phase, Rule, Term};
use std::collections::BTreeSet;

/// Why nothing would come of a repair.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Useless {
    /// Nobody has a record.
    Nothing,
    /// Those heard cannot end this rule and go on: not W + 1 of its members, or they do not seal it.
    Unsealed(Rule),
}

/// Whether `other` makes `record` void: it descends from it, or is the same change, further on.
fn supersedes(other: &Term, record: &Term) -> bool {
    if other.head() == record.head() {
        return other.phase > record.phase || (other.phase == record.phase && other.rules.len() < record.rules.len());
    }
    other.descends_from(record.head())
}

/// The records of which no other is a descendant.
fn newest(records: &[Term]) -> impl Iterator<Item = &Term> {
    records.iter().filter(|r| !records.iter().any(|o| supersedes(o, r)))
}

/// Every rule that may still count, oldest first.
pub(super) fn rules(records: &[Term]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = vec![];
    for rule in newest(records).flat_map(|r| &r.rules) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules.sort_by_key(|r| r.epoch.number);
    rules
}

/// The chain of all of them: whoever acted last on any change in it obeys what comes of it.
fn chain(records: &[Term], id: ChangeId) -> Vec<ChangeId> {
    let mut chain: Vec<ChangeId> = vec![];
    let mut known = BTreeSet::new();
    // Heads last, so that none of them is forgotten first.
    let heads: BTreeSet<_> = records.iter().filter_map(Term::head).collect();
    let all = records.iter().flat_map(|r| &r.chain);
    for change in all.filter(|c| !heads.contains(c)).chain(heads.iter().copied()) {
        if known.insert(change) {
            chain.push(change.clone());
        }
    }
    chain.push(id);
    let excess = chain.len().saturating_sub(CHAIN_LIMIT);
    chain.drain(..excess);
    chain
}

fn history(records: &[Term]) -> Vec<Fork> {
    let mut history: Vec<Fork> = vec![];
    for fork in records.iter().flat_map(|r| &r.history) {
        if !history.iter().any(|f| f.epoch == fork.epoch) {
            history.push(fork.clone());
        }
    }
    history.sort_by_key(|f| f.epoch.number);
    let excess = history.len().saturating_sub(HISTORY_LIMIT);
    history.drain(..excess);
    history
}

/// The term that follows from `records`, opened under `id`, with a number above `floor` and all of theirs. `heard` are the
/// members, with the data that they have, whose records these are. With [`Repair::accept_loss`] a person gives up the rules that these
/// cannot end.
pub(super) fn repaired(
    records: &[Term],
    heard: &BTreeSet<MemberId>,
    floor: u32,
    id: ChangeId,
    wish: &Repair,
) -> Result<Term, Useless> {
    if records.is_empty() {
        return Err(Useless::Nothing);
    }
    // A rule without a quorum ends with its leader's promise, or in time (`lapsed`); for kept data there is time to wait for it.
    let lapses = |r: &Rule| !wish.adopt && r.acknowledgements == 0 && r.members().any(|m| heard.contains(m));
    let ends = |r: &Rule| r.confirmed_by(heard) || lapses(r);
    let (kept, given_up): (Vec<_>, Vec<_>) = rules(records).into_iter().partition(ends);
    if let (Some(rule), false) = (given_up.first(), wish.accept_loss) {
        return Err(Useless::Unsealed(rule.clone()));
    }
    let number = records.iter().map(|r| r.epoch.number).max().unwrap_or_default().max(floor) + 1;
    Ok(Term {
        epoch: Epoch { number, id: id.clone() },
        phase: Phase::Recruiting,
        leader: None,
        rules: kept,
        lossy: !given_up.is_empty() || newest(records).any(|r| r.lossy),
        history: history(records),
        chain: chain(records, id),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

    use super::*;
    use pgconvoy_terms::{Incarnation, MemberName};

    const PLAIN: Repair = Repair { accept_loss: false, adopt: false };

    fn member(n: u32) -> MemberId {
        MemberId { name: MemberName::new("s", n), incarnation: Incarnation::from_random(n.into()) }
    }

    fn members(of: &[u32]) -> BTreeSet<MemberId> {
        of.iter().map(|n| member(*n)).collect()
    }

    fn id(n: u32) -> ChangeId {
        ChangeId::from_random(n.into())
    }

    fn rule(number: u32, leader: u32) -> Rule {
        let followers = members(&[1, 2, 3].into_iter().filter(|n| *n != leader).collect::<Vec<_>>());
        Rule { epoch: Epoch { number, id: id(number) }, leader: member(leader), followers, acknowledgements: 1 }
    }

    fn term(number: u32, leader: u32, chain: &[u32]) -> Term {
        Term {
            epoch: Epoch { number, id: id(number) },
            phase: Phase::Active,
            leader: Some(member(leader)),
            rules: vec![rule(number, leader)],
            lossy: false,
            history: vec![],
            chain: chain.iter().map(|n| id(*n)).collect(),
        }
    }

    fn repair(records: &[Term], heard: &[u32]) -> Result<Term, Useless> {
        repaired(records, &members(heard), 0, id(99), &PLAIN)
    }

    #[test]
    fn the_number_is_above_all_and_everybody_heard_descends() {
        let (one, other) = (term(4, 1, &[1, 2, 4]), term(7, 2, &[1, 2, 7]));
        let t = repair(&[one.clone(), other.clone()], &[1, 2, 3]).unwrap();
        assert_eq!((t.epoch.number, t.phase, &t.leader), (8, Phase::Recruiting, &None));
        assert!(t.descends_from(one.head()) && t.descends_from(other.head()) && t.head() == Some(&id(99)));
        let above = repaired(&[one], &members(&[1, 2, 3]), 11, id(99), &PLAIN).unwrap();
        assert_eq!(above.epoch.number, 12, "the API server refuses a number below the register's");
    }

    #[test]
    fn rules_of_both_branches_count_and_those_of_an_ancestor_do_not() {
        let old = term(4, 1, &[1, 4]);
        let (left, right) = (term(5, 2, &[1, 4, 5]), term(6, 3, &[1, 4, 6]));
        let t = repair(&[old, left, right], &[1, 2, 3]).unwrap();
        assert_eq!(t.rules, vec![rule(5, 2), rule(6, 3)]);
    }

    #[test]
    fn the_same_change_counts_as_far_as_anybody_saw_it() {
        let active = term(5, 2, &[1, 5]);
        let mut elected = active.clone();
        elected.phase = Phase::Elected;
        elected.rules.insert(0, rule(4, 1));
        assert_eq!(repair(&[elected.clone(), active.clone()], &[1, 2, 3]).unwrap().rules, vec![rule(5, 2)]);
        // A change of the rule that is under way: [old, new] is what counts until somebody saw [new].
        let mut changing = active.clone();
        changing.rules.push(Rule { acknowledgements: 2, ..rule(5, 2) });
        assert_eq!(repair(&[changing.clone(), changing.clone()], &[1, 2, 3]).unwrap().rules.len(), 2);
        let mut changed = changing.clone();
        changed.rules.remove(0);
        assert_eq!(repair(&[changing, changed.clone()], &[1, 2, 3]).unwrap().rules, changed.rules);
    }

    #[test]
    fn too_few_are_refused_until_a_person_accepts_the_loss() {
        let record = term(5, 1, &[1, 5]);
        for few in [&[1][..], &[2], &[3]] {
            assert_eq!(repair(std::slice::from_ref(&record), few), Err(Useless::Unsealed(rule(5, 1))), "{few:?}");
        }
        for enough in [&[1, 2][..], &[2, 3], &[1, 3]] {
            assert!(!repair(std::slice::from_ref(&record), enough).unwrap().lossy);
        }
        let t = repaired(&[record], &members(&[3]), 0, id(99), &Repair { accept_loss: true, adopt: false }).unwrap();
        assert!(t.lossy && t.rules.is_empty());
        assert_eq!(repair(&[], &[]), Err(Useless::Nothing));
    }

    #[test]
    fn without_a_quorum_kept_data_waits_for_its_leader() {
        let mut record = term(5, 1, &[1, 5]);
        record.rules[0].acknowledgements = 0;
        let adopt = |of: &[u32]| {
            let wish = Repair { accept_loss: false, adopt: true };
            repaired(std::slice::from_ref(&record), &members(of), 0, id(99), &wish)
        };
        assert!(adopt(&[2, 3]).is_err() && adopt(&[1]).is_ok());
        // A leader that died with its disk does not keep the others for ever.
        assert!(repair(std::slice::from_ref(&record), &[2, 3]).is_ok());
    }

    #[test]
    fn other_data_does_not_stand_for_what_a_member_had() {
        let record = term(5, 1, &[1, 5]);
        let copied = MemberId { incarnation: Incarnation::from_random(77), ..member(2) };
        let heard = BTreeSet::from([copied, member(1)]);
        assert!(repaired(&[record], &heard, 0, id(99), &PLAIN).is_err());
    }

    #[test]
    fn a_long_chain_forgets_no_head() {
        let long: Vec<u32> = (1000..1000 + 1024).collect();
        let (a, b) = (term(5, 1, &long), term(6, 2, &[vec![1], (3000..3000 + 1023).collect()].concat()));
        let t = repair(&[a.clone(), b.clone()], &[1, 2, 3]).unwrap();
        assert!(t.chain.len() == CHAIN_LIMIT && t.descends_from(a.head()) && t.descends_from(b.head()));
    }
}
