//! Giving up a rule that cannot be sealed: by the clock where the user chose to acknowledge without a quorum (W = 0), and
//! by a person's decision otherwise. Commits acknowledged under it may then be missing, and the term says so.

use super::Core;
use super::open::PATIENCE;
use crate::Effect;
use pgconvoy_terms::{Phase, Rule, Term};

/// How much longer than a leader may serve without proof its rule (W = 0) is waited for, in milliseconds: killing takes time.
const KILLING: u64 = 1_000;
/// How long a leader that has promised, but recovers and cannot tell its position yet, is waited for, in milliseconds. Short:
/// what it acknowledged last is given up. Long: writes wait as long.
const RECOVERY: u64 = 60_000;
/// How long pledges are collected when a person gave up all rules, in milliseconds: whoever has most is to lead.
const GATHERING: u64 = 5_000;

impl Core {
    /// Whether the clock is all that keeps a leader under this term from serving on beside a later one.
    pub(super) fn clock_bound(term: &Term) -> bool {
        term.rules.iter().any(|r| r.acknowledgements == 0 && !r.followers.is_empty())
    }

    /// Whether the leader under this rule has been dead, or without permission, for certain since this member opened the epoch.
    ///
    /// It serves for `proof` + `ask` after the last question that proved its epoch, and its supervisor kills PostgreSQL then. Any
    /// such question was asked before this epoch was opened: afterwards the term says otherwise, and one of the rule's
    /// followers, this member, has promised another epoch and vouches no more, while under W = 0 all of them must.
    pub(super) fn lapsed(&self, term: &Term, rule: &Rule) -> bool {
        if rule.acknowledgements > 0 || self.my_open.as_ref() != Some(&term.epoch.id) {
            return false;
        }
        let open_for = self.now.since(self.opened);
        let mine = self.is_me(&rule.leader);
        if !mine && !rule.followers.iter().any(|f| self.is_me(f)) {
            return false;
        }
        let recovers = mine || matches!(self.pledges.get(&rule.leader), Some(None));
        let serves_for = self.timing.proof + self.timing.ask + KILLING;
        open_for >= if recovers { RECOVERY } else { serves_for }
    }

    /// Whether a person gave up all rules and those who are left may still want to say what they have.
    pub(super) fn gathering(&self, term: &Term) -> bool {
        term.rules.is_empty() && !term.history.is_empty() && self.now.since(self.opened) < GATHERING
    }

    /// A person's takeover of this epoch, if there is one.
    pub(super) fn ask_to_take_over(&mut self, epoch: Option<(u32, bool)>) {
        self.taking_over = epoch;
    }

    /// Whether a person ended what stands in the way of this term. The decision holds for the epoch that it names and for
    /// those opened since that did not become active: they changed nothing of what it is about. If so, whether the rules are given up.
    pub(super) fn given_up(&self, term: &Term) -> Option<bool> {
        let (_, accept_loss) = self.taking_over.filter(|(number, _)| term.none_active_since(*number))?;
        let counts = !term.history.is_empty()
            && !term.rules.is_empty()
            && self.my_id().is_some()
            && self.spec.roster.contains(&self.me);
        counts.then_some(accept_loss)
    }

    /// Ends an epoch for a person: by its rules, or giving those up. Only while no leader with a quorum is heard, and not while an
    /// election may still come out without.
    pub(super) fn take_over(&mut self, term: &Term) {
        let Some(accept_loss) = self.given_up(term) else { return };
        let mine = term.leader.as_ref().is_some_and(|l| self.is_me(l));
        match term.phase {
            Phase::Active if !self.hears_a_leader(term) => {}
            Phase::Active => {
                // The leader itself says so; the others keep still.
                if mine {
                    self.taking_over = None;
                    let why = format!(
                        "{} leads epoch {} and acknowledges writes, so there is nothing to take over; a switchover moves leadership",
                        self.me, term.epoch.number
                    );
                    self.effects.push(Effect::RefuseRequest { why });
                }
                return;
            }
            Phase::Elected if mine && !self.stalled() => return,
            Phase::Recruiting | Phase::Elected => {
                if self.now.since(self.moved) < PATIENCE {
                    return;
                }
            }
        }
        if !accept_loss && Self::clock_bound(term) {
            self.taking_over = None;
            let why = format!(
                "in epoch {} nobody but the leader need have what was acknowledged, so commits may be lost without it: \
                 say --accept-loss, or bring the leader back",
                term.epoch.number
            );
            self.effects.push(Effect::RefuseRequest { why });
            return;
        }
        let number = term.epoch.number;
        let why = if accept_loss {
            format!("a person gave up epoch {number} and what only members that are gone may hold of it")
        } else {
            format!("a person ended epoch {number}, whose leader is gone")
        };
        self.open_without(Some(term), why, accept_loss);
    }
}
