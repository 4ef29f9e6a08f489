//! Suspect and Canvass: whether a leader that is not heard of is to be replaced.
//!
//! Where every rule has W >= 1 safety rests on pledges alone, so a wrong suspicion costs a short outage and never a commit.
//! With W = 0 the old leader's rule must lapse by the clock (`forsake.rs`), and its last commits may be lost. Canvass keeps
//! wrong suspicions rare: nobody opens an epoch unless those who hear nothing suffice to seal the old one and to make the
//! next one active.

use super::{Core, Kind, unattached};
use crate::{Activity, Answer, Ask, Heard, Instant, Server};
use pgconvoy_terms::{Epoch, MemberId, MemberName, Phase, Term};
use std::collections::{BTreeMap, BTreeSet};

/// What one member said.
#[derive(Debug)]
pub(super) struct Said {
    /// `None`: without data.
    pub(super) member: Option<MemberId>,
    pub(super) heard: Heard,
    pub(super) able: bool,
    pub(super) live: bool,
    pub(super) unattached: unattached::Said,
    /// When it was asked.
    pub(super) sent: Instant,
}

/// What the members said.
#[derive(Debug, Default)]
pub(super) struct Canvass(BTreeMap<MemberName, Said>);

impl Canvass {
    pub(super) fn hear(&mut self, from: MemberName, said: Said) {
        self.0.insert(from, said);
    }

    /// Whether the leader itself has said within so many milliseconds that it leads.
    pub(super) fn heard_of_leader_within(&self, term: &Term, limit: u64, now: Instant) -> bool {
        let said = term.leader.as_ref().and_then(|l| self.0.get(&l.name));
        said.is_some_and(|s| s.heard == Heard::Yes && now.since(s.sent) <= limit)
    }

    /// Whether anybody who was asked in this epoch heard the leader.
    pub(super) fn anybody_hears(&self) -> bool {
        self.0.values().any(|s| s.heard == Heard::Yes)
    }
}

impl Core {
    /// A peer's question may be a sign of life of the leader.
    pub(super) fn listen(&mut self, from: &MemberName, ask: &Ask) {
        if let (Ask::Vouch { epoch, quorate: true, .. }, Some(term)) = (ask, &self.record.head)
            && term.epoch == *epoch
            && term.leader.as_ref().is_some_and(|l| l.name == *from)
        {
            self.heard = self.now;
            self.nobody = None;
        }
    }

    /// Nobody listens where the agent of `from` should.
    pub(super) fn hear_nobody(&mut self, from: &MemberName, sent: Instant) {
        if sent >= self.heard {
            self.nobody = Some((from.clone(), sent));
        }
    }

    /// Whether the leader is gone for all that this member can see: nobody listens on its agent's port, and its
    /// PostgreSQL, which streamed to here, does not any more. Either alone happens to a leader that serves (an agent is
    /// replaced, a follower restarts); both together would take a coincidence, and then the others say so.
    fn gone(&self, term: &Term) -> bool {
        let Some(leader) = &term.leader else { return false };
        let nobody = self.nobody.as_ref().is_some_and(|(name, sent)| {
            *name == leader.name && *sent >= self.heard && self.now.since(*sent) <= self.timing.ask
        });
        nobody && self.bereft(term)
    }

    /// Whether this member's PostgreSQL is set to stream in this epoch and hears nothing.
    pub(super) fn bereft(&self, term: &Term) -> bool {
        matches!(self.server(), Server::Standby { following: Some(epoch), live: false, .. } if *epoch == term.epoch)
    }

    /// What this member has heard of the leader of `epoch` within D.
    fn heard(&self, term: &Term) -> Heard {
        let mine = term.leader.as_ref().is_some_and(|l| self.is_me(l));
        if mine && self.quorate(term) {
            return Heard::Yes;
        }
        if !mine && self.gone(term) {
            return Heard::No;
        }
        if !mine && self.heard > self.started && self.now.since(self.heard) <= self.timing.suspect {
            return Heard::Yes;
        }
        if self.now.since(self.started) < self.timing.suspect { Heard::Unknown } else { Heard::No }
    }

    pub(super) fn hears_a_leader(&self, term: &Term) -> bool {
        self.heard(term) == Heard::Yes
    }

    pub(super) fn answer_canvass(&self, epoch: &Epoch) -> Answer {
        let (Some(term), member) = (&self.record.head, self.my_id()) else { return Answer::NotYet };
        if member.is_none() && !self.volume_is_empty() {
            return Answer::NotYet;
        }
        if term.epoch != *epoch {
            return self.refuse("this member goes by another epoch");
        }
        let (able, live) = self.standby_state();
        let unattached = self.record.unattached.clone();
        Answer::Canvassed { member, heard: self.heard(term), able, live, unattached }
    }

    /// Whether PostgreSQL is up as a standby here, and whether it hears its leader on the stream.
    fn standby_state(&self) -> (bool, bool) {
        match self.server() {
            Server::Standby { live, .. } => (true, *live),
            _ => (false, false),
        }
    }

    /// Nothing was heard of the leader for D: ask the others, and open the next epoch if they agree. `true` while the
    /// new epoch is on its way and the old leader is not to be followed any more.
    pub(super) fn suspect(&mut self, term: &Term) -> bool {
        let Some(me) = self.my_id() else { return false };
        if term.phase != Phase::Active {
            return false;
        }
        if let (Some(leader), true) = (&term.leader, self.bereft(term)) {
            // Its stream is gone: whether it is there at all is known sooner than it is silent for long.
            let pause = self.timing.ask_again;
            self.ask(&leader.name, Kind::Canvass, pause, Ask::Canvass { epoch: term.epoch.clone() });
        }
        if self.heard(term) != Heard::No {
            return false;
        }
        for name in self.everyone(term) {
            let pause = self.timing.ask_again;
            self.ask(&name, Kind::Canvass, pause, Ask::Canvass { epoch: term.epoch.clone() });
        }
        let agreed = self.agreed(term, me);
        let by_hand = self.by_hand(term);
        let who = term.leader.as_ref().map_or_else(|| "the leader".to_owned(), |l| l.name.to_string());
        if agreed.is_none() && !by_hand {
            self.say_that_it_was_alone(term, &who);
            return false;
        }
        let why = if self.gone(term) {
            format!("{who}, which led epoch {}, is gone: its stream ended and nobody listens there", term.epoch.number)
        } else {
            format!(
                "nothing was heard of {who}, which led epoch {}, for {} s",
                term.epoch.number,
                self.timing.suspect / 1000
            )
        };
        match agreed {
            Some(able) if by_hand => self.propose(term, &who, &able),
            None => self.say_that_it_is_not_known(term, &who),
            Some(_) => {
                self.open(Some(term), why);
                self.level.activity = Activity::Electing(term.epoch.clone());
                return self.level.lease;
            }
        }
        false
    }

    /// If those who heard nothing suffice to seal every rule and to make another epoch active: who of them could lead.
    fn agreed(&self, term: &Term, me: MemberId) -> Option<BTreeSet<MemberId>> {
        let (able, live) = self.standby_state();
        let mut unattached = unattached::Said::default();
        unattached.hear(&self.me, &self.record.unattached);
        let mine = Said { member: Some(me.clone()), heard: Heard::No, able, live, unattached, sent: self.now };
        let fresh = self.canvass.0.values().filter(|s| self.now.since(s.sent) <= self.timing.suspect);
        let said: Vec<_> = std::iter::once(&mine).chain(fresh).collect();
        if said.iter().any(|s| s.heard == Heard::Yes) {
            return None;
        }
        let those = |what: fn(&Said) -> bool| -> BTreeSet<MemberId> {
            said.iter().filter(|s| what(s)).filter_map(|s| s.member.clone()).collect()
        };
        let live = those(|s| s.live);
        // Its agent is silent, but its PostgreSQL streams to so many that it acknowledges: an agent that restarts.
        if term.rules.iter().all(|r| r.vouched_by(&live)) {
            return None;
        }
        let able = those(|s| s.able);
        let silent = those(|s| s.heard == Heard::No);
        let agreed = term.rules.iter().all(|r| {
            // Without the log of this epoch; it is given what the next leader has, if need be as a copy.
            let silent_notes = said.iter().filter(|s| s.heard == Heard::No);
            let unattached: BTreeSet<_> = silent_notes.flat_map(|s| s.unattached.in_epoch(&r.epoch)).collect();
            let follows_later = |m: &MemberId| *m != r.leader && unattached.contains(m);
            let taking_part = r.members().filter(|m| able.contains(*m) || follows_later(m)).count();
            let replaceable = match r.acknowledgements {
                // Any sign of life of a leader that needs nobody speaks for it, time must be able to end its rule, and most
                // must agree; a single follower has the Lease to tell it, which its leader holds while it serves.
                0 => {
                    let agree = r.members().filter(|m| silent.contains(*m)).count();
                    let most = 2 * agree > r.followers.len() + 1 || r.followers.len() == 1;
                    live.is_empty() && r.followers.contains(&me) && most
                }
                _ => r.sealed_with(&silent, &unattached),
            };
            replaceable && taking_part > r.acknowledgements as usize
        });
        agreed.then_some(able)
    }
}
