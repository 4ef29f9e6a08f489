//! What there is to say about a set, out of its objects. Pure.

use super::lag::Lag;
use super::pod::{self, PodSeen};
use super::waiting;
use crate::objects::Objects;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pgconvoy_crds::conditions::{READY, RECONCILING, STALLED};
use pgconvoy_crds::names::LABEL_MEMBER;
use pgconvoy_crds::{MemberPhase, MemberRole, MemberState};
use pgconvoy_terms::{MemberId, MemberName, Phase, Rule, Tag, Term};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How a set stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) namespace: String,
    pub(crate) set: String,
    /// Whether the condition Ready holds, for the spec as it is now, and the PgTerm and the leader's pod bear it out.
    pub(crate) ready: bool,
    pub(crate) conditions: Vec<Told>,
    /// How many members the spec asks for.
    pub(crate) members_asked: i32,
    /// Who leads by the PgTerm; absent while nobody is elected.
    pub(crate) leader: Option<String>,
    pub(crate) epoch: Option<EpochSeen>,
    pub(crate) phase: Option<String>,
    /// Whether the leader serves clients; the phase says the same.
    #[serde(skip)]
    pub(crate) active: bool,
    /// By which rule commits are acknowledged now.
    pub(crate) rule: Option<RuleSeen>,
    /// The rule that it changes to, until that is confirmed.
    pub(crate) pending: Option<RuleSeen>,
    /// What is waited for, sentences.
    pub(crate) waiting: Vec<String>,
    /// What looks wrong, sentences.
    pub(crate) notes: Vec<String>,
    pub(crate) image: String,
    pub(crate) database: String,
    pub(crate) system_id: Option<String>,
    /// Up to where the leader had archived when it last said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archived: Option<String>,
    /// Whether the followers' lag was found out.
    pub(crate) lag_known: bool,
    pub(crate) members: Vec<Member>,
}

/// A condition, as the operator told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Told {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Timestamp,
}

impl Told {
    /// Whether it is something to be told: what should hold and does not, or the other way round.
    pub(crate) fn matters(&self) -> bool {
        let good = if self.type_ == RECONCILING || self.type_ == STALLED { "False" } else { "True" };
        self.status != good
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct EpochSeen {
    pub(crate) number: u32,
    pub(crate) id: String,
}

/// A rule of acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RuleSeen {
    pub(crate) acknowledgements: u32,
    pub(crate) followers: Vec<String>,
}

impl RuleSeen {
    pub(super) fn of(rule: &Rule) -> Self {
        Self { acknowledgements: rule.acknowledgements, followers: names(rule.followers.iter()) }
    }

    /// `quorum 1 of 2`, `async`, `the leader alone`.
    pub(crate) fn short(&self) -> String {
        match (self.acknowledgements, self.followers.len()) {
            (0, 0) => "the leader alone".to_owned(),
            (0, _) => "async".to_owned(),
            (w, n) => format!("quorum {w} of {n}"),
        }
    }
}

/// Members' names by number.
pub(super) fn names<'a>(members: impl Iterator<Item = &'a MemberId>) -> Vec<String> {
    let sorted: BTreeSet<&MemberName> = members.map(|m| &m.name).collect();
    sorted.into_iter().map(ToString::to_string).collect()
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) role: Option<MemberRole>,
    pub(crate) state: Option<MemberPhase>,
    pub(crate) epoch: Option<i64>,
    pub(crate) node: Option<String>,
    pub(crate) pod: Option<PodSeen>,
    pub(crate) version: Option<String>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) incarnation: Option<String>,
    /// Whether it takes part in the rule in force.
    pub(crate) counts: bool,
    /// Absent for the leader, and when nothing is known.
    pub(crate) lag: Option<Lag>,
    /// The name it streams under; for finding its lag.
    #[serde(skip)]
    pub(crate) tag: Option<Tag>,
    pub(crate) messages: Vec<String>,
}

/// The PgTerm as far as it can be used.
pub(super) enum TermSeen {
    Absent,
    Unusable(String),
    /// Number 0.
    NoneYet,
    Term(Box<Term>),
}

impl TermSeen {
    fn of(objects: &Objects) -> Self {
        let Some(term) = &objects.term else { return Self::Absent };
        if objects.set.uid().is_some_and(|uid| uid != term.spec.set_uid) {
            return Self::Unusable("the PgTerm belongs to an earlier set of this name".to_owned());
        }
        match term.spec.read() {
            Err(why) => Self::Unusable(why.to_string()),
            Ok(None) => Self::NoneYet,
            Ok(Some(term)) => Self::Term(Box::new(term)),
        }
    }

    pub(super) fn term(&self) -> Option<&Term> {
        match self {
            Self::Term(term) => Some(term),
            _ => None,
        }
    }
}

/// Everything that can be said without asking PostgreSQL.
pub(crate) fn report(objects: &Objects) -> Report {
    let set = &objects.set;
    let status = set.status.clone().unwrap_or_default();
    let seen = TermSeen::of(objects);
    let term = seen.term();
    // Rules of this epoch, the oldest in force and the newest wanted; while there is no leader, none is in force.
    let current: Vec<&Rule> = term.iter().flat_map(|t| t.rules.iter().filter(|r| r.epoch == t.epoch)).collect();
    let conditions: Vec<Told> = status
        .conditions
        .iter()
        .map(|c| Told {
            type_: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            since: c.last_transition_time.0,
        })
        .collect();
    let seen_now = status.observed_generation == set.metadata.generation;
    let members = members(objects, &status.roster, &status.member_states, term);
    // The operator may be behind, or gone: a set whose leader is not there is not ready, whatever it said before.
    let served = term.is_some_and(|t| t.phase == Phase::Active && waiting::leader_gone(t, &members).is_none());
    Report {
        namespace: set.namespace().unwrap_or_default(),
        set: set.name_any(),
        members_asked: set.spec.members,
        ready: served && seen_now && conditions.iter().any(|c| c.type_ == READY && c.status == "True"),
        leader: term.and_then(|t| t.leader.as_ref()).map(|l| l.name.to_string()),
        epoch: term.map(|t| EpochSeen { number: t.epoch.number, id: t.epoch.id.to_string() }),
        phase: term.map(|t| format!("{:?}", t.phase)),
        active: term.is_some_and(|t| t.phase == Phase::Active),
        rule: current.first().map(|r| RuleSeen::of(r)),
        pending: current.last().filter(|_| current.len() > 1).map(|r| RuleSeen::of(r)),
        waiting: waiting::waiting(objects, &seen),
        notes: waiting::notes(objects, &seen, &members),
        image: set.spec.image.clone(),
        database: set.spec.initdb().database.unwrap_or_default(),
        system_id: status.system_id.clone(),
        archived: status.member_states.iter().find_map(|s| s.archive.as_ref()?.archived.clone()),
        lag_known: false,
        conditions,
        members,
    }
}

/// Everyone who is asked for, has a pod, says something or counts; by number.
fn members(objects: &Objects, roster: &[String], states: &[MemberState], term: Option<&Term>) -> Vec<Member> {
    let pods: BTreeMap<String, &Pod> =
        objects.pods.iter().filter_map(|p| Some((p.labels().get(LABEL_MEMBER)?.clone(), p))).collect();
    let in_force: Option<&Rule> = term.and_then(|t| t.rules.iter().find(|r| r.epoch == t.epoch));
    let counting: BTreeSet<&MemberId> = term.iter().flat_map(|t| &t.rules).flat_map(Rule::members).collect();
    let mut all: BTreeSet<String> = roster.iter().cloned().collect();
    all.extend(states.iter().map(|s| s.name.clone()));
    all.extend(pods.keys().cloned());
    all.extend(counting.iter().map(|m| m.name.to_string()));

    let mut rows: Vec<Member> = all
        .into_iter()
        .map(|name| {
            let pod = pods.get(&name).copied();
            let mut member = row(&name, states.iter().find(|s| s.name == name), pod);
            let identity = counting.iter().rfind(|m| m.name.to_string() == name);
            let identity = identity.map(|m| (*m).clone()).or_else(|| member.identity());
            member.counts = in_force.is_some_and(|r| identity.as_ref().is_some_and(|m| r.contains(m)));
            member.tag = term.and_then(|t| Some(Tag::new(identity.as_ref()?, &t.epoch)));
            if !roster.is_empty() && !roster.contains(&name) {
                member.messages.push("leaves the set: first the rule, then its pod goes".to_owned());
            }
            if let Some((said, led)) = term.and_then(|t| member.contradicts(t)) {
                member.messages.push(format!("says that it leads epoch {said}, but {led}"));
            }
            member
        })
        .collect();
    rows.sort_by_key(|m| (m.name.parse::<MemberName>().ok(), m.name.clone()));
    rows
}

/// What the member's agent and its pod say. What an agent said in an earlier pod is past.
fn row(name: &str, said: Option<&MemberState>, pod: Option<&Pod>) -> Member {
    let of_this_pod = match (said.and_then(|s| s.pod_uid.as_ref()), pod.and_then(|p| p.metadata.uid.as_ref())) {
        (Some(wrote), Some(is)) => wrote == is,
        (_, is) => is.is_some(),
    };
    let now = said.filter(|_| of_this_pod);
    let seen = pod.map(pod::look);
    let mut messages: Vec<String> = vec![];
    match (said, pod) {
        (Some(said), None) => messages.push(match said.state {
            Some(state) => format!("has no pod; the last one said {state:?}"),
            None => "has no pod".to_owned(),
        }),
        (None, None) => messages.push("has no pod yet".to_owned()),
        (Some(_), Some(_)) if !of_this_pod => messages.push("its new pod has said nothing yet".to_owned()),
        _ => {}
    }
    if let Some(now) = now {
        messages.extend(now.message.clone());
        messages.extend(now.configuration_error.iter().map(|e| format!("PostgreSQL refuses the configuration: {e}")));
        if !now.pending_restart.is_empty() {
            messages.push(format!("waits for a restart with: {}", now.pending_restart.join(", ")));
        }
    }
    messages.extend(seen.iter().flat_map(|p| p.messages.clone()));
    let node = pod.and_then(|p| p.spec.as_ref()?.node_name.clone()).or_else(|| now?.node.clone());
    Member {
        name: name.to_owned(),
        role: now.and_then(|n| n.role),
        state: now.and_then(|n| n.state),
        epoch: now.and_then(|n| n.epoch),
        node,
        pod: seen,
        version: now.and_then(|n| n.version.clone()),
        since: now.and_then(|n| n.since.as_ref()?.parse().ok()),
        // The data outlives the pod.
        incarnation: said.and_then(|s| s.incarnation.clone()),
        counts: false,
        lag: None,
        tag: None,
        messages,
    }
}

impl Member {
    fn identity(&self) -> Option<MemberId> {
        Some(MemberId { name: self.name.parse().ok()?, incarnation: self.incarnation.as_ref()?.parse().ok()? })
    }

    /// Which epoch it says that it leads, and who does, when the term says otherwise.
    fn contradicts(&self, term: &Term) -> Option<(i64, String)> {
        let said = self.epoch.filter(|_| self.role == Some(MemberRole::Leader))?;
        match &term.leader {
            Some(leader) if leader.name.to_string() == self.name && said == i64::from(term.epoch.number) => None,
            Some(leader) => Some((said, format!("{} leads epoch {}", leader.name, term.epoch.number))),
            None => Some((said, format!("epoch {} has no leader yet", term.epoch.number))),
        }
    }

    /// Whether a session in its pod is possible.
    pub(crate) fn reachable(&self) -> bool {
        self.pod.as_ref().is_some_and(|p| p.postgres_runs)
    }
}

impl Report {
    /// The leader that serves clients.
    pub(crate) fn active_leader(&self) -> Option<&Member> {
        let leader = self.leader.as_ref().filter(|_| self.active)?;
        self.members.iter().find(|m| m.name == *leader)
    }

    /// The member of this name, or of this number.
    pub(crate) fn member(&self, wanted: &str) -> Option<&Member> {
        let name = wanted.parse::<u32>().ok().map(|n| format!("{}-{n}", self.set));
        self.members.iter().find(|m| m.name == wanted || Some(&m.name) == name.as_ref())
    }

    /// The condition that says most.
    pub(crate) fn condition(&self, type_: &str) -> Option<&Told> {
        self.conditions.iter().find(|c| c.type_ == type_)
    }
}
