//! What is there of a replica set, as far as the operator's decisions need it. Plain data: no client, no clock.

use super::archive::ArchiveSeen;
use crate::kinds::Kind;
use jiff::Timestamp;
use pgconvoy_crds::{MemberState, PgReplicaSetStatus, PgTermSpec};
use pgconvoy_terms::{MemberName, Phase, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What every object has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Its UID.
    pub uid: String,
    /// UID of its controller.
    pub owner: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Fingerprint of what a person could change in it; only of kinds that are kept as they should be.
    pub fingerprint: Option<String>,
}

impl Meta {
    /// Whether the object belongs to an owner other than `uid`.
    pub fn belongs_to_another(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|o| o != uid)
    }
}

/// The set's PgTerm.
#[derive(Debug, Clone, PartialEq)]
pub struct TermSeen {
    /// Its metadata.
    pub meta: Meta,
    /// The record, or why it cannot be read.
    pub spec: Result<PgTermSpec, String>,
}

/// A container that does not run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its name.
    pub container: String,
    /// Its image, as the kubelet names it; may be empty.
    pub image: String,
    /// Kubernetes' word for it, like `ErrImagePull`.
    pub reason: String,
    /// Kubernetes' sentence.
    pub message: String,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodSeen {
    /// Its metadata.
    pub meta: Meta,
    /// Hash of the spec it was made by.
    pub spec_hash: Option<String>,
    /// Its role label.
    pub role: Option<String>,
    /// Fingerprint of the archive's files that the kubelet was told of.
    pub archive: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Why it failed, in Kubernetes' words.
    pub failure: Option<String>,
    /// Why it cannot be scheduled.
    pub unscheduled: Option<String>,
    /// Containers that do not run.
    pub troubles: Vec<Trouble>,
    /// Its node, once it has one.
    pub node: Option<String>,
    /// Its agent.
    pub agent: AgentSeen,
}

/// The agent's container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentSeen {
    /// The image that the pod asks for.
    pub image: Option<String>,
    /// The container that runs, or ran last.
    pub container: Option<String>,
    /// The one that ran when the image was changed last.
    pub before: Option<String>,
    /// Whether it says that the member takes part.
    pub ready: bool,
}

impl AgentSeen {
    /// Whether the container that was asked for last runs, and is content.
    pub fn settled(&self) -> bool {
        self.ready && (self.before.is_none() || self.before != self.container)
    }
}

/// A pod that brings an image to a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullerSeen {
    /// Its metadata.
    pub meta: Meta,
    /// The image.
    pub image: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Why it gets nowhere.
    pub trouble: Option<String>,
}

impl PodSeen {
    /// Whether the pod has ended for good.
    pub fn ended(&self) -> bool {
        self.phase == "Failed" || self.phase == "Succeeded"
    }
}

/// A volume claim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClaimSeen {
    /// Its metadata.
    pub meta: Meta,
    /// UID of the set that it was made for.
    pub set_uid: Option<String>,
    /// System identifier of the data on it, once that was known.
    pub system_id: Option<String>,
    /// Requested size, as written.
    pub requested: Option<String>,
    /// Storage class, once known.
    pub class: Option<String>,
    /// Whether there is no volume for it yet.
    pub unbound: bool,
}

/// A Secret, without what is secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretSeen {
    /// Its metadata.
    pub meta: Meta,
    /// Keys with a value.
    pub keys: BTreeSet<String>,
    /// `ca.crt`.
    pub authority: Option<String>,
    /// When the first of its certificates has used up two thirds of its life; `None` when one cannot be read.
    pub renew_at: Option<Timestamp>,
    /// When the newest of its certificates began.
    pub issued_at: Option<Timestamp>,
    /// What its certificates were made for.
    pub made_for: Option<String>,
    /// Fingerprint of the archive's files in it.
    pub archive: Option<String>,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub enum Thing {
    /// The PgTerm.
    Term(TermSeen),
    /// A pod.
    Pod(PodSeen),
    /// A pod that brings an image to a node.
    Puller(PullerSeen),
    /// A volume claim.
    Claim(ClaimSeen),
    /// A Secret.
    Secret(SecretSeen),
    /// Anything else: that it is there.
    Other(Meta),
}

impl Thing {
    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Thing::Term(t) => &t.meta,
            Thing::Pod(p) => &p.meta,
            Thing::Puller(p) => &p.meta,
            Thing::Claim(c) => &c.meta,
            Thing::Secret(s) => &s.meta,
            Thing::Other(m) => m,
        }
    }
}

/// All objects of one set, by kind and name.
pub type Things = BTreeMap<(Kind, String), Arc<Thing>>;

/// What is there of one set.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Its objects.
    pub things: Things,
    /// Its status.
    pub status: PgReplicaSetStatus,
    /// A storage class that a claim without a volume names and that is known not to be there.
    pub no_such_class: Option<String>,
    /// The archive that the spec asks for.
    pub archive: ArchiveSeen,
}

impl Observed {
    /// The object of this kind and name.
    pub fn thing(&self, kind: Kind, name: &str) -> Option<&Thing> {
        self.things.get(&(kind, name.to_owned())).map(AsRef::as_ref)
    }

    /// The metadata of the object of this kind and name.
    pub fn meta(&self, kind: Kind, name: &str) -> Option<&Meta> {
        self.thing(kind, name).map(Thing::meta)
    }

    /// The PgTerm of `set`.
    pub fn term(&self, set: &str) -> Option<&TermSeen> {
        match self.thing(Kind::Term, set) {
            Some(Thing::Term(t)) => Some(t),
            _ => None,
        }
    }

    /// A member's pod.
    pub fn pod(&self, member: &str) -> Option<&PodSeen> {
        match self.thing(Kind::Pod, member) {
            Some(Thing::Pod(p)) => Some(p),
            _ => None,
        }
    }

    /// A pod that brings an image to a node.
    pub fn puller(&self, name: &str) -> Option<&PullerSeen> {
        match self.thing(Kind::Puller, name) {
            Some(Thing::Puller(p)) => Some(p),
            _ => None,
        }
    }

    /// All of those.
    pub fn pullers(&self) -> impl Iterator<Item = (&str, &PullerSeen)> {
        self.things.iter().filter_map(|((_, name), t)| match t.as_ref() {
            Thing::Puller(p) => Some((name.as_str(), p)),
            _ => None,
        })
    }

    /// A volume claim.
    pub fn claim(&self, name: &str) -> Option<&ClaimSeen> {
        match self.thing(Kind::Claim, name) {
            Some(Thing::Claim(c)) => Some(c),
            _ => None,
        }
    }

    /// A Secret.
    pub fn secret(&self, name: &str) -> Option<&SecretSeen> {
        match self.thing(Kind::Secret, name) {
            Some(Thing::Secret(s)) => Some(s),
            _ => None,
        }
    }

    /// The storage class that a pod waits for: its claim names the class and has no volume yet.
    pub fn awaited_class(&self) -> Option<&str> {
        let waits = |claim: &str| {
            let member = claim.strip_suffix("-data").and_then(|m| self.pod(m));
            member.is_some_and(|p| p.unscheduled.is_some())
        };
        self.things.iter().find_map(|((_, name), t)| match t.as_ref() {
            Thing::Claim(c) if c.unbound && waits(name) => c.class.as_deref(),
            _ => None,
        })
    }

    /// What members say of themselves in the pods that are there now.
    pub fn present_states(&self) -> impl Iterator<Item = &MemberState> {
        self.status.member_states.iter().filter(|s| {
            let pod = self.pod(&s.name);
            pod.is_some_and(|p| s.pod_uid.as_ref() == Some(&p.meta.uid))
        })
    }

    /// The pods.
    pub fn pods(&self) -> impl Iterator<Item = (&str, &PodSeen)> {
        self.things.iter().filter_map(|((_, name), t)| match t.as_ref() {
            Thing::Pod(p) => Some((name.as_str(), p)),
            _ => None,
        })
    }

    /// The members that have a pod, a claim or certificates, whatever the roster says.
    pub fn members(&self, set: &str) -> BTreeSet<MemberName> {
        let of = |name: &str| name.parse::<MemberName>().ok().filter(|m| m.set() == set);
        self.things
            .iter()
            .filter_map(|((_, name), t)| match t.as_ref() {
                Thing::Pod(_) => of(name),
                Thing::Claim(_) => name.strip_suffix("-data").and_then(of),
                Thing::Secret(_) => name.strip_suffix("-tls").and_then(of),
                _ => None,
            })
            .collect()
    }
}

/// The term as far as the operator is concerned: what it can decide without obeying it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The epoch's number; 0 = none yet.
    pub epoch: i64,
    /// Whether clients are served.
    pub active: bool,
    /// Who leads or is about to.
    pub leader: Option<MemberName>,
    /// Who led before the leader of this epoch.
    pub before: Option<MemberName>,
    /// Every member that takes part in a rule in force or pending.
    pub members: BTreeSet<MemberName>,
    /// How many rules are in force or pending.
    pub rules: usize,
    /// W of the newest rule.
    pub acknowledgements: u32,
    /// How many followers the newest rule has.
    pub followers: usize,
    /// Whether commits may be missing since this epoch began.
    pub lossy: bool,
    /// Every rule in force or pending.
    pub counted: Vec<pgconvoy_terms::Rule>,
}

impl Rule {
    /// Reads the record.
    ///
    /// # Errors
    /// A sentence, when anything in it does not parse.
    pub fn read(spec: &PgTermSpec) -> Result<Self, String> {
        match spec.read() {
            Ok(None) => Ok(Self::default()),
            Ok(Some(term)) => Ok(Self::of(&term)),
            Err(e) => Err(e.to_string()),
        }
    }

    fn of(term: &Term) -> Self {
        let newest = term.rules.last();
        Self {
            epoch: term.epoch.number.into(),
            active: term.phase == Phase::Active,
            leader: term.leader.as_ref().map(|l| l.name.clone()),
            before: term.epoch_before().map(|f| f.leader.name.clone()),
            members: term.rules.iter().flat_map(|r| r.members().map(|m| m.name.clone())).collect(),
            rules: term.rules.len(),
            acknowledgements: newest.map_or(0, |r| r.acknowledgements),
            followers: newest.map_or(0, |r| r.followers.len()),
            lossy: term.history.last().is_some_and(|f| f.epoch == term.epoch && f.lossy),
            counted: term.rules.clone(),
        }
    }

    /// Whether `member` may be taken away: an epoch is active, and no rule in force or pending knows it.
    pub fn lets_go(&self, member: &MemberName) -> bool {
        self.active && self.rules == 1 && !self.members.contains(member)
    }
}
