//! Planned switchover: a leader that is to go hands over to a follower that has everything.
//!
//! The order is what makes it safe and short. PostgreSQL is stopped first, in an orderly way: it sends all that it has to
//! everyone who streams, and its last record is the shutdown checkpoint. Only then is the next epoch opened (before, the
//! followers would pledge and cut that off), and the stopped leader's own pledge seals its rule at once.

use super::Core;
use crate::{Activity, Effect, Instant, Server, WantKind};
use pgconvoy_terms::{MemberId, MemberName, Phase, Position, Term};
use std::collections::BTreeMap;

/// How long checkpoints may take before PostgreSQL is stopped all the same, in milliseconds.
const CHECKPOINTS: u64 = 20_000;
/// How long after the stop the others may take to be led by another, in milliseconds. A pod then ends; a member that
/// should only have handed over takes part again, and may lead again.
const OTHERS: u64 = 8_000;
/// How long a pod that is to stop outlives its part in the set, in milliseconds: proxies take up a second later where its Services
/// lead now. Until they do, whoever is led here is refused at once; an address that is gone would let them wait for their time-out.
const LINGER: u64 = 2_000;

/// Where a member is on its way out of office.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// The pod is to stop.
    stopping: bool,
    /// Somebody else is to lead: whoever, or this one by preference.
    asked: Option<Option<MemberName>>,
    checkpoints: Checkpoints,
    /// Since when PostgreSQL is down for it.
    down: Option<Instant>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Checkpoints {
    #[default]
    ToDo,
    Since(Instant),
    Done,
}

impl HandOver {
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn checkpointed(&mut self) {
        if let Checkpoints::Since(_) = self.checkpoints {
            self.checkpoints = Checkpoints::Done;
        }
    }

    pub(super) fn wished(&self, member: &MemberName) -> bool {
        self.asked.as_ref().is_some_and(|to| to.as_ref() == Some(member))
    }
}

impl Core {
    /// Whether this member is on its way out of office, or altogether.
    pub(super) fn leaving(&self) -> bool {
        self.hand_over.stopping || self.hand_over.asked.is_some()
    }

    /// Somebody asks this member to hand over: only a leader that serves, and has somebody to hand over to, does.
    pub(super) fn ask_to_hand_over(&mut self, to: Option<MemberName>) {
        let why = match (&self.record.head, self.server()) {
            _ if self.leaving() => return,
            (Some(term), Server::Primary { streams, .. }) if self.serves(term) => {
                let fit = |name: &MemberName| streams.iter().any(|s| s.caught_up && s.member.name == *name);
                match &to {
                    Some(name) if !fit(name) => format!("{name} does not stream from here or is too far behind"),
                    None if !streams.iter().any(|s| s.caught_up) => "no follower has caught up".to_owned(),
                    _ => {
                        self.hand_over = HandOver { asked: Some(to), ..HandOver::default() };
                        return;
                    }
                }
            }
            _ => return,
        };
        self.effects.push(Effect::RefuseRequest { why: format!("{} goes on leading: {why}", self.me) });
    }

    fn serves(&self, term: &Term) -> bool {
        term.phase == Phase::Active
            && term.leader.as_ref().is_some_and(|l| self.is_me(l))
            && matches!(self.server(), Server::Primary { epoch, gate: true, .. } if *epoch == term.epoch)
    }

    /// While it serves, checkpoints are made: what is left for the stop is then little.
    pub(super) fn preparing_to_leave(&mut self) -> bool {
        if !self.record.head.as_ref().is_some_and(|t| self.serves(t) && self.others_count(t)) {
            return false;
        }
        match self.hand_over.checkpoints {
            Checkpoints::ToDo => {
                self.effects.push(Effect::Checkpoint);
                self.hand_over.checkpoints = Checkpoints::Since(self.now);
                true
            }
            Checkpoints::Since(at) => self.now.since(at) < CHECKPOINTS,
            Checkpoints::Done => false,
        }
    }

    /// Stops PostgreSQL, then has another elected.
    pub(super) fn leave(&mut self) {
        self.want(WantKind::Stopped);
        self.level.activity = Activity::Stopping;
        if !(self.settled() && *self.server() == Server::Down) {
            return;
        }
        let down = *self.hand_over.down.get_or_insert(self.now);
        let late = self.now.since(down) >= OTHERS;
        let Some(term) = self.record.head.clone().filter(|_| !late) else { return self.left() };
        match &term.leader {
            // Its place is taken; who answers the new leader's Confirm must be there until it is active.
            Some(leader) if !self.is_me(leader) => {
                let active = self.activated.as_ref().map_or(down, |(_, at)| down.max(*at));
                let lingered = term.phase == Phase::Active && self.now.since(active) >= LINGER;
                if lingered || !self.hand_over.stopping {
                    self.left();
                }
            }
            Some(_) if self.last_record().is_some() && self.others_count(&term) => {
                let why = if self.hand_over.stopping { "its pod is to stop" } else { "it was asked to" };
                self.open(Some(&term), format!("{} hands over, for {why}", self.me));
            }
            None if self.my_open.as_ref() == Some(&term.epoch.id) => self.collect(&term, self.last_record()),
            _ => self.left(),
        }
        if self.leaving() {
            self.level.activity = Activity::Stopping;
        }
    }

    /// Nothing is left to be handed over.
    fn left(&mut self) {
        if self.hand_over.stopping {
            self.level.done = true;
        } else {
            self.hand_over = HandOver::default();
        }
    }

    /// Whether there is somebody to hand over to.
    fn others_count(&self, term: &Term) -> bool {
        term.rules.iter().all(|r| r.members().any(|m| m.name != self.me))
    }

    fn last_record(&self) -> Option<Position> {
        self.local.as_ref().and_then(|l| l.shutdown)
    }

    /// A leaving leader's pledge counts when another holds more than the beginning of its last record, which is all
    /// there is. Otherwise it is as if it had not pledged: the others must do without it.
    pub(super) fn leave_the_election(&self, known: &mut BTreeMap<MemberId, Position>) {
        if !self.leaving() {
            return;
        }
        let Some(me) = self.my_id() else { return };
        let covered = known.get(&me).is_some_and(|mine| {
            known.iter().any(|(m, theirs)| *m != me && theirs.timeline == mine.timeline && theirs.end > mine.end)
        });
        if !covered {
            known.remove(&me);
        }
    }
}
