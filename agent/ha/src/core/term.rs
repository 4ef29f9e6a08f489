//! The register: reading it, judging whether it may be obeyed, changing it.

use super::Core;
use crate::{Effect, Instant, Register};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, MemberId, MemberName, Phase, Term};

impl Core {
    /// Takes in the register as it was read.
    pub(super) fn see_register(&mut self, register: Register, proof: Option<Instant>) {
        if self.register.as_ref().is_none_or(|r| r.term != register.term) {
            self.moved = self.now;
        }
        if proof.is_some() {
            self.register_at = proof;
        } else if self.register.as_ref() != Some(&register) {
            self.register_at = None;
        }
        if let Some(term) = register.term.clone() {
            self.consider(term);
        }
        // A peer may have told of a term before the watch, which may be late, has brought it.
        let newest = register.term.as_ref().and_then(Term::head);
        if proof.is_none() && self.record.head.is_some() && newest != self.record.head_id() {
            self.read();
        }
        self.register = Some(register);
        // A quorum read that shows the epoch unchanged proves that no later one had been opened when it was sent.
        if let (Some(sent), true) = (proof, self.register_is_mine()) {
            self.prove(sent);
        }
    }

    fn register_is_mine(&self) -> bool {
        let seen = self.register.as_ref().and_then(|r| r.term.as_ref());
        match (&self.record.head, seen) {
            (Some(mine), Some(seen)) => mine.epoch == seen.epoch && mine.head() == seen.head(),
            _ => false,
        }
    }

    /// Acts on a term, wherever it came from, if the descent rule allows it; stores it before anything else is done.
    pub(super) fn consider(&mut self, term: Term) {
        if let Some(mine) = &self.record.head {
            if mine.head() == term.head() {
                // The same change. What it says only goes forward: Elected to Active, two rules to one.
                let ahead =
                    term.phase > mine.phase || (term.phase == mine.phase && term.rules.len() < mine.rules.len());
                if !ahead {
                    return;
                }
            } else if !term.descends_from(mine.head()) {
                return;
            }
        }
        if self.record.promised.as_ref().is_none_or(|p| p.number <= term.epoch.number) {
            if self.record.promised.as_ref() != Some(&term.epoch) {
                // A new epoch: what was collected for an earlier one is void.
                self.vouch = super::lead::Vouch::default();
                self.canvass = super::canvass::Canvass::default();
                self.pledges.clear();
                self.dataless.clear();
                self.unattached = super::unattached::Said::default();
                self.sealed_since = None;
                self.admission = None;
                self.note_unattached(&term);
            }
            self.record.promised = Some(term.epoch.clone());
        }
        // A change of the term is a sign of life; the wait for the next begins anew.
        self.heard = self.now;
        if term.phase == Phase::Active && self.record.head.as_ref().is_none_or(|h| h.phase != Phase::Active) {
            self.activated = Some((term.epoch.clone(), self.now));
            self.tell_who_leads(&term);
        }
        if term.phase == Phase::Recruiting && self.my_open.as_ref() == term.head() {
            self.opened = self.now;
            if term.epoch.number > 1 {
                let message = format!("{} opens epoch {}: {}", self.me, term.epoch.number, self.opening);
                self.tell("EpochOpened", message);
            }
        }
        self.forget_notes(&term);
        self.record.head = Some(term);
        self.record_at = self.now;
        self.persist();
    }

    /// The new leader tells it, for everybody.
    fn tell_who_leads(&mut self, term: &Term) {
        if !term.leader.as_ref().is_some_and(|l| self.is_me(l)) {
            return;
        }
        let number = term.epoch.number;
        let mut message = match term.epoch_before() {
            None => format!("{} leads epoch {number}, the first", self.me),
            Some(last) if last.leader.name == self.me => format!("{} leads again, in epoch {number}", self.me),
            Some(last) => {
                format!("{} leads epoch {number}, after {} in epoch {}", self.me, last.leader.name, last.epoch.number)
            }
        };
        if term.history.last().is_some_and(|f| f.epoch == term.epoch && f.lossy) {
            message
                .push_str(". Commits acknowledged last may be missing: members that may hold them could not be asked");
        }
        self.tell("LeaderChanged", message);
    }

    /// A swap may be tried: nothing is under way, and the register is known to hold what this member goes by.
    fn base(&mut self) -> Option<String> {
        if self.swapping.is_some_and(|since| self.now.since(since) < super::CALL_LIMIT) {
            return None;
        }
        let register = self.register.as_ref()?;
        let same = match (&self.record.head, &register.term) {
            (None, None) => true,
            (Some(mine), Some(seen)) => mine.head() == seen.head(),
            _ => false,
        };
        if !same {
            // A peer told of a newer term than the watch has brought yet.
            self.read();
            return None;
        }
        Some(register.version.clone())
    }

    /// Tries to make `term` the register's content; `true` if the attempt is under way.
    pub(super) fn swap(&mut self, term: Term) -> bool {
        let Some(version) = self.base() else { return false };
        self.swapping = Some(self.now);
        self.effects.push(Effect::Swap { version, term });
        true
    }

    pub(super) fn new_id(&mut self) -> ChangeId {
        ChangeId::from_random(self.random.next())
    }

    pub(super) fn note_stored(&mut self, from: &MemberName, member: Option<MemberId>, former: &[Incarnation]) {
        if self.stored.about.as_ref() == self.record.head_id() {
            let id = |incarnation: &Incarnation| MemberId { name: from.clone(), incarnation: incarnation.clone() };
            self.stored.members.extend(former.iter().map(id).chain(member));
        }
    }

    /// This member has stored it, as everything that it acts on.
    pub(super) fn note_stored_here(&mut self, me: &MemberId) {
        let former = self.record.former.clone();
        self.note_stored(&me.name, Some(me.clone()), &former);
    }

    /// A peer does not go along. If it knows more than we do, we must read the register again.
    pub(super) fn hear_refusal(
        &mut self,
        from: &pgconvoy_terms::MemberName,
        why: &str,
        head: Option<&ChangeId>,
        promised: Option<&Epoch>,
    ) {
        let known = |h: &ChangeId| self.record.head.as_ref().is_some_and(|t| t.chain.contains(h));
        let later = promised.is_some_and(|p| self.record.promised.as_ref().is_none_or(|m| p.number > m.number));
        self.elsewhere |= head.is_some_and(|h| !known(h));
        if later || head.is_some_and(|h| !known(h)) {
            self.read();
        } else {
            self.alarm("PeerRefused", format!("{from} refuses: {why}"));
        }
    }
}
