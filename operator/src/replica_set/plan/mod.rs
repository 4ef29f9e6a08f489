//! From what is wanted and what is there to what must be done. Pure: no client, no clock, no random numbers.
//!
//! The plan holds *every* object that the set should have. What is already as it should be is left out where this can
//! be told from the observation alone; for objects that are kept by server-side apply, `apply` leaves it out.

mod access;
mod action;
mod agents;
mod archive;
mod containers;
mod data;
mod network;
mod pod;
mod roll_out;
pub mod roster;
mod term;

pub use action::{Action, Stage};
pub use roll_out::RollOut;
pub use roster::roster;
pub use term::lost_in;

use super::certificates::Material;
use super::observed::{Meta, Observed, PodSeen, Rule};
use super::problem::{ANNOTATION_SET_UID, ANNOTATION_SYSTEM_ID, Problem};
use super::validate::Validated;
use crate::kinds::{Kind, Object};
use crate::quantity;
use pgconvoy_crds::MemberPhase;
use pgconvoy_crds::conditions::reasons;
use pgconvoy_crds::names::{self, Service};
use pgconvoy_terms::MemberName;
use serde_json::json;
use std::collections::BTreeSet;

/// What must be done, and what is to be said about it.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The members that the set should have.
    pub roster: BTreeSet<MemberName>,
    /// The term, as far as it could be read.
    pub rule: Rule,
    /// What to do, stage by stage.
    pub actions: Vec<Action>,
    /// What is in the way.
    pub problems: Vec<Problem>,
    /// Members whose pods were made by an earlier spec.
    pub outdated: Vec<MemberName>,
    /// How far making them anew is.
    pub roll_out: RollOut,
    /// How far replacing agents in place is.
    pub agents: RollOut,
    /// Members that are to go and still take part.
    pub leaving: Vec<MemberName>,
}

/// The members that should have a pod now: the roster, and those that are leaving and still there.
pub fn wanted_members(set: &Validated, observed: &Observed) -> BTreeSet<MemberName> {
    let rule = rule_of(set, observed).unwrap_or_default();
    let mut members = roster(set, observed, &rule);
    members.extend(rule.members.iter().cloned());
    members
}

fn rule_of(set: &Validated, observed: &Observed) -> Result<Rule, Problem> {
    let Some(term) = observed.term(&set.name) else { return Ok(Rule::default()) };
    let unreadable = |why: &str| Problem::TermUnreadable { name: set.name.clone(), why: why.to_owned() };
    let spec = term.spec.as_ref().map_err(|e| unreadable(e))?;
    Rule::read(spec).map_err(|e| unreadable(&e))
}

/// Plans.
pub fn plan(set: &Validated, observed: &Observed, material: &Material) -> Plan {
    let mut p = Planner { set, observed, plan: Plan::default() };
    let pods_may_be_made = p.term();
    p.plan.roster = roster(set, observed, &p.plan.rule);
    p.shared(material);
    for member in wanted_members(set, observed) {
        p.member(&member, material, pods_may_be_made);
    }
    p.leaving();
    p.roll_out();
    p.agents();
    p.archive();
    p.roles();
    p.forget();
    p.plan.actions.sort_by_key(Action::stage);
    p.plan
}

struct Planner<'a> {
    set: &'a Validated,
    observed: &'a Observed,
    plan: Plan,
}

/// What to do about an object of which there may be one already.
enum Standing<'a> {
    Absent,
    Ours(&'a Meta),
    /// It is going, or belongs to an earlier set: hands off until it is gone.
    Busy,
}

impl<'a> Planner<'a> {
    fn standing(&mut self, kind: Kind, name: &str) -> Standing<'a> {
        let observed: &'a Observed = self.observed;
        let Some(meta) = observed.meta(kind, name) else { return Standing::Absent };
        if meta.belongs_to_another(&self.set.uid) {
            self.plan.problems.push(Problem::InTheWay { kind, name: name.to_owned() });
            return Standing::Busy;
        }
        if meta.deleting { Standing::Busy } else { Standing::Ours(meta) }
    }

    fn create(&mut self, object: Object) {
        if matches!(self.standing(object.kind, &object.name), Standing::Absent) {
            self.plan.actions.push(Action::Create(object));
        }
    }

    fn apply(&mut self, object: Object) {
        if !matches!(self.standing(object.kind, &object.name), Standing::Busy) {
            self.plan.actions.push(Action::Apply(object));
        }
    }

    fn shared(&mut self, material: &Material) {
        let set = self.set;
        self.create(data::lease(set));
        for object in access::access(set) {
            self.apply(object);
        }
        self.apply(data::passwd(set));
        if let Some((certificate, key)) = &material.authority {
            self.create(data::authority(set, certificate, key));
        }
        if let Some(password) = &material.password {
            self.create(data::application(set, password));
        }
        for which in Service::ALL {
            self.apply(network::service(set, which));
            self.create(network::slice(set, which));
        }
        match network::budget(set) {
            Some(budget) => self.apply(budget),
            None => {
                if let Standing::Ours(meta) = self.standing(Kind::Budget, &set.name) {
                    self.plan.actions.push(Action::Delete {
                        kind: Kind::Budget,
                        name: set.name.clone(),
                        uid: meta.uid.clone(),
                        why: "a single member needs no disruption budget".to_owned(),
                    });
                }
            }
        }
    }

    fn member(&mut self, member: &MemberName, material: &Material, may_be_made: bool) {
        let certified = self.certificates(member, material);
        let volume = self.claim(member);
        let name = member.to_string();
        match self.standing(Kind::Pod, &name) {
            Standing::Busy => {}
            Standing::Absent => {
                if may_be_made && volume && certified {
                    self.plan.actions.push(Action::Create(pod::pod(self.set, member, self.archive_fingerprint())));
                }
            }
            Standing::Ours(meta) => {
                let uid = meta.uid.clone();
                let Some(seen) = self.observed.pod(&name) else { return };
                if seen.ended() {
                    let why = seen.failure.clone().unwrap_or_else(|| format!("it ended as {}", seen.phase));
                    self.plan.actions.push(Action::Delete { kind: Kind::Pod, name, uid, why });
                } else if seen.spec_hash.as_deref() != Some(pod::spec_hash(self.set, member).as_str()) {
                    if seen.meta.deleting || self.runs(member, seen) {
                        self.plan.outdated.push(member.clone());
                    } else {
                        let why = "PostgreSQL never ran in it, and the spec asks for another pod now".to_owned();
                        self.plan.actions.push(Action::Delete { kind: Kind::Pod, name, uid, why });
                    }
                }
            }
        }
    }

    /// Whether PostgreSQL runs in this pod, or may. A pod that never came so far is worth nothing: it waits for a node, a
    /// volume or an image, or its image holds no PostgreSQL.
    fn runs(&self, member: &MemberName, pod: &PodSeen) -> bool {
        let name = member.to_string();
        let unusable = self.observed.present_states().any(|s| {
            s.name == name
                && s.state == Some(MemberPhase::Starting)
                && s.reason.as_deref() == Some(reasons::IMAGE_UNUSABLE)
        });
        pod.phase != "Pending" && !unusable
    }

    /// Sees to a member's certificates. Returns whether there are some: a pod without would hang in its mounts.
    fn certificates(&mut self, member: &MemberName, material: &Material) -> bool {
        let standing = self.standing(Kind::Secret, &names::member_tls(member));
        let Some(files) = material.members.get(member) else { return matches!(standing, Standing::Ours(_)) };
        let object = data::member_tls(self.set, member, files);
        match standing {
            Standing::Busy => return false,
            Standing::Absent => self.plan.actions.push(Action::Create(object)),
            Standing::Ours(meta) => {
                let body = json!({
                    "metadata": {"uid": meta.uid, "annotations": object.body["metadata"]["annotations"]},
                    "data": object.body["data"],
                });
                self.plan.actions.push(Action::Patch { kind: Kind::Secret, name: object.name, body });
            }
        }
        true
    }

    fn foreign_volume(&mut self, claim: String, member: MemberName, system: Option<String>) {
        for problem in &mut self.plan.problems {
            if let Problem::ForeignVolumes { claims, members, .. } = problem {
                claims.push(claim);
                members.push(member);
                return;
            }
        }
        self.plan.problems.push(Problem::ForeignVolumes { claims: vec![claim], members: vec![member], system });
    }

    /// Sees to a member's volume. Returns whether its pod may be made.
    fn claim(&mut self, member: &MemberName) -> bool {
        let set = self.set;
        let name = names::data_claim(member);
        let Some(seen) = self.observed.claim(&name) else {
            self.plan.actions.push(Action::Create(data::claim(set, member)));
            return true;
        };
        if seen.set_uid.as_ref() != Some(&set.uid) {
            let adopted = set.spec.adopt().filter(|a| seen.system_id.as_deref().is_none_or(|s| s == *a));
            if seen.meta.deleting {
                self.plan.problems.push(Problem::InTheWay { kind: Kind::Claim, name });
            } else if adopted.is_some() {
                // Its agent looks whether it is that data.
                let annotations = json!({ ANNOTATION_SET_UID: set.uid });
                let body = json!({ "metadata": { "uid": seen.meta.uid, "annotations": annotations } });
                self.plan.actions.push(Action::Patch { kind: Kind::Claim, name, body });
            } else {
                self.foreign_volume(name, member.clone(), seen.system_id.clone());
            }
            return false;
        }
        if seen.meta.deleting {
            return false;
        }
        let mut body = json!({});
        match seen.requested.as_deref().and_then(quantity::bytes) {
            Some(is) if is < set.size => {
                body["spec"] = json!({"resources": {"requests": {"storage": set.spec.storage.size}}});
            }
            Some(is) if is > set.size => {
                let is = seen.requested.clone().unwrap_or_default();
                self.plan.problems.push(Problem::Shrinks { claim: name.clone(), is });
            }
            _ => {}
        }
        let owned = seen.meta.owner.as_ref() == Some(&set.uid);
        if owned != set.deletes_volumes() {
            let owners = if set.deletes_volumes() { vec![set.owner()] } else { vec![] };
            body["metadata"] = json!({"ownerReferences": owners});
        }
        if let Some(system) = self.observed.status.system_id.as_ref().filter(|s| seen.system_id.as_ref() != Some(s)) {
            body["metadata"]["annotations"] = json!({ ANNOTATION_SYSTEM_ID: system });
        }
        if body != json!({}) {
            body["metadata"]["uid"] = json!(seen.meta.uid);
            self.plan.actions.push(Action::Patch { kind: Kind::Claim, name, body });
        }
        true
    }

    /// Members beyond the roster go once no rule knows them.
    fn leaving(&mut self) {
        let set = self.set;
        let enough = self.attached() >= set.members.min(self.plan.rule.acknowledgements as usize + 1);
        // The agents must have been able to see the roster without the member before anything is taken away.
        let published = |m: &MemberName| {
            !self.observed.status.roster.is_empty() && !self.observed.status.roster.contains(&m.to_string())
        };
        for member in self.observed.members(&set.name) {
            if self.plan.roster.contains(&member) {
                continue;
            }
            let name = member.to_string();
            let pod = self.observed.pod(&name);
            let claim_name = names::data_claim(&member);
            let claim = self
                .observed
                .claim(&claim_name)
                .filter(|c| set.deletes_volumes() && c.set_uid.as_ref() == Some(&set.uid) && !c.meta.deleting);
            if pod.is_some_and(|p| p.meta.belongs_to_another(&set.uid)) {
                continue;
            }
            if pod.is_some() {
                self.plan.leaving.push(member.clone());
            }
            if !self.plan.rule.lets_go(&member) || !published(&member) {
                continue;
            }
            // A volume is a copy of the data: it goes only while enough others are attached.
            let claim = claim.filter(|_| enough).map(|c| (claim_name, c.meta.uid.clone()));
            let pod = pod.filter(|p| !p.meta.deleting).map(|p| p.meta.uid.clone());
            let secret_name = names::member_tls(&member);
            let secret = self
                .observed
                .secret(&secret_name)
                .filter(|s| !s.meta.deleting && s.meta.owner.as_ref() == Some(&set.uid))
                .map(|s| (secret_name, s.meta.uid.clone()));
            // Each by itself: who died in the middle has left some.
            if pod.is_some() || claim.is_some() || secret.is_some() {
                self.plan.actions.push(Action::Remove { member, pod, claim, secret });
            }
        }
    }

    /// How many members of the roster are attached in this epoch.
    fn attached(&self) -> usize {
        attached(self.observed, &self.plan).count()
    }

    /// The role label, for people.
    fn roles(&mut self) {
        if lost_in(&self.plan).is_some() {
            return;
        }
        let rule = &self.plan.rule;
        for (name, pod) in self.observed.pods() {
            let Ok(member) = name.parse::<MemberName>() else { continue };
            if pod.meta.deleting
                || pod.meta.belongs_to_another(&self.set.uid)
                || self.plan.actions.iter().any(|a| a.takes_pod(name))
            {
                continue;
            }
            let role = if rule.active && rule.leader.as_ref() == Some(&member) {
                Some("leader")
            } else if rule.members.contains(&member) {
                Some("follower")
            } else {
                None
            };
            if pod.role.as_deref() != role {
                let body = json!({"metadata": {"uid": pod.meta.uid, "labels": {names::LABEL_ROLE: role}}});
                self.plan.actions.push(Action::Patch { kind: Kind::Pod, name: name.to_owned(), body });
            }
        }
    }

    /// Entries of members that are gone leave the status.
    fn forget(&mut self) {
        for state in &self.observed.status.member_states {
            let Ok(member) = state.name.parse::<MemberName>() else { continue };
            if !self.plan.roster.contains(&member)
                && !self.plan.rule.members.contains(&member)
                && self.observed.pod(&state.name).is_none()
            {
                self.plan.actions.push(Action::Forget(member));
            }
        }
    }
}

/// The members of the roster whose present pod is attached in the epoch in force.
pub fn attached<'a>(observed: &'a Observed, plan: &'a Plan) -> impl Iterator<Item = &'a MemberName> {
    let epoch = lost_in(plan).unwrap_or(plan.rule.epoch);
    plan.roster.iter().filter(move |member| {
        let name = member.to_string();
        let pod = observed.pod(&name);
        observed.status.member_states.iter().any(|s| {
            s.name == name
                && s.state == Some(MemberPhase::Attached)
                && s.epoch == Some(epoch)
                && s.pod_uid.as_ref() == pod.map(|p| &p.meta.uid)
        })
    })
}
