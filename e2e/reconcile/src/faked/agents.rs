//! The members agree on a term and say how they are.

use super::pods::{asked, going, runs, started_with};
use super::{At, NONSENSE, RELOAD, RESTART, SYSTEM_ID};
use pgconvoy_crds::names::{LABEL_SET, MANAGER_AGENT_PREFIX, data_claim};
use pgconvoy_crds::{PgReplicaSetSpec, PgTermSpec};
use pgconvoy_embedded::api::{PatchKind, text};
use pgconvoy_terms::{ChangeId, Epoch, Fork, Incarnation, Lsn, MemberId, MemberName, Phase, Rule, Term, TimelineId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the agents of a set look at.
struct Seen {
    set: Value,
    uid: String,
    acknowledgements: u32,
    roster: BTreeSet<MemberName>,
    pods: BTreeMap<MemberName, Arc<Value>>,
    term: Value,
}

impl At<'_> {
    /// The agents do the next thing; whether there was one.
    pub(super) fn agents(&mut self) -> bool {
        let Some(seen) = self.seen() else { return false };
        let Ok(spec) = serde_json::from_value::<PgTermSpec>(seen.term["spec"].clone()) else { return false };
        match spec.read() {
            Ok(None) => self.found(&seen, spec.remade),
            Ok(Some(term)) => {
                self.hand_over(&seen, &term) || self.change_rule(&seen, term.clone()) || self.tell(&seen, &term)
            }
            Err(_) => false,
        }
    }

    fn seen(&self) -> Option<Seen> {
        let set = self.api.object(&self.of.sets, self.namespace, self.name)?;
        let term = self.api.object(&self.of.terms, self.namespace, self.name)?;
        let uid = text(&set, "/metadata/uid").to_owned();
        // Agents of an earlier set of this name are not heard, and hear nothing.
        if text(&term, "/spec/setUid") != uid {
            return None;
        }
        let spec: PgReplicaSetSpec = serde_json::from_value(set["spec"].clone()).ok()?;
        let named = |v: &Value| v.as_str()?.parse::<MemberName>().ok();
        let roster =
            set.pointer("/status/roster").and_then(Value::as_array).into_iter().flatten().filter_map(named).collect();
        let pods = self.list(&self.of.pods.clone(), LABEL_SET);
        let own =
            |p: &Arc<Value>| p.pointer("/metadata/ownerReferences/0/uid").and_then(Value::as_str) == Some(uid.as_str());
        let pods = pods.into_iter().filter(own).filter_map(|p| Some((named(&p["metadata"]["name"])?, p))).collect();
        Some(Seen { acknowledgements: spec.acknowledgements(), set, uid, roster, pods, term })
    }

    /// A member with the data that lies on its volume.
    fn id(&self, member: &MemberName) -> Option<MemberId> {
        let claim = self.api.object(&self.of.claims, self.namespace, &data_claim(member))?;
        let bits = text(&claim, "/metadata/uid").bytes().fold(0_u128, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
        Some(MemberId { name: member.clone(), incarnation: Incarnation::from_random(bits) })
    }

    fn write(&mut self, seen: &Seen, term: &Term) -> bool {
        let mut object = seen.term.clone();
        object["spec"] = serde_json::to_value(PgTermSpec::write(&seen.uid, term)).unwrap_or_default();
        let (terms, options) = (self.of.terms.clone(), Self::options("agent"));
        self.api.replace(&terms, self.namespace, self.name, object, &options)
    }

    /// The first member of the roster founds the database; where there is one already, whoever has it goes on.
    fn found(&mut self, seen: &Seen, remade: bool) -> bool {
        let Some(first) = seen.roster.iter().find(|m| !remade || seen.pods.get(m).is_some_and(|p| runs(p))) else {
            return false;
        };
        if !seen.pods.get(first).is_some_and(|p| runs(p)) {
            return false;
        }
        let Some(leader) = self.id(first) else { return false };
        let epoch = epoch(1 + u32::from(remade));
        let rule =
            Rule { epoch: epoch.clone(), leader: leader.clone(), followers: BTreeSet::new(), acknowledgements: 0 };
        let fork = Fork { epoch: epoch.clone(), parent: None, at: None, leader: leader.clone(), lossy: false };
        let chain = vec![epoch.id.clone()];
        let term = Term {
            epoch,
            phase: Phase::Active,
            leader: Some(leader),
            rules: vec![rule],
            lossy: false,
            history: vec![fork],
            chain,
        };
        self.write(seen, &term)
    }

    /// A leader whose pod goes is followed by the first of its followers, if there is one.
    fn hand_over(&mut self, seen: &Seen, term: &Term) -> bool {
        let Some(old) = term.rules.last() else { return false };
        let there = seen.pods.get(&old.leader.name).is_some_and(|p| !going(p));
        let able = |f: &&MemberId| seen.pods.get(&f.name).is_some_and(|p| runs(p));
        let Some(next) = old.followers.iter().find(able).filter(|_| !there) else { return false };
        let epoch = epoch(term.epoch.number + 1);
        let followers: BTreeSet<MemberId> = old.members().filter(|m| *m != next).cloned().collect();
        let acknowledgements = seen.acknowledgements.min(u32::try_from(followers.len()).unwrap_or(0));
        let rule = Rule { epoch: epoch.clone(), leader: next.clone(), followers, acknowledgements };
        let (parent, at) = (Some(TimelineId(term.epoch.number)), Some(Lsn(0x0100_0000)));
        let fork = Fork { epoch: epoch.clone(), parent, at, leader: next.clone(), lossy: false };
        let mut after = Term { leader: Some(next.clone()), rules: vec![rule], ..term.clone() };
        after.push_change(epoch.id.clone());
        after.epoch = epoch;
        after.history.push(fork);
        self.write(seen, &after)
    }

    /// Who counts: the roster, once it runs.
    fn change_rule(&mut self, seen: &Seen, mut term: Term) -> bool {
        let Some(rule) = term.rules.last_mut() else { return false };
        let mut followers: BTreeSet<MemberId> = rule
            .followers
            .iter()
            .map(|f| f.name.clone())
            .chain(seen.pods.iter().filter(|(_, p)| runs(p)).map(|(m, _)| m.clone()))
            .filter(|m| seen.roster.contains(m) && *m != rule.leader.name)
            .filter_map(|m| self.id(&m))
            .collect();
        std::mem::swap(&mut rule.followers, &mut followers);
        let w = seen.acknowledgements.min(u32::try_from(rule.followers.len()).unwrap_or(0));
        if rule.followers == followers && rule.acknowledgements == w {
            return false;
        }
        rule.acknowledgements = w;
        let change = ChangeId::from_random(1_000 + term.chain.len() as u128);
        term.push_change(change);
        self.write(seen, &term)
    }

    /// Each member says how it is.
    fn tell(&mut self, seen: &Seen, term: &Term) -> bool {
        let parameter = |name: &str| seen.set.pointer("/spec/postgresql/parameters").and_then(|p| p.get(name)).cloned();
        for (member, pod) in seen.pods.iter().filter(|(_, p)| runs(p)) {
            let leads = term.leader.as_ref().is_some_and(|l| l.name == *member);
            let mut entry = json!({
                "name": member.to_string(), "state": "Attached", "role": if leads { "Leader" } else { "Follower" },
                "epoch": term.epoch.number, "podUid": pod["metadata"]["uid"], "node": pod["spec"]["nodeName"],
                "systemId": SYSTEM_ID, "version": "17.6",
            });
            if started_with(pod) != asked(&seen.set) {
                entry["pendingRestart"] = json!([RESTART]);
            }
            if parameter(RELOAD) == Some(json!(NONSENSE)) {
                entry["configurationError"] = json!(format!("invalid value for parameter \"{RELOAD}\""));
            }
            let said = seen.set.pointer("/status/memberStates").and_then(Value::as_array).into_iter().flatten();
            if said.into_iter().any(|s| *s == entry) {
                continue;
            }
            let body = json!({
                "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
                "metadata": { "name": self.name }, "status": { "memberStates": [entry] },
            });
            let sets = self.of.sets.clone();
            let options = Self::options(&format!("{MANAGER_AGENT_PREFIX}{member}"));
            return self.api.status(&sets, self.namespace, self.name, (PatchKind::Apply, &body), &options);
        }
        false
    }
}

fn epoch(number: u32) -> Epoch {
    Epoch { number, id: ChangeId::from_random(number.into()) }
}
