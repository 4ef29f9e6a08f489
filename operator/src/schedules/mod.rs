//! The controller of PgSnapshotSchedules: it makes PgSnapshots when they are due. Whoever takes them decides by itself.
//!
//! Everything that decides is pure: [`timetable`] knows the times, [`decide`] which run is due, [`status`] what is said. Here is
//! what asks and writes. It works from watches, so an idle schedule costs the API server nothing.

mod decide;
pub mod status;
#[cfg(test)]
mod tests;
mod timetable;

use crate::metrics::Metrics;
use crate::replica_set::apply::{ApplyError, CALL, call};
use crate::replica_set::events;
use crate::world::{Guarded, Scope, set_ref};
use decide::{Decision, Run, decide, ground};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, Resource};
use kube::runtime::events::{Event, Recorder};
use kube::runtime::reflector::{self, Store};
use kube::{Client, ResourceExt};
use pgconvoy_crds::names::{LABEL_SET, MANAGER_OPERATOR};
use pgconvoy_crds::{GROUP, PgSnapshot, PgSnapshotSchedule, PgSnapshotScheduleStatus, PgSnapshotSpec, VERSION};
use serde_json::json;
use status::{Known, Outcome, is_open, reasons, surplus};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How often all schedules are looked at when nothing changes: a snapshot is so late at most.
const LOOK: Duration = Duration::from_secs(5);
/// After a failure a schedule is left alone for so long.
const AGAIN: Duration = Duration::from_secs(15);
/// Label on PgSnapshots: the schedule that they come from.
pub const LABEL_SCHEDULE: &str = "pgconvoy.dev/schedule";

/// A schedule as it comes from the API server: one that cannot be read does not hide the others.
type Schedule = kube::core::DeserializeGuard<PgSnapshotSchedule>;
type Snapshot = kube::core::DeserializeGuard<PgSnapshot>;

/// What is known of schedules and snapshots.
pub struct Schedules {
    schedules: Store<Schedule>,
    snapshots: Store<Snapshot>,
    changed: Arc<Notify>,
}

/// Watches both kinds, for ever.
pub fn watch(client: &Client, scope: &Scope, tasks: &mut JoinSet<&'static str>) -> Schedules {
    let (schedules, schedule_writer) = reflector::store();
    let (snapshots, snapshot_writer) = reflector::store();
    let changed = Arc::new(Notify::new());
    let (of_schedules, of_snapshots) =
        (scope.stream::<Schedule>(client, schedule_writer), scope.stream::<Snapshot>(client, snapshot_writer));
    let notify = changed.clone();
    tasks.spawn(async move {
        follow("PgSnapshotSchedule", of_schedules, &notify).await;
        "PgSnapshotSchedule"
    });
    let notify = changed.clone();
    tasks.spawn(async move {
        follow("PgSnapshot", of_snapshots, &notify).await;
        "PgSnapshot"
    });
    Schedules { schedules, snapshots, changed }
}

async fn follow<K>(
    kind: &'static str,
    stream: impl futures::Stream<Item = Result<kube::runtime::watcher::Event<K>, kube::runtime::watcher::Error>>,
    changed: &Notify,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(_) => changed.notify_one(),
            Err(error) => tracing::warn!(kind, %error, "the watch was interrupted; it is opened again"),
        }
    }
}

/// What the controller works with.
pub struct Scheduler {
    /// The API server.
    pub client: Client,
    /// Where events go.
    pub recorder: Recorder,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// The sets.
    pub sets: Store<Guarded>,
    /// What is known.
    pub known: Schedules,
}

impl Scheduler {
    /// Never ends.
    pub async fn run(self) {
        // Half of what there is would be too few snapshots, or one too many.
        let known = &self.known;
        let (a, b, c) =
            (known.schedules.wait_until_ready(), known.snapshots.wait_until_ready(), self.sets.wait_until_ready());
        // An error means that the watch has ended, which ends the operator anyway.
        let _ = tokio::join!(a, b, c);
        let mut resting: HashMap<String, Instant> = HashMap::new();
        loop {
            resting.retain(|_, since| since.elapsed() < AGAIN);
            for schedule in known.schedules.state() {
                let Ok(schedule) = &schedule.0 else { continue };
                let uid = schedule.uid().unwrap_or_default();
                if schedule.metadata.deletion_timestamp.is_some() || resting.contains_key(&uid) {
                    continue;
                }
                let name = schedule.name_any();
                match self.look(schedule).await {
                    Ok(()) => {}
                    Err(ApplyError::Stale { .. }) => tracing::debug!(schedule = name, "looking again"),
                    Err(error) => {
                        tracing::warn!(schedule = name, namespace = schedule.namespace(), %error, "could not see to the schedule");
                        resting.insert(uid, Instant::now());
                    }
                }
            }
            // Many changes come together.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = tokio::time::timeout(LOOK, known.changed.notified()).await;
        }
    }

    #[expect(clippy::disallowed_methods, reason = "schedules are about the wall clock")]
    async fn look(&self, schedule: &PgSnapshotSchedule) -> Result<(), ApplyError> {
        let now = Timestamp::now();
        let namespace = schedule.namespace().unwrap_or_default();
        let before = schedule.status.clone().unwrap_or_default();
        let made = schedule.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
        let ground = ground(&schedule.spec, &before, made, now);
        let all = self.known.snapshots.state();
        let own = own(schedule, all.iter().filter_map(|s| s.0.as_ref().ok()));
        let outcome = match (decide(&schedule.spec, &ground, now), self.nobody(&namespace, &schedule.spec.set)) {
            (Decision::Invalid(why), _) => Outcome::Invalid(why),
            (Decision::Suspended, _) => Outcome::Suspended,
            (_, Some((reason, message))) => Outcome::Nobody { reason, message },
            (Decision::Wait { next }, None) => Outcome::Waiting { next },
            (Decision::Run(run), None) => self.begin(schedule, &namespace, run).await?,
        };
        let known = Known {
            before: &before,
            generation: schedule.metadata.generation.unwrap_or_default(),
            ground: &ground,
            own: &own,
        };
        let after = status::status(&known, &outcome, now);
        if after != before {
            self.write(schedule, &namespace, &after).await?;
            for event in told(&before, &after, &outcome) {
                self.tell(schedule, event).await;
            }
        }
        let limits = schedule.spec.history.clone().unwrap_or_default().limits();
        for snapshot in surplus(&own, limits) {
            self.forget(&namespace, snapshot).await?;
        }
        Ok(())
    }

    /// Why there is nobody to take snapshots of.
    fn nobody(&self, namespace: &str, set: &str) -> Option<(&'static str, String)> {
        let there = self.sets.get(&set_ref(namespace, set)).filter(|s| s.meta().deletion_timestamp.is_none());
        match there.as_deref() {
            None => Some((
                reasons::NO_SET,
                format!("there is no PgReplicaSet {set} in this namespace; snapshots begin when there is"),
            )),
            Some(there) if there.0.as_ref().is_ok_and(|s| s.spec.archive.is_none()) => Some((
                reasons::NO_ARCHIVE,
                format!("PgReplicaSet {set} has no archive; name one in its spec.archive.ref, and snapshots begin"),
            )),
            Some(_) => None,
        }
    }

    /// Makes the snapshot of a run, unless another one of the set has not ended.
    async fn begin(&self, schedule: &PgSnapshotSchedule, namespace: &str, run: Run) -> Result<Outcome, ApplyError> {
        let api: Api<PgSnapshot> = Api::namespaced(self.client.clone(), namespace);
        let name = snapshot_name(&schedule.name_any(), run.due);
        // The watch may be behind: what was made a moment ago counts.
        let listed = call("list", "PgSnapshot", &schedule.spec.set, api.list(&ListParams::default())).await?;
        if listed.items.iter().any(|s| s.name_any() == name && is_owned_by(s, schedule)) {
            return Ok(Outcome::Made { run, name });
        }
        let open = listed.items.iter().find(|s| s.spec.set == schedule.spec.set && is_open(s));
        if let Some(open) = open {
            return Ok(Outcome::Delayed { run, by: open.name_any() });
        }
        let snapshot = snapshot(schedule, &name);
        let parameters = PostParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PostParams::default() };
        self.metrics.write("create", "PgSnapshot");
        call("create", "PgSnapshot", &name, api.create(&parameters, &snapshot)).await?;
        tracing::info!(schedule = schedule.name_any(), namespace, name, due = %run.due, missed = run.missed, "made a snapshot");
        Ok(Outcome::Made { run, name })
    }

    async fn write(
        &self,
        schedule: &PgSnapshotSchedule,
        namespace: &str,
        status: &PgSnapshotScheduleStatus,
    ) -> Result<(), ApplyError> {
        let name = schedule.name_any();
        let api: Api<PgSnapshotSchedule> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "PgSnapshotSchedule",
            // One that was deleted and made again meanwhile is another.
            "metadata": {"name": name, "uid": schedule.uid()},
            "status": status,
        });
        let parameters = PatchParams::apply(MANAGER_OPERATOR).force();
        self.metrics.write("apply", "PgSnapshotSchedule");
        let patch = Patch::Apply(&body);
        let patched = api.patch_status(&name, &parameters, &patch);
        call("write the status of", "PgSnapshotSchedule", &name, patched).await.map(drop)
    }

    async fn forget(&self, namespace: &str, snapshot: &PgSnapshot) -> Result<(), ApplyError> {
        let name = snapshot.name_any();
        let api: Api<PgSnapshot> = Api::namespaced(self.client.clone(), namespace);
        let preconditions = Some(Preconditions { uid: snapshot.uid(), resource_version: None });
        self.metrics.write("delete", "PgSnapshot");
        match call(
            "delete",
            "PgSnapshot",
            &name,
            api.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }),
        )
        .await
        {
            Err(ApplyError::Refused { source: kube::Error::Api(s), .. }) if s.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Events are for people: one that cannot be written is logged and forgotten.
    async fn tell(&self, schedule: &PgSnapshotSchedule, event: Event) {
        self.metrics.write("create", "Event");
        let reference = schedule.object_ref(&());
        let published = tokio::time::timeout(CALL, self.recorder.publish(&event, &reference)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::warn!(
                schedule = schedule.name_any(),
                reason = event.reason,
                note = event.note,
                "an event could not be written"
            );
        }
    }
}

/// The name of a run's PgSnapshot: the same for whoever makes it, so that it is made once.
fn snapshot_name(schedule: &str, due: Timestamp) -> String {
    format!("{schedule}-{}", due.strftime("%Y%m%dt%H%M"))
}

fn is_owned_by(snapshot: &PgSnapshot, schedule: &PgSnapshotSchedule) -> bool {
    let uid = schedule.uid();
    snapshot.metadata.owner_references.iter().flatten().any(|o| Some(&o.uid) == uid.as_ref())
}

/// The snapshots of a schedule, the oldest first: their names hold the time.
fn own<'a>(schedule: &PgSnapshotSchedule, all: impl Iterator<Item = &'a PgSnapshot>) -> Vec<&'a PgSnapshot> {
    let namespace = schedule.namespace();
    let mut own: Vec<_> = all.filter(|s| s.namespace() == namespace && is_owned_by(s, schedule)).collect();
    own.sort_by_key(|s| s.name_any());
    own
}

fn snapshot(schedule: &PgSnapshotSchedule, name: &str) -> PgSnapshot {
    let labels = [(LABEL_SCHEDULE, schedule.name_any()), (LABEL_SET, schedule.spec.set.clone())];
    PgSnapshot {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: schedule.namespace(),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v)).into_iter().collect::<BTreeMap<_, _>>()),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: "PgSnapshotSchedule".to_owned(),
                name: schedule.name_any(),
                uid: schedule.uid().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: PgSnapshotSpec { set: schedule.spec.set.clone() },
        status: None,
    }
}

/// What is worth an event.
fn told(before: &PgSnapshotScheduleStatus, after: &PgSnapshotScheduleStatus, outcome: &Outcome) -> Vec<Event> {
    let mut list = vec![];
    if let Outcome::Made { run, name } = outcome {
        list.push(events::deed("SnapshotMade", &format!("made PgSnapshot {name} for the run of {}", run.due)));
        if run.missed > 0 {
            let note = format!(
                "{} runs before that of {} were missed; PgSnapshot {name} is for all of them",
                run.missed, run.due
            );
            list.push(events::warning("RunsMissed", &note));
        }
    }
    let reason = |s: &PgSnapshotScheduleStatus| s.conditions.first().map(|c| (c.status.clone(), c.reason.clone()));
    if let Some(c) = after.conditions.first()
        && c.status == "False"
        && c.reason != reasons::SUSPENDED
        && reason(before) != reason(after)
    {
        list.push(events::warning(&c.reason, &c.message));
    }
    list
}
