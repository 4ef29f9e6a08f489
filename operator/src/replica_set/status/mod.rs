//! What is told to the user. Pure; nothing in it changes by itself.

mod archiving;
mod conditions;
mod copies;
mod waiting;

pub use waiting::{Waiting, waiting_for};

use super::observed::{Observed, Rule};
use super::plan::{self, Plan, RollOut, attached};
use super::problem::Problem;
use super::validate::Validated;
use conditions::{Verdict, merge};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgconvoy_crds::conditions::{CONFIGURED, READY, RECONCILING, STALLED, reasons};
use pgconvoy_crds::{DurabilityMode, LastFailover, MemberPhase, MemberState, PgReplicaSetStatus, names};
use pgconvoy_terms::MemberName;
use std::collections::BTreeSet;

/// What to do about pods that do not have everything that the spec asks for.
const DELETE_PODS: &str = "delete these pods one at a time, the leader's last, each once the set is Ready again; they are \
                           made anew as the spec asks, on their volumes";

/// The operator's part of the status.
pub fn status(set: &Validated, observed: &Observed, plan: &Plan, now: Timestamp) -> PgReplicaSetStatus {
    let before = &observed.status;
    let view = View::new(set, observed, plan);
    let rule = &plan.rule;
    let verdicts = view.verdicts();
    let mut leader = rule.leader.as_ref().filter(|_| rule.active).map(ToString::to_string);
    if plan::lost_in(plan).is_some() {
        // Whoever leads goes on; nobody else can.
        leader.clone_from(&before.leader);
    }
    let leader_state = before.member_states.iter().find(|s| Some(&s.name) == leader.as_ref());
    // A PgTerm that is lost or cannot be read does not make the set forget its epoch.
    let epoch = Some(rule.epoch).filter(|e| *e > 0).or(before.epoch);
    PgReplicaSetStatus {
        observed_generation: Some(set.generation),
        conditions: merge(&before.conditions, verdicts, set.generation, now),
        roster: plan::roster::names(&plan.roster),
        members: i32::try_from(view.attached.len()).ok(),
        ready: Some(format!("{}/{}", view.attached.len(), set.members)),
        leader,
        epoch,
        last_failover: last_failover(before, rule, now),
        durability: durability(set, rule),
        selector: Some(set.selector()),
        system_id: leader_state.and_then(|s| s.system_id.clone()).or_else(|| before.system_id.clone()),
        member_states: vec![],
    }
}

/// The last change of the leader: what was written down before, until another leader is active.
fn last_failover(before: &PgReplicaSetStatus, rule: &Rule, now: Timestamp) -> Option<LastFailover> {
    let known = before.last_failover.clone();
    let (true, Some(from), Some(to)) = (rule.active, &rule.before, &rule.leader) else { return known };
    if from == to || known.as_ref().is_some_and(|k| k.epoch == rule.epoch) {
        return known;
    }
    let (from, to) = (from.to_string(), to.to_string());
    Some(LastFailover { epoch: rule.epoch, from, to, at: Time(now), lossy: rule.lossy })
}

/// What a commit waits for now. `async` is only said of a set that asks for it: with a single member, or while followers
/// are still to come, nobody else holds a commit, but nobody gave that up either.
fn durability(set: &Validated, rule: &Rule) -> Option<String> {
    let w = rule.acknowledgements;
    (rule.rules > 0).then(|| match set.spec.durability.as_ref().and_then(|d| d.mode) {
        _ if degraded(set, rule) && w > 0 => format!("degraded {w}/{}", rule.followers),
        _ if degraded(set, rule) => "degraded: leader only".to_owned(),
        _ if w > 0 => format!("quorum {w}/{}", rule.followers),
        Some(DurabilityMode::Async) => "async".to_owned(),
        _ => "leader only".to_owned(),
    })
}

/// Whether the leader serves although fewer followers acknowledge than asked for, because the user prefers that.
fn degraded(set: &Validated, rule: &Rule) -> bool {
    set.spec.degrades() && rule.active && rule.acknowledgements < set.spec.acknowledgements()
}

/// The status of a set whose spec cannot be used: what was known stays, the conditions say why.
pub fn invalid(before: &PgReplicaSetStatus, problem: &Problem, generation: i64, now: Timestamp) -> PgReplicaSetStatus {
    let verdict = |type_, holds| Verdict { type_, holds, reason: problem.reason(), message: problem.to_string() };
    let verdicts =
        vec![verdict(READY, false), verdict(RECONCILING, false), verdict(STALLED, true), verdict(CONFIGURED, false)];
    PgReplicaSetStatus {
        observed_generation: Some(generation),
        conditions: merge(&before.conditions, verdicts, generation, now),
        member_states: vec![],
        ..before.clone()
    }
}

/// Whether the status that is there says all of `wanted` already. What the agents say of themselves does not count.
pub fn says(there: &PgReplicaSetStatus, wanted: &PgReplicaSetStatus) -> bool {
    PgReplicaSetStatus { member_states: vec![], ..there.clone() } == *wanted
}

/// With failover by hand: what members say that a person must decide. What the first of them says, so that the text rests.
fn left_to_person(observed: &Observed) -> Option<String> {
    let says = |s: &&MemberState| s.reason.as_deref() == Some(reasons::WAITS_FOR_TAKEOVER);
    observed.present_states().filter(says).min_by(|a, b| a.name.cmp(&b.name))?.message.clone()
}

struct View<'a> {
    set: &'a Validated,
    observed: &'a Observed,
    plan: &'a Plan,
    attached: BTreeSet<&'a MemberName>,
    waiting: Vec<Waiting>,
    copies_lost: Option<String>,
    left_to_person: Option<String>,
}

impl<'a> View<'a> {
    fn new(set: &'a Validated, observed: &'a Observed, plan: &'a Plan) -> Self {
        let attached: BTreeSet<_> = attached(observed, plan).collect();
        let missing = plan.roster.iter().filter(|m| !attached.contains(m));
        // A volume in the way says all about its member.
        let blocked = |m: &MemberName| {
            plan.problems.iter().any(|p| matches!(p, Problem::ForeignVolumes { members, .. } if members.contains(m)))
        };
        let waiting = missing.filter(|m| !blocked(m)).map(|m| waiting_for(observed, plan, m)).collect();
        let copies_lost = copies::lost(set, observed, plan);
        Self { set, observed, plan, attached, waiting, copies_lost, left_to_person: left_to_person(observed) }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let ready = self.ready();
        let stalled = self.stalled();
        let reconciling = self.reconciling(&ready, &stalled);
        let configured = self.configured(&ready);
        let archiving = archiving::archiving(self.observed, &self.plan.rule);
        [ready, reconciling, stalled, configured].into_iter().chain(archiving).collect()
    }

    fn ready(&self) -> Verdict {
        let not = |reason, message| Verdict { type_: READY, holds: false, reason, message };
        let (n, wanted) = (self.attached.len(), self.set.members);
        let rule = &self.plan.rule;
        if let Some(problem) = self.plan.problems.iter().find(|p| !matches!(p, Problem::Shrinks { .. })) {
            return not(problem.reason(), problem.to_string());
        }
        // What a person must mend is told first.
        let worst = self.waiting.iter().find(|w| w.stalls).or_else(|| {
            self.waiting.iter().find(|w| w.reason != reasons::MEMBERS_STARTING).or_else(|| self.waiting.first())
        });
        if let Some(text) = &self.copies_lost {
            return not(reasons::COPIES_LOST, text.clone());
        }
        if let Some(text) = &self.left_to_person {
            return not(reasons::WAITS_FOR_TAKEOVER, text.clone());
        }
        if let Some(text) = self.degraded() {
            return not(reasons::DEGRADED, text);
        }
        if let Some(w) = worst {
            let others = match self.waiting.len() - 1 {
                0 => String::new(),
                1 => ", and for 1 more".to_owned(),
                more => format!(", and for {more} more"),
            };
            let message = format!("{n} of {wanted} members are attached; waiting for {}: {}{others}", w.member, w.text);
            let reason = if rule.epoch > 0 && !rule.active && w.reason == reasons::MEMBERS_STARTING {
                reasons::NO_LEADER
            } else {
                w.reason
            };
            return not(reason, message);
        }
        let Some(leader) = rule.leader.as_ref().filter(|_| rule.active) else {
            return not(reasons::NO_LEADER, format!("no leader is active in epoch {}", rule.epoch));
        };
        let w = self.set.spec.acknowledgements();
        if rule.rules > 1 {
            return not(
                reasons::WAITING_FOR_FOLLOWERS,
                "a change of the rule is being confirmed by the followers".to_owned(),
            );
        }
        if rule.acknowledgements != w {
            let message = format!("commits wait for {} followers, {w} are asked for", rule.acknowledgements);
            return not(reasons::WAITING_FOR_FOLLOWERS, message);
        }
        if let Some(outside) = self.plan.roster.iter().find(|m| !rule.members.contains(m)) {
            let message = format!("waiting until {outside} counts for commits");
            return not(reasons::WAITING_FOR_FOLLOWERS, message);
        }
        let mut message = match wanted {
            1 => format!("{leader} serves clients in epoch {}", rule.epoch),
            _ => format!("all {wanted} members are attached in epoch {}; {leader} leads", rule.epoch),
        };
        if let Some(warning) = self.doomed() {
            message.push_str(&warning);
        }
        Verdict { type_: READY, holds: true, reason: reasons::ALL_MEMBERS_ATTACHED, message }
    }

    /// That the leader acknowledges with fewer followers than asked for.
    fn degraded(&self) -> Option<String> {
        let rule = &self.plan.rule;
        let leader = rule.leader.as_ref().filter(|_| degraded(self.set, rule))?;
        // Before it lets clients in, nothing is acknowledged.
        self.observed.pod(&leader.to_string()).filter(|p| p.agent.ready)?;
        let asked = self.set.spec.acknowledgements();
        let who = match rule.acknowledgements {
            0 => format!("{leader} acknowledges commits alone: if it is lost now, so are they"),
            n => format!("commits wait for {n} followers, {asked} are asked for"),
        };
        let missing: Vec<_> = self.waiting.iter().map(|w| format!("{}: {}", w.member, w.text)).collect();
        let why = if missing.is_empty() { String::new() } else { format!(" ({})", missing.join("; ")) };
        Some(format!("{who}. It ends by itself once {asked} of the followers have caught up{why}"))
    }

    /// That claims were deleted under members whose pods run: Kubernetes keeps them for as long.
    fn doomed(&self) -> Option<String> {
        let deleting = |m: &&MemberName| self.observed.claim(&names::data_claim(m)).is_some_and(|c| c.meta.deleting);
        let members: Vec<String> = self.plan.roster.iter().filter(deleting).map(ToString::to_string).collect();
        (!members.is_empty()).then(|| {
            format!(
                "; but the volume claim of {} was deleted: its data goes when its pod does, and is then copied anew from another \
                 member where there is one",
                members.join(", ")
            )
        })
    }

    fn stalled(&self) -> Verdict {
        let stalled = |reason, message| Verdict { type_: STALLED, holds: true, reason, message };
        if let Some(problem) = self.plan.problems.iter().find(|p| p.stalls()) {
            return stalled(problem.reason(), problem.to_string());
        }
        if let Some(text) = &self.copies_lost {
            return stalled(reasons::COPIES_LOST, text.clone());
        }
        if let Some(text) = &self.left_to_person {
            return stalled(reasons::WAITS_FOR_TAKEOVER, text.clone());
        }
        if let Some(w) = self.waiting.iter().find(|w| w.stalls) {
            return stalled(w.reason, format!("{}: {}", w.member, w.text));
        }
        Verdict { type_: STALLED, holds: false, reason: reasons::NONE, message: "nothing needs a person".to_owned() }
    }

    fn reconciling(&self, ready: &Verdict, stalled: &Verdict) -> Verdict {
        let verdict = |holds, reason, message| Verdict { type_: RECONCILING, holds, reason, message };
        if stalled.holds {
            return verdict(false, stalled.reason, "a person is needed, see Stalled".to_owned());
        }
        if !ready.holds {
            return verdict(true, ready.reason, ready.message.clone());
        }
        if !self.plan.leaving.is_empty() {
            let names: Vec<_> = self.plan.leaving.iter().map(ToString::to_string).collect();
            let message = format!("{} leaves the set: first the rule, then its pod goes", names.join(", "));
            return verdict(true, reasons::SCALING_DOWN, message);
        }
        if let Some(rolling) = self.rolling_out() {
            return verdict(true, reasons::ROLLING_OUT, rolling);
        }
        verdict(false, reasons::NONE, "the set is as its spec asks".to_owned())
    }

    /// What a roll-out does, if there is one that goes on by itself.
    fn rolling_out(&self) -> Option<String> {
        let now = |roll_out: &RollOut| match roll_out {
            RollOut::Done | RollOut::ByHand(_) => None,
            RollOut::Now(member) => Some(format!("{member} is next")),
            RollOut::Waiting(what) => Some(format!("it waits {what}")),
        };
        let pods = now(&self.plan.roll_out)
            .map(|now| format!("pods are made anew one at a time, followers first, the leader last: {now}"));
        let agents = || {
            now(&self.plan.agents).map(|now| {
                format!(
                    "agents are replaced in place one at a time, the leader's last, while PostgreSQL runs on: {now}"
                )
            })
        };
        pods.or_else(agents)
    }

    fn configured(&self, ready: &Verdict) -> Verdict {
        let not = |reason, message| Verdict { type_: CONFIGURED, holds: false, reason, message };
        let mut states: Vec<&MemberState> = self.observed.present_states().collect();
        // The order of entries is that of their first writing.
        states.sort_by_key(|s| s.name.parse::<MemberName>().ok());
        let refused = states.iter().find_map(|s| Some((s, s.configuration_error.as_ref()?)));
        if let Some((state, error)) = refused {
            let goes_on = match state.state {
                Some(MemberPhase::Attached) => " (it goes on with the last good one)",
                _ => "",
            };
            let message = format!("{}: PostgreSQL refuses the configuration of the spec{goes_on}: {error}", state.name);
            return not(reasons::CONFIGURATION_REFUSED, message);
        }
        if self.attached.is_empty() {
            return not(ready.reason, "no member runs by this spec yet, see Ready".to_owned());
        }
        if let Some(problem) = self.plan.problems.iter().find(|p| matches!(p, Problem::Shrinks { .. })) {
            return not(problem.reason(), problem.to_string());
        }
        let pending: BTreeSet<&str> =
            states.iter().flat_map(|s| s.pending_restart.iter().map(String::as_str)).collect();
        if let Some(rolling) = self.rolling_out() {
            let what = match pending.len() {
                0 if self.plan.outdated.is_empty() => "not every agent is this operator's".to_owned(),
                0 => "not every pod was made by this spec".to_owned(),
                _ => format!("a restart is needed for {}", pending.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            return not(reasons::ROLLING_OUT, format!("{what}; {rolling}"));
        }
        let by_hand = match &self.plan.roll_out {
            RollOut::ByHand(why) => format!("{why}, so this waits for you: {DELETE_PODS}"),
            _ => DELETE_PODS.to_owned(),
        };
        if !pending.is_empty() {
            let names: Vec<_> =
                states.iter().filter(|s| !s.pending_restart.is_empty()).map(|s| s.name.as_str()).collect();
            let pending: Vec<_> = pending.into_iter().collect();
            let message = format!(
                "a restart is needed for {} to take effect in {}; {by_hand}",
                pending.join(", "),
                names.join(", ")
            );
            return not(reasons::RESTART_REQUIRED, message);
        }
        if !self.plan.outdated.is_empty() {
            let names: Vec<_> = self.plan.outdated.iter().map(ToString::to_string).collect();
            let message = format!(
                "the pods of {} were made by an earlier spec or operator, with another image, resources or pod template; \
                 {by_hand}",
                names.join(", ")
            );
            return not(reasons::ROLLOUT_PENDING, message);
        }
        if let RollOut::ByHand(why) = &self.plan.agents {
            let message = format!("not every agent is this operator's; {why}, so this waits for you: {DELETE_PODS}");
            return not(reasons::ROLLOUT_PENDING, message);
        }
        Verdict {
            type_: CONFIGURED,
            holds: true,
            reason: reasons::IN_FORCE,
            message: "the whole spec is in force".to_owned(),
        }
    }
}
