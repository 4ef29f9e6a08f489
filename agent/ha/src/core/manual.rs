//! Failover by hand: as long as the user asks for that, who leads changes only when a person has said so. The last leader itself
//! comes back by itself, also as the next epoch's; a planned change (a request, a pod that is deleted) is a person's word.

use super::Core;
use crate::TermTrouble;
use pgconvoy_terms::{MemberId, Term};
use std::collections::BTreeSet;

/// For how long nothing must be heard of a leader before it is told that nobody can say what it had, in milliseconds. Short: a
/// member that is cut off for a moment alarms people. Long: they hear later.
const UNCERTAIN: u64 = 15_000;

impl Core {
    /// Whether it takes a person to let another lead. A set that nobody ever led is founded all the same.
    pub(super) fn by_hand(&self, term: &Term) -> bool {
        self.spec.manual && !term.history.is_empty()
    }

    /// Whether this member, with this data, led the last epoch that became active.
    pub(super) fn led_last(&self, term: &Term) -> bool {
        let last = term.history.last();
        last.is_some_and(|f| self.is_me(&f.leader))
    }

    /// What a person would have to decide now.
    pub fn left_to_person(&self) -> Option<&TermTrouble> {
        self.left_to_person.as_ref()
    }

    /// The others agree that the leader is gone, and could go on without it.
    pub(super) fn propose(&mut self, term: &Term, who: &str, able: &BTreeSet<MemberId>) {
        let names: Vec<_> = able.iter().map(|m| m.name.to_string()).collect();
        let loss = if Self::clock_bound(term) {
            (
                "; acknowledged commits that only the last leader has would be lost, how many is not known",
                " --accept-loss",
            )
        } else {
            (" with every acknowledged commit", "")
        };
        let message = format!(
            "nothing is heard of {who}, which leads epoch {}, and failover is manual: {} can go on{}, and whichever has most of the log \
             would lead. Bring the leader back, or have it replaced: kubectl pgconvoy takeover {} --epoch {}{}",
            term.epoch.number,
            names.join(" and "),
            loss.0,
            self.me.set(),
            term.epoch.number,
            loss.1,
        );
        self.leave_to_person(message);
    }

    /// Nothing is heard of the leader, and it cannot be said whether those who could be asked have all that it acknowledged.
    pub(super) fn say_that_it_is_not_known(&mut self, term: &Term, who: &str) {
        // Its PostgreSQL, or another member, says that it lives; this one may only be cut off.
        if self.now.since(self.heard) < UNCERTAIN || !self.bereft(term) || self.canvass.anybody_hears() {
            return;
        }
        let message = format!(
            "nothing is heard of {who}, which leads epoch {}, and failover is manual: too few members can be asked to know whether a \
             commit would be lost without it. Bring the leader back, or start the others; kubectl pgconvoy status {} tells which",
            term.epoch.number,
            self.me.set(),
        );
        self.leave_to_person(message);
    }

    /// An epoch was opened and does not get on.
    pub(super) fn say_that_it_stands_still(&mut self, term: &Term) {
        let message = format!(
            "epoch {} was opened, nobody leads in it, and failover is manual. If the last leader does not come back: kubectl pgconvoy \
             takeover {} --epoch {}",
            term.epoch.number,
            self.me.set(),
            term.epoch.number,
        );
        self.leave_to_person(message);
    }

    pub(super) fn leave_to_person(&mut self, message: String) {
        const REASON: &str = "WaitsForTakeover";
        self.alarm(REASON, message.clone());
        self.left_to_person = Some(TermTrouble { reason: REASON, message });
    }
}
