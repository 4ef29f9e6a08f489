//! The controller of PgReplicaSet: dereference → validate → plan → apply → status.
//!
//! Everything that decides is pure and lies in [`plan`], [`status`], [`certificates::needs`] and [`validate`].

pub mod apply;
pub mod archive;
pub mod certificates;
pub mod dereference;
pub mod events;
pub mod observed;
pub mod plan;
pub mod problem;
mod retry;
pub mod status;
pub mod validate;

#[cfg(test)]
mod tests;

pub use retry::{Retries, error_policy};

use crate::metrics::Metrics;
use crate::world::{Guarded, Index};
use apply::{ApplyError, Memo, apply, call};
use certificates::{CertificateError, Material, issue, needs};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, Resource};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, Recorder};
use kube::{Client, ResourceExt};
use observed::Observed;
use pgconvoy_crds::names::MANAGER_OPERATOR;
use pgconvoy_crds::{GROUP, PgReplicaSet, PgReplicaSetStatus, VERSION};
use plan::{Plan, plan, wanted_members};
use problem::Problem;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use validate::{Validated, validate};

/// What every reconcile needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What is known of the cluster.
    pub index: Arc<Index>,
    /// What was applied last.
    pub memo: Memo,
    /// How often each set failed in a row.
    pub retries: Retries,
    /// Where events go.
    pub recorder: Recorder,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// The agents' image.
    pub agent_image: String,
}

/// Why a reconcile did not come to its end.
#[derive(Debug, Error)]
pub enum Error {
    /// Something could not be done.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Error {
    /// The word for it in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Apply(e) => e.reason(),
            Error::Certificate(CertificateError::AuthorityUnusable(_)) => "AuthorityUnusable",
            Error::Certificate(CertificateError::Make(_)) => "CertificateNotMade",
        }
    }

    fn problem(&self) -> Option<Problem> {
        match self {
            Error::Apply(e) => e.problem(),
            Error::Certificate(e) => Some(Problem::Refused(e.to_string())),
        }
    }
}

/// Brings one set nearer to what its spec asks.
///
/// # Errors
/// What could not be done. The status has been written all the same, where that was possible.
pub async fn reconcile(set: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let set = match &set.0 {
        Ok(set) => set,
        Err(invalid) => {
            tracing::warn!(set = invalid.metadata.name, error = %invalid, "the PgReplicaSet cannot be read; waiting for a change");
            return Ok(Action::await_change());
        }
    };
    if set.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let started = std::time::Instant::now();
    let result = reconcile_one(set, &context).await;
    context.metrics.reconciled(started.elapsed(), result.as_ref().err().map_or("ok", Error::reason));
    if result.is_ok() {
        context.retries.succeeded(&set.uid().unwrap_or_default());
    }
    result
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates live by it, and conditions show it; neither says who leads"
)]
async fn reconcile_one(set: &PgReplicaSet, context: &Context) -> Result<Action, Error> {
    let now = Timestamp::now();
    let before = set.status.clone().unwrap_or_default();
    let valid = match validate(set, &context.agent_image) {
        Ok(valid) => valid,
        Err(wrong) => {
            let problem = Problem::SpecInvalid(wrong.join("; "));
            let status = status::invalid(&before, &problem, set.metadata.generation.unwrap_or_default(), now);
            write_status(context, set, &before, status).await?;
            return Ok(Action::await_change());
        }
    };
    let things = context.index.snapshot(&valid.namespace, &valid.name);
    let mut observed = Observed { things, status: before.clone(), ..Observed::default() };
    observed.no_such_class = dereference::missing_class(context, &observed).await;
    observed.archive = archive::dereference(context, &valid, before.system_id.is_none()).await;

    let needs = needs(&valid, &observed, &wanted_members(&valid, &observed), now);
    let material = make_material(context, &valid, &observed, &needs, now).await;
    let (material, failure) = match material {
        Ok(material) => (material, None),
        Err(e) => (Material::default(), Some(e)),
    };
    let mut plan = plan(&valid, &observed, &material);
    let actions = std::mem::take(&mut plan.actions);
    let (deeds, done) = match failure {
        None => apply(context, &valid, &observed, actions).await,
        Some(_) => (vec![], Ok(())),
    };
    let result = match failure {
        None => done.map_err(Error::from),
        Some(failure) => Err(failure),
    };

    tell(context, set, &valid, &observed, plan, deeds, result.as_ref().err(), now).await?;
    result?;
    let certificates = needs.due.map(|due| until(due, now));
    let asked = observed.archive != archive::ArchiveSeen::NotAsked;
    let archive = asked.then_some(archive::LOOK_AGAIN);
    Ok(certificates.into_iter().chain(archive).min().map_or_else(Action::await_change, Action::requeue))
}

async fn make_material(
    context: &Context,
    set: &Validated,
    observed: &Observed,
    needs: &certificates::Needs,
    now: Timestamp,
) -> Result<Material, Error> {
    let authority = dereference::authority(context, set, needs).await?;
    Ok(issue(set, observed, needs, authority, now)?)
}

/// Never sooner than in a minute: a due time that has passed means that this very reconcile has seen to it.
fn until(due: Timestamp, now: Timestamp) -> Duration {
    let wait = Duration::try_from(due.duration_since(now)).unwrap_or_default();
    wait.clamp(Duration::from_secs(60), Duration::from_secs(86_400))
}

#[allow(clippy::too_many_arguments)]
async fn tell(
    context: &Context,
    set: &PgReplicaSet,
    valid: &Validated,
    observed: &Observed,
    mut plan: Plan,
    deeds: Vec<Event>,
    failure: Option<&Error>,
    now: Timestamp,
) -> Result<(), Error> {
    plan.problems.extend(failure.and_then(Error::problem));
    let status = status::status(valid, observed, &plan, now);
    publish(context, set, deeds).await;
    write_status(context, set, &observed.status, status).await
}

async fn write_status(
    context: &Context,
    set: &PgReplicaSet,
    before: &PgReplicaSetStatus,
    status: PgReplicaSetStatus,
) -> Result<(), Error> {
    if status::says(before, &status) {
        return Ok(());
    }
    let name = set.name_any();
    let namespace = set.namespace().unwrap_or_default();
    let api: Api<PgReplicaSet> = Api::namespaced(context.client.clone(), &namespace);
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "PgReplicaSet",
        // A set that was deleted and made again meanwhile is another one, and must not hear that it was in an epoch. For a status the
        // API server does not look at the UID; what this was decided by, it does.
        "metadata": {"name": name, "resourceVersion": set.resource_version()},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER_OPERATOR).force();
    context.metrics.write("apply", "PgReplicaSet");
    call("write the status of", "PgReplicaSet", &name, api.patch_status(&name, &parameters, &Patch::Apply(&body)))
        .await?;
    publish(context, set, events::transitions(before, &status)).await;
    Ok(())
}

/// Events are for people: one that cannot be written is logged and forgotten.
async fn publish(context: &Context, set: &PgReplicaSet, events: Vec<Event>) {
    let reference = set.object_ref(&());
    for event in events {
        context.metrics.write("create", "Event");
        let published = tokio::time::timeout(apply::CALL, context.recorder.publish(&event, &reference)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::warn!(
                set = set.name_any(),
                reason = event.reason,
                note = event.note,
                "an event could not be written"
            );
        }
    }
}
