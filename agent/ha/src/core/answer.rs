//! What peers are told. Answers are given after the decision of the step, so that a promise is on disk and acted on
//! before it is spoken.

use super::Core;
use crate::{Answer, Ask, AskId, Effect, Instant, Server};
use pgconvoy_terms::{MemberId, MemberName, Phase, Position, Term};

/// How many questions are kept at most; the oldest then gets what answer there is.
const LIMIT: usize = 32;

/// A question without its answer.
#[derive(Debug)]
pub(super) struct Open {
    id: AskId,
    from: MemberName,
    ask: Ask,
    since: Instant,
}

impl Open {
    /// Whether a better answer may come of what is being done just now, so that it is worth waiting for.
    fn may_improve(&self, answer: &Answer) -> bool {
        let acted_upon = matches!(self.ask, Ask::Pledge { .. } | Ask::Store { .. } | Ask::Attach { .. });
        acted_upon && matches!(answer, Answer::NotYet | Answer::Pledged { member: Some(_), position: None, .. })
    }
}

impl Core {
    /// Keeps a question until it is answered. A newer one of the same kind and sender takes the place of an older.
    pub(super) fn take_question(&mut self, id: AskId, from: MemberName, ask: Ask) {
        let same = |o: &Open| o.from == from && std::mem::discriminant(&o.ask) == std::mem::discriminant(&ask);
        let oldest = (self.to_answer.len() >= LIMIT).then_some(0);
        if let Some(place) = self.to_answer.iter().position(same).or(oldest) {
            let given_up = self.to_answer.remove(place).id;
            self.effects.push(Effect::Reply { id: given_up, answer: Answer::NotYet });
        }
        self.to_answer.push(Open { id, from, ask, since: self.now });
    }

    /// Answers what can be answered. Whoever asks would ask again a little later: holding the question until what it is
    /// about has come to pass, for half the time that it may take, saves that pause.
    pub(super) fn answer_peers(&mut self) {
        for open in std::mem::take(&mut self.to_answer) {
            let Some(answer) = self.answer(open.id, &open.from, &open.ask) else { continue };
            if open.may_improve(&answer) && self.now.since(open.since) < self.timing.ask / 2 {
                self.to_answer.push(open);
            } else {
                self.effects.push(Effect::Reply { id: open.id, answer });
            }
        }
    }

    /// None: the executor answers.
    fn answer(&mut self, id: AskId, from: &MemberName, ask: &Ask) -> Option<Answer> {
        Some(match ask {
            Ask::Pledge { term } => self.answer_pledge(term),
            Ask::Store { term } => self.answer_store(term),
            Ask::Vouch { epoch, nonce, .. } => match self.my_id() {
                Some(member) if self.record.promised.as_ref() == Some(epoch) => {
                    Answer::Vouched { member, nonce: *nonce }
                }
                Some(_) => self.refuse("that epoch is not what this member promised last"),
                None => Answer::NotYet,
            },
            Ask::Canvass { epoch } => self.answer_canvass(epoch),
            Ask::Recall {} => self.answer_recall(),
            Ask::Attach { epoch, member, position } => {
                if member.name != *from {
                    return Some(self.refuse("a member asks for itself only"));
                }
                return self.admit(id, epoch, member.clone(), *position);
            }
        })
    }

    fn goes_by(&self, term: &Term) -> bool {
        self.record.head_id() == term.head() && self.record.promised.as_ref() == Some(&term.epoch)
    }

    fn answer_pledge(&self, term: &Term) -> Answer {
        if !self.goes_by(term) || term.phase != Phase::Recruiting {
            return self.refuse("this member has promised a later epoch, or may not obey that term");
        }
        let unattached = self.record.unattached.clone();
        match self.my_id() {
            // The position counts only once nothing is received any more: that is what makes the promise one.
            Some(me) => Answer::Pledged { member: Some(me), position: self.my_position(), unattached },
            None if self.volume_is_empty() => Answer::Pledged { member: None, position: None, unattached },
            None => Answer::NotYet,
        }
    }

    fn answer_store(&self, term: &Term) -> Answer {
        if !self.goes_by(term) {
            return self.refuse("this member has acted on a later change, or may not obey that term");
        }
        let mut former = self.record.former.clone();
        let Some(me) = self.my_id() else {
            // Half-made data is nobody's any more; that it keeps to this term is as sure as before.
            former.extend(self.record.incarnation.clone());
            return if self.volume_is_empty() { Answer::Stored { member: None, former } } else { Answer::NotYet };
        };
        let earlier_leader_gone = self.settled()
            && match self.server() {
                Server::Down => true,
                Server::Standby { following: None, receiving, .. } => !receiving,
                Server::Standby { following: Some(epoch), .. } => *epoch == term.epoch,
                Server::Busy | Server::Primary { .. } => false,
            };
        if earlier_leader_gone { Answer::Stored { member: Some(me), former } } else { Answer::NotYet }
    }

    pub(super) fn volume_is_empty(&self) -> bool {
        self.local.as_ref().is_some_and(|l| matches!(l.data, crate::Data::Empty | crate::Data::HalfMade))
    }

    /// A member wants to follow: the executor looks at its log, makes its slot and answers.
    fn admit(
        &mut self,
        id: AskId,
        epoch: &pgconvoy_terms::Epoch,
        member: MemberId,
        position: Option<Position>,
    ) -> Option<Answer> {
        let Some(term) = &self.record.head else { return Some(Answer::NotYet) };
        let leading = term.epoch == *epoch && term.leader.as_ref().is_some_and(|l| self.is_me(l));
        if !leading {
            return Some(self.refuse("this member does not lead that epoch"));
        }
        let Server::Primary { epoch: now, streams, .. } = self.server() else { return Some(Answer::NotYet) };
        if now != epoch || (!self.spec.roster.contains(&member.name) && position.is_none()) {
            return Some(Answer::NotYet);
        }
        let near = streams.iter().find(|s| s.caught_up && s.member.name != member.name);
        let from = near.map_or(&self.me, |s| &s.member.name).clone();
        self.effects.push(Effect::Admit { id, epoch: epoch.clone(), member, position, from });
        None
    }

    pub(super) fn refuse(&self, why: &str) -> Answer {
        Answer::Refused {
            why: why.to_owned(),
            head: self.record.head_id().cloned(),
            promised: self.record.promised.clone(),
        }
    }
}
