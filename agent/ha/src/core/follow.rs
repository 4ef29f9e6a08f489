//! Following: getting data, being admitted, streaming.

use super::{Core, Kind};
use crate::{Activity, Answer, Ask, Data, Instant, Server, WantKind};
use pgconvoy_terms::{Epoch, Incarnation, Lsn, MemberName, Phase, Tag, Term};

/// How often a rewind is tried in one epoch before the data is copied anew.
const REWIND_TRIES: u32 = 2;
/// How long one rewind may fail before the same, in milliseconds.
const REWIND_LIMIT: u64 = 120_000;

/// Rewinds tried in one epoch.
#[derive(Debug, Default)]
pub(super) struct Rewinds {
    epoch: Option<Epoch>,
    tries: u32,
    since: Instant,
}

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
    Admitted {
        slot: String,
        from: MemberName,
    },
    /// Its log left the leader's at this place; at 0 = the log it needs next is gone, only a copy helps.
    Diverged(Lsn),
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
        if term.phase == Phase::Elected {
            self.reopen(term);
        }
        if self.suspect(term) || self.rewinding(leader) {
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
            (Some(Verdict::Diverged(Lsn(0))), _) => {
                self.copy(term, leader, true);
                return;
            }
            (Some(Verdict::Diverged(_)), _) => {
                self.rewind(term, leader);
                return;
            }
            (Some(Verdict::Admitted { slot, .. }), _) => slot,
            // It streams in this epoch already (the agent was restarted): it was admitted once.
            (None, Server::Standby { following: Some(epoch), .. }) if *epoch == term.epoch => tag.slot(),
            (None, _) => {
                if self.rewound_in_vain(term) {
                    self.copy(term, leader, true);
                    return;
                }
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
        // On disk before PostgreSQL is told: from then on it may acknowledge.
        self.note_attached(&term.epoch);
        // Whoever comes here as to the leader would get a session that can only read, and keep it.
        let gate = self.last_leader(term) != Some(&self.me);
        self.want(WantKind::Follow { leader: leader.clone(), epoch: term.epoch.clone(), tag, slot, gate });
        let streams = matches!(self.server(),
            Server::Standby { following: Some(e), receiving: true, .. } if *e == term.epoch);
        if streams {
            self.level.activity = Activity::Following(leader.clone(), term.epoch.clone());
            self.level.ready = term.phase == Phase::Active;
        } else {
            self.say_problem();
        }
    }

    /// Whether what is wanted now cannot be reached by trying again.
    fn in_vain(&self) -> bool {
        self.local.as_ref().is_some_and(|l| l.in_vain == Some(self.want.revision))
    }

    /// Whether data was rewound in this epoch and its position is still not known long after: it does not become whole.
    fn rewound_in_vain(&self, term: &Term) -> bool {
        let rewound = self.rewinds.epoch.as_ref() == Some(&term.epoch) && self.rewinds.tries > 0;
        let late = self.now.since(self.rewinds.since) > REWIND_LIMIT;
        rewound && late && term.phase == Phase::Active && self.my_position().is_none()
    }

    /// Whether a rewind is under way, which must not be disturbed.
    fn rewinding(&mut self, leader: &MemberName) -> bool {
        let under_way = matches!(&self.want.kind, WantKind::Rewind { leader: of } if of == leader);
        let gave_up = self.problem().is_some() && self.my_id().is_none();
        if !under_way || self.settled() || gave_up || self.in_vain() {
            return false;
        }
        let patient = self.now.since(self.rewinds.since) < REWIND_LIMIT || self.my_id().is_none();
        if patient {
            self.level.activity = Activity::Rewinding(leader.clone());
            self.say_problem();
        }
        patient
    }

    /// The log left the leader's: go back to where they part, under the same name, so that this member still counts in
    /// the rules that name it. What cannot be rewound is copied anew, once the leader serves.
    fn rewind(&mut self, term: &Term, leader: &MemberName) {
        if self.rewinds.epoch.as_ref() != Some(&term.epoch) {
            self.rewinds = Rewinds { epoch: Some(term.epoch.clone()), tries: 0, since: self.now };
        }
        let wanted = matches!(&self.want.kind, WantKind::Rewind { leader: of } if of == leader);
        if wanted && self.settled() {
            // Done; the leader looks at it again.
            self.admission = None;
            self.detach();
            return;
        }
        let overdue = wanted && (self.in_vain() || self.now.since(self.rewinds.since) >= REWIND_LIMIT);
        if overdue || (!wanted && self.rewinds.tries >= REWIND_TRIES) {
            self.copy(term, leader, true);
            return;
        }
        if !wanted {
            self.rewinds.tries += 1;
            self.rewinds.since = self.now;
        }
        self.want(WantKind::Rewind { leader: leader.clone() });
        self.level.activity = Activity::Rewinding(leader.clone());
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
            Answer::Diverged { fork, .. } => Verdict::Diverged(*fork),
            _ => return,
        };
        if let Answer::Diverged { timeline, fork } = answer
            && fork.0 > 0
        {
            let lossy = self.record.head.iter().flat_map(|t| &t.history).any(|f| f.lossy && f.at == Some(*fork));
            let lost = if lossy {
                "may have been acknowledged, and is given up"
            } else {
                "was never acknowledged under a quorum"
            };
            let end = self.my_position().map_or_else(String::new, |p| format!(" (up to {})", p.end));
            self.alarm(
                "Diverged",
                format!(
                    "the log of {} left the leader's at {fork} on timeline {timeline}: what it holds beyond that{end} {lost}; \
                     it goes back to there",
                    self.me
                ),
            );
        }
        if matches!(verdict, Verdict::Admitted { .. }) {
            self.rewinds = Rewinds::default();
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
