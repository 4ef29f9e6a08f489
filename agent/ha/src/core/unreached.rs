//! An elected leader whose PostgreSQL the others do not reach, while agents talk: it gives way to one of them.
//!
//! Its log has grown by its own epoch's first records, so by that it would be elected again. But no client was ever let in in that
//! epoch: all that may have been acknowledged is what it held when it was promoted. In the election that it opens itself it
//! counts with that much, and anybody who has as much is elected rather than it. (Not where a person says who leads.)

use super::{Core, Kind};
use crate::{Ask, Server};
use pgconvoy_terms::{Epoch, MemberId, Phase, Position, Rule, Term};
use std::collections::BTreeSet;

/// What a member held before it led in an epoch that did not become active.
#[derive(Debug)]
pub(super) struct GaveWay {
    epoch: Epoch,
    held: Position,
}

impl Core {
    /// Promoted, and nobody follows although others could: opens the next epoch. `true` while that is so.
    pub(super) fn unreached(&mut self, term: &Term, rule: &Rule, following: usize) -> bool {
        let (w, Server::Primary { fork: Some((timeline, end)), barrier: false, .. }) =
            (rule.acknowledgements as usize, self.server())
        else {
            return false;
        };
        if following >= w || term.phase != Phase::Elected || !self.stalled() || self.by_hand(term) {
            return false;
        }
        let held = Position { timeline: *timeline, end: *end };
        for name in self.everyone(term) {
            let pause = self.timing.ask_again;
            self.ask(&name, Kind::Canvass, pause, Ask::Canvass { epoch: term.epoch.clone() });
        }
        // Those who are being rewound or copied, or recover, are waited for.
        let able: BTreeSet<MemberId> = self.canvass.able_within(self.timing.suspect, self.now);
        if rule.followers.iter().filter(|f| able.contains(*f)).count() < w {
            return false;
        }
        self.gave_way = Some(GaveWay { epoch: term.epoch.clone(), held });
        let (me, number, limit) = (&self.me, term.epoch.number, self.timing.stalled / 1000);
        let why = format!(
            "nobody followed {me}, which was elected in epoch {number}, for {limit} s: is its PostgreSQL's port reached from the others?"
        );
        self.open(Some(term), why);
        true
    }

    /// What counts of this member's log in the election of `term`.
    pub(super) fn counted_position(&self, term: &Term) -> Option<Position> {
        let known = self.my_position()?;
        Some(if self.gives_way(term) { self.gave_way.as_ref().map_or(known, |g| g.held) } else { known })
    }

    /// Whether this member opened the epoch because nobody followed it in the one before.
    pub(super) fn gives_way(&self, term: &Term) -> bool {
        let mine = self.my_open.as_ref() == Some(&term.epoch.id);
        mine && self.gave_way.as_ref().is_some_and(|g| g.epoch.number + 1 == term.epoch.number)
    }
}
