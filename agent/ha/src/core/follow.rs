//! Following: getting data, being admitted, streaming.

use super::{Core, Kind};
use crate::{Activity, Answer, Ask, Data, Server, WantKind};
use pgconvoy_terms::{Epoch, Incarnation, MemberName, Phase, Tag, Term};

/// What the leader of an epoch said to this member's wish to follow.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    epoch: Epoch,
    incarnation: Incarnation,
    verdict: Verdict,
    /// Whether it was given for a position, that is, for data that is there.
    positioned: bool,
}

#[derive(Debug, Clone)]
enum Verdict {
    Admitted { slot: String, from: MemberName },
    Diverged,
}

impl Core {
    /// Another member leads.
    pub(super) fn follow(&mut self, term: &Term, leader: &MemberName) {
        self.level.activity = Activity::Attaching(leader.clone());
        if let Server::Primary { .. } = self.server() {
            self.fence(&format!("{leader} leads epoch {}", term.epoch.number));
            return;
        }
        if *leader == self.me {
            self.detach();
            self.level.activity = Activity::Failed(
                "this member led with data that is gone; another member has to take over before it can be copied back"
                    .to_owned(),
            );
            return;
        }
        match self.local.as_ref().map(|l| l.data.clone()) {
            Some(Data::Good { .. }) => self.attach(term, leader),
            Some(Data::Empty | Data::HalfMade) => self.copy(term, leader, false),
            _ => {}
        }
    }

    /// Data is there: look how far it goes, be admitted with that, stream.
    fn attach(&mut self, term: &Term, leader: &MemberName) {
        let Some(me) = self.my_id() else { return };
        if self.copying.as_ref() == Some(&(term.epoch.clone(), true)) {
            // Found to have diverged in this epoch: the copy that replaces the data is under way.
            self.copy(term, leader, true);
            return;
        }
        let tag = Tag::new(&me, &term.epoch);
        let admitted = match &self.admission {
            Some(a) if a.positioned && a.epoch == term.epoch && a.incarnation == me.incarnation => {
                Some(a.verdict.clone())
            }
            _ => None,
        };
        let slot = match (admitted, self.server()) {
            (Some(Verdict::Diverged), _) => {
                self.copy(term, leader, true);
                return;
            }
            (Some(Verdict::Admitted { slot, .. }), _) => slot,
            // It streams in this epoch already (the agent was restarted): it was admitted once.
            (None, Server::Standby { following: Some(epoch), .. }) if *epoch == term.epoch => tag.slot(),
            (None, _) => {
                self.detach();
                match self.my_position() {
                    Some(position) => {
                        let ask = Ask::Attach { epoch: term.epoch.clone(), member: me, position: Some(position) };
                        let pause = self.timing.ask_again;
                        self.ask(leader, Kind::Attach, pause, ask);
                    }
                    None => self.level.activity = Activity::Recovering,
                }
                self.say_problem();
                return;
            }
        };
        self.want(WantKind::Follow { leader: leader.clone(), epoch: term.epoch.clone(), tag, slot });
        let streams = matches!(self.server(),
            Server::Standby { following: Some(e), receiving: true, .. } if *e == term.epoch);
        if streams {
            self.level.activity = Activity::Following(leader.clone(), term.epoch.clone());
            self.level.ready = term.phase == Phase::Active;
        } else {
            self.say_problem();
        }
    }

    /// No data, or data that left the leader's log: copy it, under a new name, once the leader keeps its log for us.
    fn copy(&mut self, term: &Term, leader: &MemberName, replace: bool) {
        if !self.spec.roster.contains(&self.me) {
            self.want(WantKind::Keep);
            self.level.activity = Activity::Waiting("for a place in the set's roster".to_owned());
            return;
        }
        // Good data is given up only to a leader that serves, whose own copy is the one to have.
        if replace && term.phase != Phase::Active {
            self.detach();
            return;
        }
        let attempt = (term.epoch.clone(), replace);
        if self.copying.as_ref() != Some(&attempt) {
            // Always a new name: an old one may stand in a rule for data that is gone.
            self.copying = Some(attempt);
            self.record.making = Some(Incarnation::from_random(self.random.next()));
            self.admission = None;
            self.persist();
        }
        let Some(member) = self.future_id() else { return };
        match self.admission.clone() {
            Some(Admission { incarnation, verdict: Verdict::Admitted { slot, from }, positioned: false, .. })
                if incarnation == member.incarnation =>
            {
                self.want(WantKind::Clone { incarnation, from: from.clone(), slot, replace });
                self.level.activity = Activity::Cloning(from);
            }
            _ => {
                if replace {
                    self.detach();
                } else {
                    self.want(WantKind::Keep);
                }
                let ask = Ask::Attach { epoch: term.epoch.clone(), member, position: None };
                let pause = self.timing.ask_again;
                self.ask(leader, Kind::Attach, pause, ask);
            }
        }
        self.say_problem();
    }

    /// The leader's word on this member's wish to follow.
    pub(super) fn hear_admission(&mut self, answer: &Answer, positioned: bool) {
        let Some(epoch) = self.record.head.as_ref().map(|t| t.epoch.clone()) else { return };
        let name = if positioned { &self.record.incarnation } else { &self.record.making };
        let Some(incarnation) = name.clone() else { return };
        let verdict = match answer {
            Answer::Admitted { slot, from } => Verdict::Admitted { slot: slot.clone(), from: from.clone() },
            Answer::Diverged { .. } => Verdict::Diverged,
            _ => return,
        };
        if let Answer::Diverged { timeline, fork } = answer {
            self.alarm(
                "Diverged",
                format!(
                    "the log of {} left the leader's at {fork} on timeline {timeline}: its data is copied anew from the \
                     leader",
                    self.me
                ),
            );
        }
        self.admission = Some(Admission { epoch, incarnation, verdict, positioned });
    }

    /// Shows the executor's problem, if there is one, in place of a mere "waiting".
    fn say_problem(&mut self) {
        if let Some(problem) = self.problem() {
            self.level.activity = Activity::Waiting(problem);
        }
    }
}
