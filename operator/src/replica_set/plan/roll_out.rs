//! Rolling out what needs new pods: one at a time, followers first, the leader last.

use super::{Action, Planner, attached};
use pgconvoy_crds::{MemberPhase, UpdateStrategy};
use pgconvoy_terms::MemberName;
use std::collections::{BTreeMap, BTreeSet};

/// How far a roll-out is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RollOut {
    /// There is nothing to roll out.
    #[default]
    Done,
    /// A member's turn is now.
    Now(MemberName),
    /// It goes on once this is over; a clause.
    Waiting(String),
    /// A person must do it; why, a clause.
    ByHand(String),
}

impl Planner<'_> {
    /// Plans the next step, if there is one.
    pub(super) fn roll_out(&mut self) {
        let due = self.due();
        if due.is_empty() {
            return;
        }
        self.plan.roll_out = match self.next(&due) {
            Ok(member) => {
                let leads = self.plan.rule.leader.as_ref() == Some(&member);
                let why = if leads {
                    "the spec asks for another pod or a restart; it hands over to a follower before it stops"
                } else {
                    "the spec asks for another pod or a restart"
                };
                let pods = self.pods();
                self.plan.actions.push(Action::Restart { member: member.clone(), pods, why: why.to_owned() });
                RollOut::Now(member)
            }
            Err(not) => not,
        };
    }

    /// Members whose pod must be made anew for everything in the spec to be in force.
    fn due(&self) -> BTreeSet<MemberName> {
        // One that starts may have begun with what was on its volume; its agent sees to that by itself.
        let restart = self
            .observed
            .present_states()
            .filter(|s| s.state == Some(MemberPhase::Attached) && !s.pending_restart.is_empty());
        let restart = restart.filter_map(|s| s.name.parse::<MemberName>().ok());
        let all = self.plan.outdated.iter().cloned().chain(restart);
        all.filter(|m| self.plan.roster.contains(m)).collect()
    }

    fn pods(&self) -> BTreeMap<String, String> {
        let members = self.observed.pods().filter(|(_, p)| p.meta.owner.as_ref() == Some(&self.set.uid));
        members.map(|(name, p)| (name.to_owned(), p.meta.uid.clone())).collect()
    }

    /// Nothing that replaces what runs goes on by itself where the user does it by hand.
    pub(super) fn may_act(&self) -> Result<(), RollOut> {
        match self.set.spec.update.as_ref().and_then(|u| u.strategy) {
            Some(UpdateStrategy::Manual) => Err(RollOut::ByHand("update.strategy is Manual".to_owned())),
            Some(UpdateStrategy::Automatic) | None => Ok(()),
        }
    }

    /// Whose pod is next.
    fn next(&self, due: &BTreeSet<MemberName>) -> Result<MemberName, RollOut> {
        let (plan, rule) = (&self.plan, &self.plan.rule);
        let waiting = |why: String| Err(RollOut::Waiting(why));
        self.may_act()?;
        if !rule.active || rule.rules != 1 {
            return waiting("until a leader is active".to_owned());
        }
        if !plan.leaving.is_empty() {
            return waiting("until the members that leave are gone".to_owned());
        }
        let missing = plan.roster.iter().find(|m| {
            let pod = self.observed.pod(&m.to_string());
            pod.is_none_or(|p| p.meta.deleting || p.ended())
        });
        if let Some(member) = missing {
            return waiting(format!("until {member} is back"));
        }
        let attached: BTreeSet<&MemberName> = attached(self.observed, plan).collect();
        let leads = |m: &MemberName| rule.leader.as_ref() == Some(m);
        // Whoever takes no part just now costs nothing.
        if let Some(idle) = due.iter().find(|m| !attached.contains(m) && !leads(m)) {
            return Ok(idle.clone());
        }
        if let Some(member) = plan.roster.iter().find(|m| !attached.contains(m)) {
            return waiting(format!("until {member} is attached"));
        }
        // While one is away, its followers or its successor must be enough for writes to go on.
        let others = plan.roster.len() - 1;
        if others > 0 && others < rule.acknowledgements as usize + 1 {
            return Err(RollOut::ByHand(format!(
                "writes stop while one of {} members is away, for each must confirm them",
                plan.roster.len()
            )));
        }
        due.iter().find(|m| !leads(m)).or_else(|| due.first()).cloned().ok_or(RollOut::Done)
    }
}
