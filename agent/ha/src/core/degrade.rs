//! Acknowledging with fewer followers than asked for while too few keep up, where the user prefers that to commits that wait
//! (`durability.whenShort: degrade`).
//!
//! It is a change of the rule like any other, recorded before it is in force: the new rule names those who keep up, and no others.
//! What remains when nobody does is a rule of the leader alone. Nobody but that leader, or a person who gives up what only it may
//! have, ends such an epoch, so nothing acknowledged is lost by it; but nobody takes over from it by itself either.

use super::Core;
use crate::{Instant, Stream};
use pgconvoy_terms::{Epoch, MemberId, Rule, Term};
use std::collections::{BTreeMap, BTreeSet};

/// For how long too few followers must keep up before a leader goes on without them, in milliseconds. Short: a follower that
/// restarts costs the promise. Long: commits wait as long.
const PATIENCE: u64 = 10_000;
/// For how long a follower must keep up before commits wait for it again, in milliseconds. Short: one that comes and goes makes them
/// wait each time. Long: the leader stays alone for as long.
const TRUST: u64 = 5_000;
/// For how long nothing must be heard of a leader that acknowledges alone before a person is told, in milliseconds.
const UNCERTAIN: u64 = 15_000;

/// Those of a rule's followers that receive the log.
pub(super) fn there(rule: &Rule, streams: &[Stream]) -> BTreeSet<MemberId> {
    rule.followers.iter().filter(|f| streams.iter().any(|s| s.member == **f)).cloned().collect()
}

/// Who keeps up, and since when too few do.
#[derive(Debug, Default)]
pub(super) struct Short {
    epoch: Option<Epoch>,
    since: Option<Instant>,
    /// Whether commits waited in vain in this epoch: from then on nobody is counted on for a moment's appearance.
    burnt: bool,
    keeping_up: BTreeMap<MemberId, Instant>,
}

impl Short {
    /// Whether commits have waited, or would have, for as long as they may.
    pub(super) fn for_long(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.since(since) >= PATIENCE)
    }

    /// Whether a follower that has caught up may be counted on.
    pub(super) fn may_count(&self, member: &MemberId, now: Instant) -> bool {
        !self.burnt || self.keeping_up.get(member).is_some_and(|since| now.since(*since) >= TRUST)
    }

    fn look(&mut self, enough: bool, streams: &[Stream], now: Instant) {
        if enough {
            self.since = None;
        } else {
            self.since.get_or_insert(now);
        }
        let caught_up: BTreeSet<_> = streams.iter().filter(|s| s.caught_up).map(|s| &s.member).collect();
        self.keeping_up.retain(|m, _| caught_up.contains(m));
        for member in caught_up {
            self.keeping_up.entry(member.clone()).or_insert(now);
        }
    }
}

impl Core {
    /// Looks who of the followers that commits wait for, or were to wait for, keeps up.
    pub(super) fn look_who_keeps_up(&mut self, rule: &Rule, streams: &[Stream]) {
        let looks = self.spec.degrade && self.spec.acknowledgements > 0;
        if !looks || self.short.epoch.as_ref() != Some(&rule.epoch) {
            self.short = Short { epoch: Some(rule.epoch.clone()), ..Short::default() };
        }
        if looks {
            let enough = there(rule, streams).len() >= self.spec.acknowledgements as usize;
            self.short.look(enough, streams, self.now);
        }
    }

    /// What the rule becomes when too few of its followers have kept up for long: those who do, and as many acknowledgements as they
    /// can give.
    pub(super) fn degraded(&mut self, current: &Rule, streams: &[Stream]) -> Option<Rule> {
        let there = there(current, streams);
        if there.len() >= current.acknowledgements as usize || !self.short.for_long(self.now) {
            return None;
        }
        self.short.burnt = true;
        let acknowledgements = current.acknowledgements.min(there.len() as u32);
        Some(Rule { followers: there, acknowledgements, ..current.clone() })
    }

    /// Whether a change from `old` to `new` that is under way gives up acknowledgements of followers who are not there.
    pub(super) fn degrades(&self, old: &Rule, new: &Rule) -> bool {
        self.spec.degrade && new.acknowledgements < old.acknowledgements && self.short.for_long(self.now)
    }

    /// Tells people of a change of the rule that gives up acknowledgements, or brings them back.
    pub(super) fn tell_degraded(&mut self, old: &Rule, new: &Rule) {
        let (number, asked) = (old.epoch.number, self.spec.acknowledgements);
        if self.spec.degrade && new.acknowledgements < old.acknowledgements && new.acknowledgements < asked {
            let gone: Vec<_> = old.followers.difference(&new.followers).map(|m| m.name.to_string()).collect();
            let message = format!(
                "{} of the {asked} followers that must hold a commit keep up with {} in epoch {number} (not {}): as \
                 durability.whenShort asks, commits do not wait for them any more. If {} is lost before they are back, so is what it \
                 acknowledges from now on",
                new.acknowledgements,
                self.me,
                gone.join(", "),
                self.me,
            );
            self.alarm("Degraded", message);
        } else if self.short.burnt && new.acknowledgements >= asked {
            self.alarms.remove("Degraded");
            self.tell(
                "DurabilityRestored",
                format!("{asked} followers have caught up: a commit in epoch {number} waits for them again"),
            );
        }
    }

    /// The last leader acknowledged alone and is not heard: nobody can take its place without a person's word.
    pub(super) fn say_that_it_was_alone(&mut self, term: &Term, who: &str) {
        let alone = term.rules.iter().all(|r| r.followers.is_empty());
        if !alone
            || self.now.since(self.started) < UNCERTAIN
            || self.canvass.heard_of_leader_within(term, UNCERTAIN, self.now)
        {
            return;
        }
        let message = format!(
            "nothing is heard of {who}, which leads epoch {number} and acknowledged commits that no other member need have. Bring it \
             back, or give up what only it has: kubectl pgconvoy takeover {} --epoch {number} --accept-loss",
            self.me.set(),
            number = term.epoch.number,
        );
        self.leave_to_person(message);
    }
}
