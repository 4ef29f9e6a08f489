//! Retention: the leader removes from the archive what is not to be kept any more: after each snapshot, after a change of what is
//! asked, and once an hour.

use super::{access::Access, role::Role};
use crate::{
    clock,
    coordination::{About, ApiError, Events, SnapshotClient, Snapshots},
    settings::Identity,
};
use jiff::Timestamp;
use pgconvoy_archive::{
    layout, retain,
    retain::{Good, Inventory, Plan, Policy, Swept},
    snapshot,
    store::{self, S3},
};
use pgconvoy_crds::{ArchivedSet, Retention, RetentionAsked};
use pgconvoy_terms::SystemId;
use std::time::{Duration, Instant};
use tokio::{sync::watch, time::sleep};

/// How often it is done when nothing happens.
const EVERY: Duration = Duration::from_secs(3600);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(300);
/// Between two looks at whether it is time.
const LOOK: Duration = Duration::from_secs(2);
/// Objects that are removed in one go; then it is looked again who leads. Small: it takes long to catch up with a year. Large: a
/// leader that is none any more goes on for as long.
const LIMIT: u64 = 10_000;
/// Names that are told; more are counted.
const NAMES: usize = 10;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Access(String),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Archive(#[from] layout::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error(
        "the store does not say when objects were written, so nothing is removed by age; ask for snapshots instead of days"
    )]
    NoClock,
}

/// What is asked, for the plan.
pub(super) fn policy(asked: &Retention) -> Policy {
    let number = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok());
    Policy { days: number(asked.days), snapshots: number(asked.snapshots) }
}

/// This machine's clock and the store's, as a plan takes them.
pub(super) async fn clocks(store: &S3, policy: Policy) -> Result<(i64, i64), Failure> {
    let here = clock::wall().as_second();
    match retain::clock(store, rand::random()).await? {
        Some(there) => Ok((here, there)),
        None if policy.days.is_none() => Ok((here, here)),
        None => Err(Failure::NoClock),
    }
}

pub(super) struct Keeper {
    pub(super) me: Identity,
    pub(super) events: Events,
    pub(super) client: SnapshotClient,
}

impl Keeper {
    /// Never ends.
    pub(super) async fn run(self, mut open: watch::Receiver<Snapshots>, roles: watch::Receiver<Role>) {
        let mut done: Option<(RetentionAsked, SystemId, Instant)> = None;
        let mut resting: Option<Instant> = None;
        let mut said: Option<ArchivedSet> = None;
        let mut taken = open.borrow_and_update().len();
        loop {
            sleep(LOOK).await;
            if open.has_changed().is_err() {
                return;
            }
            let now_open = open.borrow_and_update().len();
            let ended = now_open < taken;
            taken = now_open;
            if ended {
                done = None;
            }
            if resting.is_some_and(|since| since.elapsed() < AGAIN) {
                continue;
            }
            resting = None;
            let Role::Leads { system, .. } = *roles.borrow() else {
                (done, said) = (None, None);
                continue;
            };
            let asked = match self.asked().await {
                Ok(Some(asked)) => asked,
                Ok(None) => {
                    done = None;
                    continue;
                }
                Err(e) => {
                    tracing::debug!("what retention asks cannot be read: {e}");
                    continue;
                }
            };
            let current = |(a, s, since): &(RetentionAsked, SystemId, Instant)| {
                *a == asked && *s == system && since.elapsed() < EVERY
            };
            if done.as_ref().is_some_and(current) {
                continue;
            }
            let mut entry = match self.round(&asked, system).await {
                Ok((entry, more)) => {
                    done = (!more).then(|| (asked.clone(), system, Instant::now()));
                    entry
                }
                Err(failure) => {
                    resting = Some(Instant::now());
                    self.events.warn(About::Set, "RetentionFailed", &format!("nothing more is removed: {failure}"));
                    ArchivedSet { message: Some(failure.to_string()), ..said.clone().unwrap_or_default() }
                }
            };
            entry.set = self.me.member.set().to_owned();
            if entry.removed_at.is_none()
                && let Some(said) = &said
            {
                (entry.removed_at, entry.removed) = (said.removed_at.clone(), said.removed.clone());
            }
            if said.as_ref() != Some(&entry) {
                match self.client.retained(&asked.archive, &entry).await {
                    Ok(()) => said = Some(entry),
                    Err(e) => tracing::warn!("{e}"),
                }
            }
        }
    }

    async fn asked(&self) -> Result<Option<RetentionAsked>, String> {
        let dir = self.me.paths.archive.clone();
        tokio::task::spawn_blocking(move || Access::retention(&dir)).await.map_err(|e| e.to_string())?
    }

    /// Removes once. Whether there is more.
    async fn round(&self, asked: &RetentionAsked, system: SystemId) -> Result<(ArchivedSet, bool), Failure> {
        let dir = self.me.paths.archive.clone();
        let access = tokio::task::spawn_blocking(move || Access::read(&dir, "")).await;
        let access = access.map_err(|e| Failure::Access(e.to_string()))?.map_err(Failure::Access)?;
        let access = access.ok_or_else(|| Failure::Access("the set has no archive".to_owned()))?;
        let store = S3::new(access.config()).await?;
        let policy = policy(&asked.retention);
        let inventory = Inventory::look(&store, system).await?;
        let clocks = clocks(&store, policy).await?;
        let plan = retain::plan(&inventory, policy, clocks);
        let swept = retain::sweep(&store, &inventory, &plan, LIMIT, false).await?;
        let at = stamp(clock::wall());
        for id in &swept.snapshots {
            match self.client.expired(&id.to_string(), &system.to_string(), &at).await {
                Ok(()) | Err(ApiError::Missing { .. }) => {}
                Err(e) => tracing::warn!("{e}"),
            }
        }
        let removed = removed(&swept);
        if let Some(removed) = &removed {
            self.events.tell(About::Set, "ArchiveExpired", &format!("removed from the archive: {removed}"));
        }
        let entry = ArchivedSet { removed_at: removed.as_ref().map(|_| at), removed, ..entry(&inventory, &plan) };
        Ok((entry, swept.more))
    }
}

/// What stays.
fn entry(inventory: &Inventory, plan: &Plan) -> ArchivedSet {
    let oldest: Option<&Good> = plan.keep.last().and_then(|(id, _)| inventory.good.iter().find(|g| g.id == *id));
    ArchivedSet {
        snapshots: Some(i64::try_from(plan.keep.len()).unwrap_or(i64::MAX)),
        oldest: oldest.map(|g| g.id.to_string()),
        restorable_from: oldest.map(|g| g.stop.to_string()),
        restorable_since: oldest.and_then(|g| Timestamp::from_second(g.time).ok()).map(stamp),
        message: plan.note.clone(),
        ..ArchivedSet::default()
    }
}

fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What went, for people; none: nothing.
pub(super) fn removed(swept: &Swept) -> Option<String> {
    let names = |ids: &[snapshot::SnapshotId]| {
        let mut text: Vec<String> = ids.iter().take(NAMES).map(ToString::to_string).collect();
        if ids.len() > NAMES {
            text.push(format!("and {} more", ids.len() - NAMES));
        }
        text.join(", ")
    };
    let mut parts = Vec::new();
    if !swept.snapshots.is_empty() {
        parts.push(format!("snapshots {}", names(&swept.snapshots)));
    }
    if !swept.abandoned.is_empty() {
        parts.push(format!("remains of {}", names(&swept.abandoned)));
    }
    if swept.wal > 0 {
        parts.push(format!("{} objects of WAL", swept.wal));
    }
    (!parts.is_empty())
        .then(|| format!("{}; {} objects, {:.1} MB in all", parts.join("; "), swept.objects, swept.bytes as f64 / 1e6))
}
