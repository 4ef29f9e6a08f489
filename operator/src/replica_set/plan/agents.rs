//! Another agent in pods that stay as they are: the image is brought to each node first, then one agent after the other is replaced,
//! the leader's last. PostgreSQL runs on meanwhile, under the permission that it has.
//!
//! The kubelet ends the old container before it pulls the new one's image: an image that is not there yet, or not to be had at all,
//! would leave the member without an agent, and a leader without PostgreSQL half a minute later.

use super::{Action, Planner, RollOut, attached, containers};
use crate::kinds::{Kind, Object};
use crate::replica_set::observed::{PodSeen, PullerSeen};
use crate::replica_set::validate::Validated;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use pgconvoy_crds::names;
use pgconvoy_terms::MemberName;
use std::collections::BTreeSet;

impl Planner<'_> {
    /// Plans the next step, if there is one.
    pub(super) fn agents(&mut self) {
        let due: Vec<MemberName> = self.with_another_agent().collect();
        self.clear_pullers(&due);
        if due.is_empty() {
            return;
        }
        self.plan.agents = match self.turn(&due) {
            Ok(member) => self.replace_agent(member),
            Err(not) => not,
        };
    }

    /// Whose turn it is, once the image is where it is needed.
    fn turn(&mut self, due: &[MemberName]) -> Result<MemberName, RollOut> {
        self.may_act()?;
        if matches!(self.plan.roll_out, RollOut::Now(_) | RollOut::Waiting(_)) {
            return Err(RollOut::Waiting("until the pods that must be made anew are".to_owned()));
        }
        self.pulled(due)?;
        self.next_agent(due)
    }

    /// Members whose pods are as the spec asks but for their agent.
    fn with_another_agent(&self) -> impl Iterator<Item = MemberName> {
        self.plan.roster.iter().filter(|m| !self.plan.outdated.contains(m)).filter_map(|m| {
            let pod = self.observed.pod(&m.to_string())?;
            let another = pod.agent.image.as_ref()? != &self.set.agent_image;
            let stays = !pod.meta.deleting && !pod.ended() && !pod.meta.belongs_to_another(&self.set.uid);
            (another && stays && !self.plan.actions.iter().any(|a| a.takes_pod(&m.to_string()))).then(|| m.clone())
        })
    }

    /// Takes away what brought an image that nobody waits for any more, or to another node.
    fn clear_pullers(&mut self, due: &[MemberName]) {
        for (name, puller) in self.observed.pullers() {
            let needed = due.iter().any(|m| {
                let pod = self.observed.pod(&m.to_string());
                names::puller(m) == name && pod.is_some_and(|p| brings(puller, p, &self.set.agent_image))
            });
            if !needed && !puller.meta.deleting && puller.meta.owner.as_ref() == Some(&self.set.uid) {
                let (uid, why) = (puller.meta.uid.clone(), "the image is not waited for any more".to_owned());
                self.plan.actions.push(Action::Delete { kind: Kind::Puller, name: name.to_owned(), uid, why });
            }
        }
    }

    /// Whether the image is on every node that needs it.
    fn pulled(&mut self, due: &[MemberName]) -> Result<(), RollOut> {
        let mut missing = vec![];
        for member in due {
            let Some(pod) = self.observed.pod(&member.to_string()) else { continue };
            let Some(node) = pod.node.clone() else { continue };
            let there = self.observed.puller(&names::puller(member));
            match there.filter(|p| brings(p, pod, &self.set.agent_image)) {
                Some(there) if there.phase == "Succeeded" => {}
                there => missing.push((node.clone(), there.and_then(|p| p.trouble.clone()))),
            }
            self.create(puller(self.set, member, &node));
        }
        let worst = missing.iter().find(|(_, trouble)| trouble.is_some()).or_else(|| missing.first());
        let Some((node, trouble)) = worst else { return Ok(()) };
        let trouble = trouble.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
        Err(RollOut::Waiting(format!("until node {node} has the image {}{trouble}", self.set.agent_image)))
    }

    /// Whose agent is next.
    fn next_agent(&self, due: &[MemberName]) -> Result<MemberName, RollOut> {
        let (plan, rule) = (&self.plan, &self.plan.rule);
        let waiting = |why: String| Err(RollOut::Waiting(why));
        if !rule.active || rule.rules != 1 {
            return waiting("until a leader is active".to_owned());
        }
        let attached: BTreeSet<&MemberName> = attached(self.observed, plan).collect();
        let fine = |m: &MemberName| {
            attached.contains(m) && self.observed.pod(&m.to_string()).is_some_and(|p| p.agent.settled())
        };
        let leads = |m: &MemberName| rule.leader.as_ref() == Some(m);
        // Whoever takes no part just now costs nothing; an agent that fails is cured by the next image, or the last.
        if let Some(idle) = due.iter().find(|m| !fine(m) && !leads(m)) {
            return Ok(idle.clone());
        }
        if let Some(member) = plan.roster.iter().find(|m| !fine(m) && !due.contains(m)) {
            return waiting(format!("until the agent of {member} has settled"));
        }
        due.iter().find(|m| !leads(m)).or_else(|| due.first()).cloned().ok_or(RollOut::Done)
    }

    fn replace_agent(&mut self, member: MemberName) -> RollOut {
        let Some(pod) = self.observed.pod(&member.to_string()) else { return RollOut::Done };
        self.plan.actions.push(Action::ReplaceAgent {
            member: member.clone(),
            uid: pod.meta.uid.clone(),
            image: self.set.agent_image.clone(),
            before: pod.agent.container.clone().unwrap_or_default(),
        });
        RollOut::Now(member)
    }
}

fn brings(puller: &PullerSeen, pod: &PodSeen, image: &str) -> bool {
    puller.image.as_deref() == Some(image) && puller.node == pod.node
}

/// A pod that ends as soon as the image is there and has shown that it runs.
fn puller(set: &Validated, member: &MemberName, node: &str) -> Object {
    let name = names::puller(member);
    let mut metadata = set.owned(&name);
    metadata.labels = Some([(names::LABEL_PULLS_FOR.to_owned(), set.name.clone())].into());
    let pull_secrets = &set.spec.image_pull_secrets;
    let spec = PodSpec {
        node_name: Some(node.to_owned()),
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(1),
        security_context: Some(super::pod::security(set)),
        containers: vec![containers::pull(set)],
        // Where the member runs, this does.
        tolerations: Some(vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }]),
        image_pull_secrets: (!pull_secrets.is_empty()).then(|| pull_secrets.clone()),
        ..PodSpec::default()
    };
    Object::new(Kind::Puller, &name, &Pod { metadata, spec: Some(spec), status: None })
}
