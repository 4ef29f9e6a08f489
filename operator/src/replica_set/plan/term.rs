//! The PgTerm: making it, and telling when it is lost or is not what the members go by.

use super::{Action, Kind, Plan, Planner, Standing, data, rule_of};
use crate::replica_set::problem::Problem;
use pgconvoy_crds::MemberState;
use pgconvoy_crds::conditions::reasons;

/// What a member says that goes by another PgTerm.
fn term_trouble(state: &MemberState) -> Option<&str> {
    let ours = [reasons::TERM_ROLLED_BACK, reasons::TERM_FOREIGN];
    ours.contains(&state.reason.as_deref()?).then(|| state.message.as_deref().unwrap_or_default())
}

/// The epoch that the set was in when its term was lost, if it was: what runs goes on in it.
pub fn lost_in(plan: &Plan) -> Option<i64> {
    plan.problems.iter().find_map(|p| match p {
        Problem::TermLost { epoch, .. } => Some(*epoch),
        _ => None,
    })
}

impl Planner<'_> {
    /// Looks at the PgTerm. Returns whether pods may be made.
    pub(super) fn term(&mut self) -> bool {
        let name = &self.set.name;
        match self.standing(Kind::Term, name) {
            Standing::Busy => return false,
            Standing::Absent => {
                // Beside data nobody may begin anew.
                let lost = self.known_epoch() > 0;
                let again = lost || self.set.spec.adopt().is_some();
                self.plan.actions.push(Action::Create(data::term(self.set, again)));
                if lost {
                    self.plan.problems.push(self.term_lost());
                }
                return true;
            }
            Standing::Ours(_) => {}
        }
        let made_for = self.observed.term(name).and_then(|t| t.spec.as_ref().ok()).map(|s| s.set_uid.clone());
        if let Some(set_uid) = made_for.filter(|u| *u != self.set.uid) {
            self.plan.problems.push(Problem::ForeignTerm { name: name.clone(), set_uid });
            return false;
        }
        match rule_of(self.set, self.observed) {
            Ok(rule) if rule.epoch == 0 && self.known_epoch() > 0 => self.plan.problems.push(self.term_lost()),
            Ok(rule) => {
                let trouble = self.observed.present_states().find_map(term_trouble);
                if let Some(message) = trouble {
                    self.plan.problems.push(Problem::TermRolledBack { message: message.to_owned() });
                }
                self.plan.rule = rule;
            }
            Err(problem) => self.plan.problems.push(problem),
        }
        true
    }

    /// The greatest epoch that the set is known to have been in.
    fn known_epoch(&self) -> i64 {
        let members = self.observed.present_states().filter_map(|s| s.epoch);
        members.chain(self.observed.status.epoch).max().unwrap_or(0)
    }

    fn term_lost(&self) -> Problem {
        Problem::TermLost { name: self.set.name.clone(), epoch: self.known_epoch() }
    }
}
