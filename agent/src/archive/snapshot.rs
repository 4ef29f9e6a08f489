//! Taking the snapshots that PgSnapshots ask for: by a follower, or by the leader when no follower comes.
//!
//! Whoever writes its name into the status first takes it; the API server sees to it that there is one first.

use super::{access::Access, pace::giving_way, role::Role};
use crate::{
    clock,
    coordination::{About, ApiError, Events, SnapshotClient, Snapshots},
    postgres::{self, DriverHandle},
    settings::{Identity, PostgresSettings},
};
use pgconvoy_archive::{
    layout::EpochDir,
    snapshot::{self, Manifest, SnapshotId, take},
    store::{self, S3},
};
use pgconvoy_crds::{PgSnapshotStatus, SnapshotPhase};
use pgconvoy_terms::{Epoch, MemberName, SystemId};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::sleep};

/// How long the leader leaves a snapshot to its followers.
const FOLLOWERS_FIRST: Duration = Duration::from_secs(15);
/// How long the WAL that a snapshot needs may take to be archived, once its files are.
const WAL: Duration = Duration::from_secs(600);
/// Bytes of files in a part, and parts at the same time: each holds some 16 MiB of memory.
const PART: u64 = 1 << 30;
const PARALLEL: usize = 2;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two tries to write the end of one.
const AGAIN: Duration = Duration::from_secs(5);

/// What this member may do about a snapshot now. Pure. `alone`: there are no followers to wait for.
fn turn(role: &Role, waited: Duration, alone: bool) -> Option<(&Epoch, SystemId, Option<&MemberName>)> {
    match role {
        Role::Follows { leader, epoch, system } => Some((epoch, *system, Some(leader))),
        Role::Leads { system, reigns } if alone || waited >= FOLLOWERS_FIRST => {
            Some((&reigns.first()?.epoch, *system, None))
        }
        _ => None,
    }
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the set has no archive; name one in spec.archive.ref of the PgReplicaSet")]
    NoArchive,
    #[error("{0}")]
    Access(String),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    #[error("its WAL up to {0} did not get into the archive within {seconds} s, see the condition Archiving", seconds = WAL.as_secs())]
    Wal(pgconvoy_terms::Lsn),
}

pub(super) struct Taker {
    pub(super) me: Identity,
    pub(super) driver: DriverHandle,
    pub(super) events: Events,
    pub(super) client: SnapshotClient,
    pub(super) settings: watch::Receiver<PostgresSettings>,
}

impl Taker {
    /// Never ends.
    pub(super) async fn run(self, mut open: watch::Receiver<Snapshots>, mut roles: watch::Receiver<Role>) {
        let mut since: Option<(String, Instant)> = None;
        // Those that this process has had to do with: its own word comes back late.
        let mut known: BTreeSet<String> = BTreeSet::new();
        loop {
            let next = {
                let open = open.borrow_and_update();
                self.orphan(&open, &known)
                    .or_else(|| open.iter().find(|(_, s)| s.phase.is_none()).map(|(n, _)| (n.clone(), false)))
            };
            let Some((name, orphan)) = next else {
                since = None;
                if open.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if orphan {
                known.insert(name.clone());
                let message = "the agent that took it was restarted meanwhile; make another one".to_owned();
                let failed =
                    PgSnapshotStatus { phase: Some(SnapshotPhase::Failed), message: Some(message), ..self.mine() };
                self.end(&name, failed).await;
                continue;
            }
            if since.as_ref().is_none_or(|(n, _)| *n != name) {
                since = Some((name.clone(), Instant::now()));
            }
            let waited = since.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
            let role = roles.borrow_and_update().clone();
            let alone = self.settings.borrow().roster.as_slice() == std::slice::from_ref(&self.me.member);
            if let Some((epoch, system, leader)) = turn(&role, waited, alone) {
                known.insert(name.clone());
                self.claim_and_take(&name, epoch, system, leader).await;
                since = None;
            }
            tokio::select! {
                changed = roles.changed() => if changed.is_err() { return },
                changed = open.changed() => if changed.is_err() { return },
                () = sleep(LOOK) => {}
            }
        }
    }

    /// One that an agent of this name began, and this one does not know of.
    fn orphan(&self, open: &Snapshots, known: &BTreeSet<String>) -> Option<(String, bool)> {
        let me = self.me.member.to_string();
        let mine = |s: &PgSnapshotStatus| s.phase.is_some() && s.member.as_deref() == Some(me.as_str());
        open.iter().find(|(n, s)| mine(s) && !known.contains(*n)).map(|(n, _)| (n.clone(), true))
    }

    fn mine(&self) -> PgSnapshotStatus {
        PgSnapshotStatus {
            member: Some(self.me.member.to_string()),
            pod_uid: Some(self.me.pod_uid.clone()),
            ..PgSnapshotStatus::default()
        }
    }

    async fn claim_and_take(&self, name: &str, epoch: &Epoch, system: SystemId, leader: Option<&MemberName>) {
        let begun = PgSnapshotStatus {
            phase: Some(SnapshotPhase::Running),
            system_id: Some(system.to_string()),
            epoch: Some(epoch.number.into()),
            started_at: Some(now()),
            ..self.mine()
        };
        match self.client.put(name, &begun, |there| there.phase.is_none()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!("{error}"),
        }
        tracing::info!(name, %epoch, "taking a snapshot");
        let dir = EpochDir { system, epoch: epoch.clone() };
        let ended = match Box::pin(self.take(name, &dir, leader)).await {
            Ok(manifest) => {
                let sum = |of: fn(&snapshot::PartInfo) -> u64| {
                    i64::try_from(manifest.parts.iter().map(of).sum::<u64>()).unwrap_or(i64::MAX)
                };
                tracing::info!(name, start = %manifest.start, stop = %manifest.stop, "the snapshot is complete");
                PgSnapshotStatus {
                    phase: Some(SnapshotPhase::Completed),
                    start: Some(manifest.start.to_string()),
                    stop: Some(manifest.stop.to_string()),
                    bytes: Some(sum(|p| p.size)),
                    unpacked_bytes: Some(sum(|p| p.unpacked)),
                    completed_at: Some(now()),
                    ..begun
                }
            }
            Err(failure) => {
                self.events.warn(About::Set, "SnapshotFailed", &format!("PgSnapshot {name}: {failure}"));
                PgSnapshotStatus { phase: Some(SnapshotPhase::Failed), message: Some(failure.to_string()), ..begun }
            }
        };
        self.end(name, ended).await;
    }

    async fn end(&self, name: &str, status: PgSnapshotStatus) {
        loop {
            let mine =
                |there: &PgSnapshotStatus| there.member == status.member && there.phase == Some(SnapshotPhase::Running);
            match self.client.put(name, &status, mine).await {
                // It was deleted, or is somebody else's.
                Ok(_) | Err(ApiError::Missing { .. }) => return,
                Err(error) => tracing::warn!("{error}"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn take(&self, name: &str, dir: &EpochDir, leader: Option<&MemberName>) -> Result<Manifest, Failure> {
        let files = self.me.paths.archive.clone();
        let access = tokio::task::spawn_blocking(move || Access::read(&files, "")).await;
        let access = access.map_err(|e| Failure::Access(e.to_string()))?.map_err(Failure::Access)?;
        let access = access.ok_or(Failure::NoArchive)?;
        let store = Arc::new(S3::new(access.config()).await?);
        let mut archivist = self.driver.archivist();
        let id: SnapshotId = name.parse()?;
        let pace = access.pace();
        let options = snapshot::Options { part_size: PART, parallel: PARALLEL, time: now(), pace: pace.clone() };
        let server = archivist.streaming();
        let taking = take(store, dir, &id, &self.me.paths.pgdata, &server, &options);
        let manifest = giving_way(&self.driver, &pace, taking).await?;
        // It is good once its WAL is archived as well: the leader's slot stands behind what is.
        let begun = Instant::now();
        loop {
            let archived = match leader {
                Some(leader) => archivist.leaders_mark(leader).await.ok().flatten(),
                None => Some(archivist.keep(None).await?.from),
            };
            if archived.is_some_and(|a| a >= manifest.stop) {
                return Ok(manifest);
            }
            if begun.elapsed() > WAL {
                return Err(Failure::Wal(manifest.stop));
            }
            sleep(LOOK).await;
        }
    }
}

fn now() -> String {
    clock::wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::ChangeId;

    #[test]
    fn followers_come_first() {
        let epoch = Epoch { number: 2, id: ChangeId::from_random(2) };
        let leader = MemberName::new("a", 1);
        let follows = Role::Follows { leader: leader.clone(), epoch: epoch.clone(), system: SystemId(7) };
        assert_eq!(turn(&follows, Duration::ZERO, false), Some((&epoch, SystemId(7), Some(&leader))));
        let id = pgconvoy_terms::MemberId { name: leader, incarnation: pgconvoy_terms::Incarnation::from_random(1) };
        let reign = super::super::role::Reign { epoch: epoch.clone(), leader: id, parent: None };
        let leads = Role::Leads { system: SystemId(7), reigns: vec![reign] };
        assert_eq!(turn(&leads, Duration::ZERO, false), None);
        assert_eq!(turn(&leads, FOLLOWERS_FIRST, false), Some((&epoch, SystemId(7), None)));
        assert_eq!(turn(&leads, Duration::ZERO, true), Some((&epoch, SystemId(7), None)), "nobody else could");
        assert_eq!(turn(&Role::Stops, FOLLOWERS_FIRST, true), None);
    }
}
