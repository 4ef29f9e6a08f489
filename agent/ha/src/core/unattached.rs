//! Data that followed nobody in an epoch: it acknowledged nothing in it, so that epoch's rule is what it would be without it.
//!
//! A follower that is rewound or copied anew when its leader is lost for good does not know how much log it holds, and never
//! will. But where it is known that it was never attached in the leader's epoch, nobody need know: see `docs/failover.md`,
//! *Who never attached*. A note about that is on disk from the promise of the epoch on (nobody attaches before), and is taken
//! back on disk before PostgreSQL is told to follow. Everything that loses a note is safe.

use super::Core;
use crate::Unattached;
use pgconvoy_terms::{Epoch, Incarnation, MemberId, MemberName, Term};
use std::collections::BTreeSet;

/// How many notes a member keeps, and is believed, at most. Few: of more epochs in a row that did not become active than this, the
/// oldest is not known about. Many: records and answers grow.
const LIMIT: usize = 64;

/// What members said of the data that is or was on their volumes.
#[derive(Debug, Default)]
pub(super) struct Said(Vec<(MemberId, Epoch)>);

impl Said {
    /// Takes in what one member says of itself.
    pub(super) fn hear(&mut self, from: &MemberName, notes: &[Unattached]) {
        for note in notes.iter().take(LIMIT) {
            let member = MemberId { name: from.clone(), incarnation: note.incarnation.clone() };
            let said = (member, note.epoch.clone());
            if !self.0.contains(&said) {
                self.0.push(said);
            }
        }
    }

    /// Who never followed anybody in this very epoch.
    pub(super) fn in_epoch(&self, epoch: &Epoch) -> BTreeSet<MemberId> {
        self.0.iter().filter(|(_, e)| e == epoch).map(|(m, _)| m.clone()).collect()
    }
}

impl Core {
    /// To be called before a later epoch than all so far is promised: in it, and in those that were missed in between, the data
    /// that is here never followed anybody, because nobody follows in an epoch before it is promised.
    pub(super) fn note_unattached(&mut self, term: &Term) {
        let Some(number) = self.record.promised.as_ref().map(|p| p.number) else { return };
        let names: Vec<_> = self.record.former.iter().chain(&self.record.incarnation).cloned().collect();
        for epoch in term.rules.iter().map(|r| &r.epoch).chain([&term.epoch]).filter(|e| e.number > number) {
            let note = |incarnation| Unattached { incarnation, epoch: epoch.clone() };
            self.record.unattached.extend(names.iter().cloned().map(note));
        }
    }

    /// A copy is complete: this data has not followed anybody yet, and what was there before never will again.
    pub(super) fn note_new_data(&mut self, incarnation: &Incarnation, before: Option<Incarnation>) {
        self.record.former.extend(before);
        if let Some(epoch) = self.record.promised.clone() {
            self.record.unattached.push(Unattached { incarnation: incarnation.clone(), epoch });
        }
    }

    /// Takes back what would not be true any more once the data that is here follows, or leads, in this epoch. On disk before.
    pub(super) fn note_attached(&mut self, epoch: &Epoch) {
        let before = self.record.unattached.len();
        let mine = self.record.incarnation.clone();
        self.record.unattached.retain(|u| u.epoch != *epoch || Some(&u.incarnation) != mine.as_ref());
        if self.record.unattached.len() != before {
            self.persist();
        }
    }

    /// Forgets what no rule can ask for any more.
    pub(super) fn forget_notes(&mut self, term: &Term) {
        let promised = self.record.promised.clone();
        let id = |incarnation: &Incarnation| MemberId { name: self.me.clone(), incarnation: incarnation.clone() };
        self.record.former.retain(|i| term.rules.iter().any(|r| r.contains(&id(i))));
        let notes = &mut self.record.unattached;
        notes.retain(|u| Some(&u.epoch) == promised.as_ref() || term.rules.iter().any(|r| r.epoch == u.epoch));
        let excess = notes.len().saturating_sub(LIMIT);
        notes.drain(..excess);
    }
}
