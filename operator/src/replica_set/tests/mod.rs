//! The planner, the certificates and the status against a world in memory: what the plan says is done to plain objects,
//! which are looked at through the very pruning that the watches use.

mod agents;
mod archive;
mod certificates;
mod creating;
mod gitops;
mod members;
mod roll_out;
mod statuses;

use super::apply::Memo;
use super::archive::ArchiveSeen;
use super::certificates::{issue, needs};
use super::observed::{Observed, Rule, Things};
use super::plan::{Action, Plan, plan, wanted_members};
use super::status;
use super::validate::{Validated, validate};
use crate::kinds::{Kind, Object};
use crate::world::prune;
use jiff::{SignedDuration, Timestamp};
use pgconvoy_crds::{MemberPhase, MemberRole, MemberState, PgReplicaSet, PgTermSpec, names};
use pgconvoy_terms::{ChangeId, Epoch, Fork, Incarnation, MemberId, MemberName, Phase, Term};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const UID: &str = "uid-of-the-set";

/// A cluster with one replica set in it.
pub(super) struct World {
    pub(super) set: PgReplicaSet,
    pub(super) bodies: BTreeMap<(Kind, String), Value>,
    pub(super) now: Timestamp,
    pub(super) no_such_class: Option<String>,
    pub(super) archive: ArchiveSeen,
    /// The agents' image.
    pub(super) agent_image: String,
    /// Members whose agents were replaced in place, in that order.
    pub(super) replaced: Vec<String>,
    /// Members whose pods were deleted to be made anew, in that order.
    pub(super) restarts: Vec<String>,
    memo: Memo,
    made: u32,
}

impl World {
    pub(super) fn new(members: i32) -> Self {
        let set = json!({
            "apiVersion": "pgconvoy.dev/v1alpha1",
            "kind": "PgReplicaSet",
            "metadata": {"name": "orders", "namespace": "shop", "uid": UID, "generation": 1},
            "spec": {"image": "postgres:17", "members": members, "storage": {"size": "20Gi"}},
        });
        Self {
            set: serde_json::from_value(set).unwrap(),
            bodies: BTreeMap::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            no_such_class: None,
            archive: ArchiveSeen::NotAsked,
            restarts: vec![],
            agent_image: "agent:1".to_owned(),
            replaced: vec![],
            memo: Memo::default(),
            made: 0,
        }
    }

    /// One whose first member leads the others.
    pub(super) fn running(members: i32) -> Self {
        let mut world = Self::new(members);
        world.settle();
        let followers: Vec<u32> = (2..=u32::try_from(members).unwrap()).collect();
        world.lead(1, 1, &followers);
        world.settle();
        world
    }

    pub(super) fn valid(&self) -> Validated {
        validate(&self.set, &self.agent_image).unwrap()
    }

    pub(super) fn observed(&self) -> Observed {
        let things: Things = self
            .bodies
            .iter()
            .map(|((kind, name), body)| {
                let (place, thing) = look(*kind, body);
                assert_eq!((place.set.as_str(), &place.name), ("orders", name));
                ((*kind, name.clone()), Arc::new(thing))
            })
            .collect();
        let status = self.set.status.clone().unwrap_or_default();
        Observed { things, status, no_such_class: self.no_such_class.clone(), archive: self.archive.clone() }
    }

    pub(super) fn planned(&self) -> Plan {
        let (set, observed) = (self.valid(), self.observed());
        let needs = needs(&set, &observed, &wanted_members(&set, &observed), self.now);
        let text = |key: &str| {
            let body = self.bodies.get(&(Kind::Secret, "orders-ca".to_owned()))?;
            Some(String::from_utf8(base64(body["data"][key].as_str()?)).unwrap())
        };
        let material = issue(&set, &observed, &needs, text("ca.crt").zip(text("ca.key")), self.now).unwrap();
        plan(&set, &observed, &material)
    }

    /// One reconcile that is killed after so many writes. Returns how many there were, the status included.
    pub(super) fn reconcile(&mut self, at_most: usize) -> usize {
        let planned = self.planned();
        let mut writes = 0;
        for action in &planned.actions {
            if writes == at_most {
                return writes;
            }
            writes += usize::from(self.act(action));
        }
        if writes == at_most {
            return writes;
        }
        let wanted = status::status(&self.valid(), &self.observed(), &planned, self.now);
        let before = self.set.status.clone().unwrap_or_default();
        if !status::says(&before, &wanted) {
            let member_states = before.member_states;
            self.set.status = Some(pgconvoy_crds::PgReplicaSetStatus { member_states, ..wanted });
            writes += 1;
        }
        writes
    }

    /// Reconciles until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            if self.reconcile(usize::MAX) == 0 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// The process is replaced by another one.
    pub(super) fn restart(&mut self) {
        self.memo = Memo::default();
    }

    fn act(&mut self, action: &Action) -> bool {
        match action {
            Action::Create(object) => {
                let key = (object.kind, object.name.clone());
                !self.bodies.contains_key(&key) && self.put(object)
            }
            Action::Apply(object) => {
                let key = (object.kind, object.name.clone());
                let there = self.bodies.get(&key).map(|body| (key, Arc::new(look(object.kind, body).1)));
                let observed = Observed { things: there.into_iter().collect(), ..Observed::default() };
                if !self.memo.must_apply(UID, object, &observed) {
                    return false;
                }
                self.put(object);
                let body = self.bodies[&(object.kind, object.name.clone())].clone();
                self.memo.applied(UID, object, &serde_json::from_value(body).unwrap());
                true
            }
            Action::Patch { kind, name, body } => {
                let there = self.bodies.get_mut(&(*kind, name.clone())).unwrap();
                assert_eq!(there["metadata"]["uid"], body["metadata"]["uid"], "{kind} {name}");
                merge(there, body);
                true
            }
            Action::Delete { kind, name, uid, .. } => self.delete(*kind, name, uid),
            Action::Restart { member, pods, .. } => {
                let name = member.to_string();
                self.delete(Kind::Pod, &name, &pods[&name]);
                self.restarts.push(name);
                true
            }
            Action::ReplaceAgent { member, uid, image, before } => {
                let body = self.body(Kind::Pod, &member.to_string());
                assert_eq!(body["metadata"]["uid"], json!(uid));
                for container in body["spec"]["initContainers"].as_array_mut().unwrap() {
                    container["image"] = json!(image);
                }
                body["metadata"]["annotations"][names::ANNOTATION_AGENT_BEFORE] = json!(before);
                self.replaced.push(member.to_string());
                true
            }
            Action::Remove { member, pod, claim, secret } => {
                let rule = self.rule();
                assert!(rule.lets_go(member));
                let pod = pod.as_ref().map(|uid| (Kind::Pod, member.to_string(), uid.clone()));
                let of = |kind: Kind, named: &Option<(String, String)>| named.clone().map(|(n, u)| (kind, n, u));
                for (kind, name, uid) in [pod, of(Kind::Claim, claim), of(Kind::Secret, secret)].into_iter().flatten() {
                    self.delete(kind, &name, &uid);
                }
                true
            }
            Action::Forget(member) => {
                self.states().retain(|s| s.name != member.to_string());
                true
            }
        }
    }

    fn put(&mut self, object: &Object) -> bool {
        let key = (object.kind, object.name.clone());
        let uid = match self.bodies.get(&key) {
            Some(there) => there["metadata"]["uid"].clone(),
            None => {
                self.made += 1;
                json!(format!("uid-{}", self.made))
            }
        };
        let mut body = object.body.clone();
        body["metadata"]["uid"] = uid;
        self.bodies.insert(key, body);
        true
    }

    pub(super) fn delete(&mut self, kind: Kind, name: &str, uid: &str) -> bool {
        let there = self.bodies.remove(&(kind, name.to_owned())).unwrap();
        assert_eq!(there["metadata"]["uid"], json!(uid), "{kind} {name}");
        true
    }

    pub(super) fn take(&mut self, kind: Kind, name: &str) {
        assert!(self.bodies.remove(&(kind, name.to_owned())).is_some(), "{kind} {name}");
    }

    pub(super) fn body(&mut self, kind: Kind, name: &str) -> &mut Value {
        self.bodies.get_mut(&(kind, name.to_owned())).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    pub(super) fn names(&self, kind: Kind) -> Vec<&str> {
        self.bodies.keys().filter(|(k, _)| *k == kind).map(|(_, n)| n.as_str()).collect()
    }

    fn states(&mut self) -> &mut Vec<MemberState> {
        &mut self.set.status.get_or_insert_default().member_states
    }

    pub(super) fn rule(&self) -> Rule {
        let term = &self.bodies[&(Kind::Term, "orders".to_owned())];
        let spec: PgTermSpec = serde_json::from_value(term["spec"].clone()).unwrap();
        Rule::read(&spec).unwrap()
    }

    /// The agents agree: in this epoch, this member leads the others, by W = 1.
    pub(super) fn lead(&mut self, number: u32, leader: u32, followers: &[u32]) {
        self.lead_with(number, leader, followers, vec![]);
    }

    /// The same, and before it `last` led.
    pub(super) fn lead_after(&mut self, number: u32, leader: u32, followers: &[u32], last: u32) {
        let epoch = Epoch { number: number - 1, id: ChangeId::from_random((number - 1).into()) };
        let fork = Fork { epoch, parent: None, at: None, leader: id(last), lossy: false };
        self.lead_with(number, leader, followers, vec![fork]);
    }

    fn lead_with(&mut self, number: u32, leader: u32, followers: &[u32], history: Vec<Fork>) {
        let epoch = Epoch { number, id: ChangeId::from_random(number.into()) };
        let rule = pgconvoy_terms::Rule {
            epoch: epoch.clone(),
            leader: id(leader),
            followers: followers.iter().map(|f| id(*f)).collect(),
            acknowledgements: u32::from(!followers.is_empty()),
        };
        let term = Term {
            chain: vec![epoch.id.clone()],
            epoch,
            phase: Phase::Active,
            leader: Some(id(leader)),
            rules: vec![rule],
            lossy: false,
            history,
        };
        self.body(Kind::Term, "orders")["spec"] = serde_json::to_value(PgTermSpec::write(UID, &term)).unwrap();
        for n in followers.iter().chain([&leader]) {
            let role = if *n == leader { MemberRole::Leader } else { MemberRole::Follower };
            self.say(*n, MemberPhase::Attached, |s| {
                s.epoch = Some(number.into());
                s.role = Some(role);
            });
        }
    }

    /// What an agent says of itself.
    pub(super) fn say(&mut self, ordinal: u32, state: MemberPhase, more: impl FnOnce(&mut MemberState)) {
        let name = member(ordinal).to_string();
        let uid =
            self.bodies.get(&(Kind::Pod, name.clone())).map(|p| p["metadata"]["uid"].as_str().unwrap().to_owned());
        let mut entry = MemberState { name: name.clone(), state: Some(state), pod_uid: uid, ..MemberState::default() };
        more(&mut entry);
        self.states().retain(|s| s.name != name);
        self.states().push(entry);
    }

    pub(super) fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.set.status.clone().unwrap_or_default();
        let c = status.conditions.into_iter().find(|c| c.type_ == type_).unwrap();
        (c.status, c.reason, c.message)
    }

    pub(super) fn later(&mut self, by: SignedDuration) {
        self.now = self.now.checked_add(by).unwrap();
    }
}

pub(super) fn member(ordinal: u32) -> MemberName {
    MemberName::new("orders", ordinal)
}

fn id(ordinal: u32) -> MemberId {
    MemberId { name: member(ordinal), incarnation: Incarnation::from_random(ordinal.into()) }
}

pub(super) fn base64(text: &str) -> Vec<u8> {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn look(kind: Kind, body: &Value) -> (crate::world::Place, super::observed::Thing) {
    let seen = prune::object(kind, body.clone()).unwrap();
    seen.unwrap_or_else(|| panic!("a {kind} is not recognised as the set's"))
}

fn merge(there: &mut Value, patch: &Value) {
    let (Value::Object(there), Value::Object(patch)) = (&mut *there, patch) else {
        *there = patch.clone();
        return;
    };
    for (key, value) in patch {
        match value {
            Value::Null => {
                there.remove(key);
            }
            value => merge(there.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}
