//! A new epoch: Open, Pledge (the collecting side), Elect.

use super::{Core, Kind};
use crate::{Activity, Ask, Data, WantKind};
use pgconvoy_terms::{Epoch, Incarnation, MemberId, Phase, Position, Rule, Term};
use std::collections::{BTreeMap, BTreeSet};

/// How long to wait for further pledges once the rules are sealed, in milliseconds: the more answer, the more take part.
const LATE_PLEDGES: u64 = 500;
/// How long an epoch that somebody else opened, or was elected in, may stand still before this member wants the Lease to
/// open another, in milliseconds. Whoever is at work on it holds the Lease, so this disturbs nobody.
pub(super) const PATIENCE: u64 = 3_000;
/// The longest pause between two epochs that did not become active, in milliseconds.
const LONGEST_PAUSE: u64 = 300_000;

impl Core {
    /// The register is at number 0 and there is no data: found the set, the lowest ordinal first.
    pub(super) fn found(&mut self) {
        self.level.activity = Activity::Waiting("for the set to be founded".to_owned());
        let Some(rank) = self.spec.roster.iter().position(|m| *m == self.me) else {
            self.level.activity = Activity::Waiting("for a place in the set's roster".to_owned());
            return;
        };
        let patience = rank as u64 * self.timing.found_stagger;
        if self.now.since(self.started) >= patience {
            self.open(None, "there is no data yet".to_owned());
        }
    }

    /// Opens the next epoch: holding the Lease, by compare-and-swap, rules unchanged. `why`: a clause for people.
    pub(super) fn open(&mut self, current: Option<&Term>, why: String) {
        self.open_without(current, why, false);
    }

    /// Opens the next epoch. `forsaken`: without the rules that stand until now, which a person gives up.
    pub(super) fn open_without(&mut self, current: Option<&Term>, why: String, forsaken: bool) {
        // A person does not wait for what failed before the decision.
        let failed = if forsaken { 0 } else { self.fruitless.saturating_sub(1).min(8) };
        let pause = (2_000u64 << failed).min(LONGEST_PAUSE);
        if self.last_open.is_some_and(|at| self.now.since(at) < pause) {
            return;
        }
        self.level.lease = true;
        if !self.lease_held && !std::mem::replace(&mut self.disk_tried, true) {
            // Carried out before the Lease is asked for: a member whose disk hangs must not keep the others from it.
            self.persist();
        }
        if !self.lease_held {
            self.level.activity = Activity::Waiting("for the Lease, to open a new epoch".to_owned());
            return;
        }
        let id = self.new_id();
        let epoch = Epoch { number: current.map_or(0, |t| t.epoch.number) + 1, id: id.clone() };
        let mut term = Term {
            epoch,
            phase: Phase::Recruiting,
            leader: None,
            rules: current.filter(|_| !forsaken).map(|t| t.rules.clone()).unwrap_or_default(),
            lossy: forsaken || current.is_some_and(|t| t.lossy),
            history: current.map(|t| t.history.clone()).unwrap_or_default(),
            chain: current.map(|t| t.chain.clone()).unwrap_or_default(),
        };
        term.push_change(id.clone());
        if self.swap(term) {
            self.my_open = Some(id);
            self.opening = why;
            self.last_open = Some(self.now);
            self.fruitless += 1;
        }
    }

    /// An epoch is open and has no leader yet.
    pub(super) fn recruit(&mut self, term: &Term) {
        self.level.activity = Activity::Electing(term.epoch.clone());
        self.detach();
        if self.my_open.as_ref() != Some(&term.epoch.id) {
            // Whoever opened it may be gone, and so may be the last leader.
            self.reopen(term);
            return;
        }
        let position = self.my_position();
        self.collect(term, position);
    }

    /// Collects pledges for the epoch that this member opened, its own among them, and elects.
    pub(super) fn collect(&mut self, term: &Term, position: Option<Position>) {
        self.level.lease = true;
        for name in self.everyone(term) {
            let known = self.pledges.iter().any(|(m, position)| m.name == name && position.is_some());
            if !known {
                let pause = self.timing.ask_again;
                self.ask(&name, Kind::Pledge, pause, Ask::Pledge { term: term.clone() });
            }
        }
        if let Some(me) = self.my_id() {
            let notes = self.record.unattached.clone();
            self.unattached.hear(&me.name, &notes);
            self.pledges.insert(me, position);
        }
        self.elect(term);
    }

    /// Whoever is at work on an epoch that is not active yet may be gone. Anyone who counts opens the next in time, or anyone
    /// at all while nobody ever led; the Lease keeps them from disturbing one who is still there.
    pub(super) fn reopen(&mut self, term: &Term) {
        // A person's decision opens the next by itself, without the rules.
        if self.given_up(term).is_some() || !self.may_reopen(term) || self.now.since(self.moved) < PATIENCE {
            return;
        }
        if self.by_hand(term) && !self.led_last(term) {
            self.say_that_it_stands_still(term);
            return;
        }
        let (number, limit) = (term.epoch.number, PATIENCE / 1000);
        let why = match &term.leader {
            None => {
                format!("epoch {number} was not decided for {limit} s, and whoever opened it has given up the Lease")
            }
            Some(elected) => format!("{}, elected in epoch {number}, did not come to lead in it", elected.name),
        };
        self.open(Some(term), why);
    }

    /// Whether nothing has moved for so long that another epoch may be tried.
    pub(super) fn stalled(&self) -> bool {
        self.now.since(self.moved) > self.timing.stalled
    }

    /// Whether this member may open an epoch in place of whoever opened this one.
    pub(super) fn may_reopen(&self, term: &Term) -> bool {
        if term.rules.is_empty() {
            return self.spec.roster.contains(&self.me);
        }
        self.my_id().is_some_and(|me| term.rules.iter().any(|r| r.contains(&me)))
    }

    fn elect(&mut self, term: &Term) {
        let mut known: BTreeMap<MemberId, Position> =
            self.pledges.iter().filter_map(|(m, p)| p.map(|p| (m.clone(), p))).collect();
        self.leave_the_election(&mut known);
        let sealing: BTreeSet<MemberId> = known.keys().cloned().collect();
        let sealed = |r: &Rule| r.sealed_with(&sealing, &self.unattached.in_epoch(&r.epoch));
        if self.gathering(term) || !term.rules.iter().all(|r| sealed(r) || self.lapsed(term, r)) {
            self.sealed_since = None;
            return;
        }
        // It begins again, and nobody but a person has another lead: the others wait for its recovery.
        let begins_again = self.by_hand(term) && self.led_last(term) && !self.leaving();
        if begins_again && !known.keys().any(|m| self.is_me(m)) {
            self.sealed_since = None;
            return;
        }
        let since = *self.sealed_since.get_or_insert(self.now);
        // The last leader is why there is an election: dead, or busy with its own recovery for who knows how long.
        let led: BTreeSet<_> = term.rules.iter().map(|r| &r.leader.name).collect();
        let heard: BTreeSet<_> = known.keys().map(|m| &m.name).chain(&self.dataless).collect();
        let all = self.everyone(term).iter().all(|n| heard.contains(n) || led.contains(n));
        if !all && self.now.since(since) < LATE_PLEDGES {
            return;
        }
        let leaving = self.leaving();
        let winner = known.iter().filter(|(m, _)| !(leaving && m.name == self.me)).max_by_key(|(m, p)| {
            let wished = self.hand_over.wished(&m.name);
            (**p, wished, m.name == self.me, std::cmp::Reverse((*m).clone()))
        });
        let leader = match winner {
            Some((member, _)) => member.clone(),
            None if term.rules.is_empty() && term.history.is_empty() && self.may_found() && !self.elsewhere => {
                let Some(me) = self.founder() else { return };
                me
            }
            None => return,
        };
        let rule = self.next_rule(term, &leader);
        let mut next = term.clone();
        next.phase = Phase::Elected;
        next.leader = Some(leader);
        // Nobody can confirm a rule whose leader, the only one who seals it, is gone.
        next.rules.retain(|r| r.sealed_with(&sealing, &self.unattached.in_epoch(&r.epoch)));
        next.lossy |= next.rules.len() < term.rules.len();
        next.rules.push(rule);
        let id = self.new_id();
        next.push_change(id);
        self.swap(next);
    }

    /// Whether nothing on this volume speaks against a new database.
    fn may_found(&self) -> bool {
        matches!(self.local.as_ref().map(|l| &l.data), Some(Data::Empty | Data::HalfMade))
    }

    /// This member as the founder, under a name for data that does not exist yet; the name is on disk before use.
    fn founder(&mut self) -> Option<MemberId> {
        if self.record.making.is_none() {
            self.record.making = Some(Incarnation::from_random(self.random.next()));
            self.persist();
        }
        self.future_id()
    }

    /// The rule of the new epoch: everybody who took part before or has pledged now, by their newest data, as far as
    /// they are in the roster.
    fn next_rule(&self, term: &Term, leader: &MemberId) -> Rule {
        let mut by_name = BTreeMap::new();
        let before = term.rules.last().into_iter().flat_map(|r| r.members());
        for member in before.chain(self.pledges.keys()) {
            by_name.insert(member.name.clone(), member.clone());
        }
        by_name.remove(&leader.name);
        let wanted = |m: &MemberId| self.spec.roster.is_empty() || self.spec.roster.contains(&m.name);
        let followers: BTreeSet<_> = by_name.into_values().filter(wanted).collect();
        let acknowledgements = self.spec.acknowledgements.min(followers.len() as u32);
        Rule { epoch: term.epoch.clone(), leader: leader.clone(), followers, acknowledgements }
    }

    /// The elected founder makes its database, once, while nothing can have been written yet.
    pub(super) fn founding(&mut self, term: &Term) -> bool {
        let fresh = term.phase == Phase::Elected && term.history.is_empty() && term.rules.len() == 1;
        if !(fresh && self.may_found()) {
            return false;
        }
        if let Some(incarnation) = self.record.making.clone() {
            self.want(WantKind::Found { incarnation });
            self.level.activity = Activity::Founding;
        }
        true
    }
}
