//! Does what the plan says. No decision about policy is made here.

use super::observed::{Observed, Rule};
use super::plan::{Action, Stage};
use super::problem::{ANNOTATION_SET_UID, Problem};
use super::validate::Validated;
use super::{Context, events};
use crate::kinds::{Kind, Object};
use crate::world::prune::fingerprint;
use futures::StreamExt;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::runtime::events::Event;
use pgconvoy_crds::names::{ANNOTATION_AGENT_BEFORE, MANAGER_AGENT_PREFIX, MANAGER_OPERATOR};
use pgconvoy_crds::{PgReplicaSet, PgTerm, pod};
use pgconvoy_terms::MemberName;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// Deadline of one call to the API server.
pub const CALL: Duration = Duration::from_secs(10);
/// How many calls for one set run at once.
const AT_ONCE: usize = 6;

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s when asked to {verb} {kind} {name}", CALL.as_secs())]
    Deadline {
        /// What was asked.
        verb: &'static str,
        /// Of what.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// What was known is outdated; it is looked at again at once.
    #[error("{kind} {name} changed meanwhile")]
    Stale {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The name belongs to somebody else.
    #[error("{}", Problem::NameTaken { kind: *kind, name: name.clone() })]
    NameTaken {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The API server refused.
    #[error("the API server refuses to {verb} {kind} {name}: {source}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Of what.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What it said.
        #[source]
        source: kube::Error,
    },
    /// The API server cannot be reached, or answers with something else than an answer.
    #[error("could not {verb} {kind} {name}: {source}")]
    Unreachable {
        /// What was asked.
        verb: &'static str,
        /// Of what.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
}

impl ApplyError {
    /// The error as something to tell the user; `None` when it passes by itself.
    pub fn problem(&self) -> Option<Problem> {
        match self {
            ApplyError::NameTaken { kind, name } => Some(Problem::NameTaken { kind: *kind, name: name.clone() }),
            ApplyError::Refused { verb, kind, name, source: kube::Error::Api(status) } => {
                Some(Problem::Refused(format!("the API server refuses to {verb} {kind} {name}: {}", status.message)))
            }
            _ => None,
        }
    }

    /// The word for it in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            ApplyError::Deadline { .. } => "Deadline",
            ApplyError::Stale { .. } => "Stale",
            ApplyError::NameTaken { .. } => "NameTaken",
            ApplyError::Refused { .. } => "Refused",
            ApplyError::Unreachable { .. } => "Unreachable",
        }
    }
}

/// What was applied last, and how the object looked right after: as long as both stay, there is nothing to do.
#[derive(Debug, Default)]
pub struct Memo {
    sets: Mutex<HashMap<String, AppliedByName>>,
}

type AppliedByName = HashMap<(Kind, String), Applied>;

#[derive(Debug, Clone, PartialEq)]
struct Applied {
    wanted: String,
    after: String,
}

impl Memo {
    /// Whether `object` of the set with this UID must be applied, given what is there.
    pub fn must_apply(&self, uid: &str, object: &Object, observed: &Observed) -> bool {
        let seen = observed.meta(object.kind, &object.name).and_then(|m| m.fingerprint.clone());
        let Some(seen) = seen else { return true };
        let wanted = crate::hash::fingerprint(&object.body);
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = sets.get(uid).and_then(|s| s.get(&(object.kind, object.name.clone())));
        applied != Some(&Applied { wanted, after: seen })
    }

    /// Remembers that `object` was applied and how it looks now.
    pub fn applied(&self, uid: &str, object: &Object, after: &DynamicObject) {
        let applied = Applied { wanted: crate::hash::fingerprint(&object.body), after: fingerprint(after) };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.entry(uid.to_owned()).or_default().insert((object.kind, object.name.clone()), applied);
    }

    /// Forgets the sets that `alive` does not know.
    pub fn retain(&self, alive: impl Fn(&str) -> bool) {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| alive(uid));
    }
}

/// Does `actions`, stage by stage. Within a stage one failure does not keep the others from being done.
///
/// # Errors
/// The first failure; the stages behind it are not begun.
pub async fn apply(
    context: &Context,
    set: &Validated,
    observed: &Observed,
    actions: Vec<Action>,
) -> (Vec<Event>, Result<(), ApplyError>) {
    let mut deeds = vec![];
    for stage in [Stage::Ground, Stage::Surroundings, Stage::Pods] {
        let work = Work { context, set, observed };
        let of_stage = actions.iter().filter(|a| a.stage() == stage);
        let results: Vec<_> =
            futures::stream::iter(of_stage.map(|a| work.act(a))).buffer_unordered(AT_ONCE).collect().await;
        let mut failure = None;
        for result in results {
            match result {
                Ok(event) => deeds.extend(event),
                // A lasting failure tells more than one that passes.
                Err(e) if failure.is_none() || e.problem().is_some() => failure = Some(e),
                Err(e) => tracing::debug!(set = set.name, error = %e, "another failure of the same stage"),
            }
        }
        if let Some(failure) = failure {
            return (deeds, Err(failure));
        }
    }
    (deeds, Ok(()))
}

/// Awaits one call within its deadline, and says what went wrong with it.
pub(crate) async fn call<T>(
    verb: &'static str,
    kind: &'static str,
    name: &str,
    what: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApplyError> {
    match tokio::time::timeout(CALL, what).await {
        Ok(Ok(done)) => Ok(done),
        Err(_) => Err(ApplyError::Deadline { verb, kind, name: name.to_owned() }),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            Err(ApplyError::Stale { kind, name: name.to_owned() })
        }
        // "Too many requests" and errors of the server itself pass: no refusal.
        Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
            Err(ApplyError::Refused { verb, kind, name: name.to_owned(), source: kube::Error::Api(status) })
        }
        Ok(Err(source)) => Err(ApplyError::Unreachable { verb, kind, name: name.to_owned(), source }),
    }
}

/// Labels that the object should have and has not.
fn lost_labels(wanted: &Value, there: &DynamicObject) -> serde_json::Map<String, Value> {
    let has = |name: &str| there.metadata.labels.as_ref().and_then(|l| l.get(name));
    let wanted = wanted.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    wanted.filter(|(k, v)| has(k).map(String::as_str) != v.as_str()).map(|(k, v)| (k.clone(), v.clone())).collect()
}

struct Work<'a> {
    context: &'a Context,
    set: &'a Validated,
    observed: &'a Observed,
}

impl Work<'_> {
    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.context.client.clone(), &self.set.namespace, &kind.resource())
    }

    async fn act(&self, action: &Action) -> Result<Option<Event>, ApplyError> {
        match action {
            Action::Create(object) => self.create(object).await,
            Action::Apply(object) => self.apply(object).await.map(|()| None),
            Action::Patch { kind, name, body } => self.patch(*kind, name, body).await,
            Action::Delete { kind, name, uid, why } => {
                tracing::info!(set = self.set.name, %kind, name, why, "deleting");
                self.delete(*kind, name, uid).await?;
                let replaced = || {
                    let event = events::warning("MemberReplaced", &format!("{name} is made again: {why}"));
                    events::of_member(event, &self.set.namespace, name)
                };
                Ok((*kind == Kind::Pod).then(replaced))
            }
            Action::Restart { member, pods, why } => self.restart(member, pods, why).await,
            Action::ReplaceAgent { member, uid, image, before } => self.replace_agent(member, uid, image, before).await,
            Action::Remove { member, pod, claim, secret } => {
                self.remove(member, pod.as_deref(), claim.as_ref(), secret.as_ref()).await
            }
            Action::Forget(member) => self.forget(member).await.map(|()| None),
        }
    }

    fn written(&self, verb: &'static str, kind: Kind) {
        self.context.metrics.write(verb, kind.as_str());
    }

    async fn create(&self, object: &Object) -> Result<Option<Event>, ApplyError> {
        let Object { kind, name, body } = object;
        let api = self.api(*kind);
        let parameters = PostParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PostParams::default() };
        let typed: DynamicObject = match serde_json::from_value(body.clone()) {
            Ok(typed) => typed,
            Err(e) => {
                let source = kube::Error::SerdeError(e);
                return Err(ApplyError::Unreachable {
                    verb: "create",
                    kind: kind.as_str(),
                    name: name.clone(),
                    source,
                });
            }
        };
        self.written("create", *kind);
        match call("create", kind.as_str(), name, api.create(&parameters, &typed)).await {
            Ok(_) => {
                tracing::info!(set = self.set.name, namespace = self.set.namespace, %kind, name, "made");
                Ok(self.made(*kind, name))
            }
            Err(ApplyError::Stale { .. }) => self.there_already(object).await.map(|()| None),
            Err(e) => Err(e),
        }
    }

    fn made(&self, kind: Kind, name: &str) -> Option<Event> {
        match kind {
            Kind::Pod => {
                let event = events::deed("MemberMade", &format!("made pod {name}"));
                Some(events::of_member(event, &self.set.namespace, name))
            }
            Kind::Secret if name.ends_with("-ca") && self.observed.status.epoch.is_some() => Some(events::warning(
                "AuthorityMadeAnew",
                &format!(
                    "the Secret {name} was gone: a new authority was made, and every member gets new certificates"
                ),
            )),
            _ => None,
        }
    }

    /// After "already exists": ours, which the watch has not shown yet, or never will because somebody took its labels, or somebody
    /// else's?
    async fn there_already(&self, object: &Object) -> Result<(), ApplyError> {
        let (kind, name) = (object.kind, object.name.as_str());
        let stale = || ApplyError::Stale { kind: kind.as_str(), name: name.to_owned() };
        let Some(there) = call("read", kind.as_str(), name, self.api(kind).get_opt(name)).await? else {
            return Err(stale());
        };
        if !self.is_ours(&there) {
            return Err(ApplyError::NameTaken { kind, name: name.to_owned() });
        }
        let lost = lost_labels(&object.body, &there);
        if !lost.is_empty() {
            tracing::info!(set = self.set.name, namespace = self.set.namespace, %kind, name, "puts its labels back");
            self.patch_with(kind, name, &Patch::Merge(json!({ "metadata": { "labels": lost } }))).await?;
        }
        // What was made from an authority that is not the one in force must not be used.
        if kind == Kind::Secret { Err(stale()) } else { Ok(()) }
    }

    fn is_ours(&self, there: &DynamicObject) -> bool {
        let m = &there.metadata;
        let owned = m.owner_references.iter().flatten().any(|o| o.uid == self.set.uid);
        let marked = m.annotations.as_ref().and_then(|a| a.get(ANNOTATION_SET_UID)) == Some(&self.set.uid);
        owned || marked
    }

    async fn apply(&self, object: &Object) -> Result<(), ApplyError> {
        if !self.context.memo.must_apply(&self.set.uid, object, self.observed) {
            return Ok(());
        }
        let Object { kind, name, body } = object;
        let api = self.api(*kind);
        // Server-side apply would take over whatever has the name: look first.
        if self.observed.meta(*kind, name).is_none()
            && let Some(there) = call("read", kind.as_str(), name, api.get_opt(name)).await?
            && !self.is_ours(&there)
        {
            return Err(ApplyError::NameTaken { kind: *kind, name: name.clone() });
        }
        let parameters = PatchParams::apply(MANAGER_OPERATOR).force();
        self.written("apply", *kind);
        let after = call("apply", kind.as_str(), name, api.patch(name, &parameters, &Patch::Apply(body))).await?;
        self.context.memo.applied(&self.set.uid, object, &after);
        Ok(())
    }

    async fn patch(&self, kind: Kind, name: &str, body: &Value) -> Result<Option<Event>, ApplyError> {
        self.patch_with(kind, name, &Patch::Merge(body.clone())).await?;
        let renewed = || events::deed("CertificatesRenewed", &format!("made new certificates in Secret {name}"));
        Ok((kind == Kind::Secret && name.ends_with("-tls")).then(renewed))
    }

    async fn patch_with(&self, kind: Kind, name: &str, patch: &Patch<Value>) -> Result<(), ApplyError> {
        let parameters = PatchParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PatchParams::default() };
        self.written("patch", kind);
        match call("change", kind.as_str(), name, self.api(kind).patch(name, &parameters, patch)).await {
            Err(ApplyError::Refused { source: kube::Error::Api(s), .. }) if s.is_not_found() => {
                Err(ApplyError::Stale { kind: kind.as_str(), name: name.to_owned() })
            }
            other => other.map(|_| ()),
        }
    }

    async fn delete(&self, kind: Kind, name: &str, uid: &str) -> Result<(), ApplyError> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        self.written("delete", kind);
        match call("delete", kind.as_str(), name, self.api(kind).delete(name, &parameters)).await {
            Err(ApplyError::Refused { source: kube::Error::Api(s), .. }) if s.is_not_found() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Deletes a member's pod for a roll-out, if a fresh look finds everything as it was planned for.
    async fn restart(
        &self,
        member: &MemberName,
        pods: &BTreeMap<String, String>,
        why: &str,
    ) -> Result<Option<Event>, ApplyError> {
        let stale = |kind: Kind| ApplyError::Stale { kind: kind.as_str(), name: self.set.name.clone() };
        let terms: Api<PgTerm> = Api::namespaced(self.context.client.clone(), &self.set.namespace);
        let term = call("read", Kind::Term.as_str(), &self.set.name, terms.get(&self.set.name)).await?;
        let planned = self.observed.term(&self.set.name).and_then(|t| t.spec.as_ref().ok());
        if planned != Some(&term.spec) {
            return Err(stale(Kind::Term));
        }
        let selector = ListParams::default().labels(&self.set.selector());
        let list = call("list", Kind::Pod.as_str(), &self.set.name, self.api(Kind::Pod).list(&selector)).await?;
        let now: BTreeMap<String, String> = list
            .items
            .iter()
            .filter(|p| p.metadata.deletion_timestamp.is_none())
            .filter_map(|p| Some((p.metadata.name.clone()?, p.metadata.uid.clone()?)))
            .collect();
        let (Some(uid), true) = (pods.get(&member.to_string()), now == *pods && list.items.len() == pods.len()) else {
            return Err(stale(Kind::Pod));
        };
        tracing::info!(set = self.set.name, %member, why, "rolling out");
        self.delete(Kind::Pod, &member.to_string(), uid).await?;
        let event = events::deed("MemberRestarted", &format!("{member} is made anew: {why}"));
        Ok(Some(events::of_member(event, &self.set.namespace, &member.to_string())))
    }

    /// Has the kubelet run another agent in this pod. What put the supervisor in its place is of the same image: it ran long ago,
    /// and runs again only with the next pod.
    async fn replace_agent(
        &self,
        member: &MemberName,
        uid: &str,
        image: &str,
        before: &str,
    ) -> Result<Option<Event>, ApplyError> {
        let name = member.to_string();
        let containers = [pod::CONTAINER_PLACE, pod::CONTAINER_AGENT].map(|c| json!({"name": c, "image": image}));
        let body = json!({
            "metadata": {"uid": uid, "annotations": {ANNOTATION_AGENT_BEFORE: before}},
            "spec": {"initContainers": containers},
        });
        tracing::info!(set = self.set.name, %member, image, "replacing the agent");
        self.patch_with(Kind::Pod, &name, &Patch::Strategic(body)).await?;
        let event = events::deed("AgentReplaced", &format!("the agent of {name} is now {image}; PostgreSQL runs on"));
        Ok(Some(events::of_member(event, &self.set.namespace, &name)))
    }

    /// Takes a member away, if a fresh read of the term agrees: the watch may be behind.
    async fn remove(
        &self,
        member: &MemberName,
        pod: Option<&str>,
        claim: Option<&(String, String)>,
        secret: Option<&(String, String)>,
    ) -> Result<Option<Event>, ApplyError> {
        let terms: Api<PgTerm> = Api::namespaced(self.context.client.clone(), &self.set.namespace);
        let term = call("read", Kind::Term.as_str(), &self.set.name, terms.get(&self.set.name)).await?;
        let rule = Rule::read(&term.spec).unwrap_or_default();
        if term.spec.set_uid != self.set.uid || !rule.lets_go(member) {
            return Err(ApplyError::Stale { kind: Kind::Term.as_str(), name: self.set.name.clone() });
        }
        tracing::info!(set = self.set.name, %member, volume = claim.is_some(), "taking the member away");
        if let Some(uid) = pod {
            self.delete(Kind::Pod, &member.to_string(), uid).await?;
        }
        if let Some((name, uid)) = claim {
            self.delete(Kind::Claim, name, uid).await?;
        }
        if let Some((name, uid)) = secret {
            self.delete(Kind::Secret, name, uid).await?;
        }
        let what = if claim.is_some() { "pod and volume go" } else { "its pod goes, its volume stays" };
        Ok(pod.map(|_| {
            let event = events::deed("MemberRemoved", &format!("{member} has left the set; {what}"));
            events::of_member(event, &self.set.namespace, &member.to_string())
        }))
    }

    /// Drops what a member said of itself: an apply by its own field manager that holds nothing gives up all it owned.
    async fn forget(&self, member: &MemberName) -> Result<(), ApplyError> {
        let api: Api<PgReplicaSet> = Api::namespaced(self.context.client.clone(), &self.set.namespace);
        let manager = format!("{MANAGER_AGENT_PREFIX}{member}");
        let nothing = json!({
            "apiVersion": self.set.owner().api_version,
            "kind": "PgReplicaSet",
            "metadata": {"name": self.set.name, "uid": self.set.uid},
        });
        self.context.metrics.write("apply", "PgReplicaSet");
        let parameters = PatchParams::apply(&manager).force();
        let patch = Patch::Apply(&nothing);
        call("apply", "PgReplicaSet", &self.set.name, api.patch_status(&self.set.name, &parameters, &patch)).await?;
        Ok(())
    }
}
