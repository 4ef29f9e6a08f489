//! After a gap: snapshots from before it lead nowhere beyond it, so the leader takes one behind it, without being asked.

use super::{pace::giving_way, report::Standing, role::Reign, shipping::Shipping};
use crate::{clock, coordination::About};
use pgconvoy_archive::{
    layout::{EpochDir, Gap},
    retain::{Good, Inventory},
    ship::Progress,
    snapshot::{self, SnapshotId, take},
    store::Store,
};
use pgconvoy_terms::Lsn;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// After a failure.
const AGAIN: Duration = Duration::from_secs(60);
/// How long the WAL that the snapshot needs may take to be archived, once its files are.
const WAL: Duration = Duration::from_secs(600);
/// Bytes of files in a part, and parts at the same time: each holds some 16 MiB of memory.
const PART: u64 = 1 << 30;
const PARALLEL: usize = 2;

/// Why there is none yet.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error("its WAL up to {0} was not archived within {seconds} s", seconds = WAL.as_secs())]
    Wal(Lsn),
    #[error("shipping ended")]
    Ended,
}

/// What is missing, for people.
pub(super) fn missing(gap: &Gap) -> String {
    format!(
        "WAL of epoch {} from {} to {} was not archived and is gone, so what was archived before cannot be replayed beyond {}",
        gap.dir.epoch, gap.from, gap.to, gap.from
    )
}

/// Whether a snapshot begins behind a gap, in an epoch that the present one went on from.
fn is_behind(good: &Good, gap: &Gap, reigns: &[Reign]) -> bool {
    (good.epoch.number, good.start) >= (gap.dir.epoch.number, gap.to) && reigns.iter().any(|r| r.epoch == good.epoch)
}

impl Shipping {
    /// Sees to it that there is a snapshot behind the last gap. Never ends.
    pub(super) async fn begin_anew(
        &self,
        store: &Arc<dyn Store>,
        dir: &EpochDir,
        gap: Option<Gap>,
        mut progress: watch::Receiver<Progress>,
    ) -> Infallible {
        let Some(gap) = gap else { return std::future::pending().await };
        let say = |what: &str| {
            let text = format!("{}; {what}", missing(&gap));
            self.tell(|s: &mut Standing| s.gap = Some(text));
        };
        loop {
            match self.snapshot_behind(store, dir, &gap, &mut progress, &say).await {
                Ok(made) => {
                    self.tell(|s| s.gap = None);
                    if let Some(id) = made {
                        let text = format!(
                            "snapshot {id} begins behind the WAL that is missing in the archive from {} to {}: what is \
                             written from now on can be restored again",
                            gap.from, gap.to
                        );
                        self.events.tell(About::Set, "ArchiveBeganAnew", &text);
                    }
                    return std::future::pending().await;
                }
                Err(failure) => {
                    tracing::warn!("a snapshot behind the gap in the archive: {failure}");
                    say(&format!("a new snapshot failed, and is tried again in a minute: {failure}"));
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// The snapshot that was made; none: there is one already.
    async fn snapshot_behind(
        &self,
        store: &Arc<dyn Store>,
        dir: &EpochDir,
        gap: &Gap,
        progress: &mut watch::Receiver<Progress>,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<SnapshotId>, Failure> {
        // The store is back, and what comes now is archived.
        let from = if gap.dir == *dir { gap.to } else { Lsn(1) };
        let ready = progress.wait_for(|p| p.trouble.is_none() && p.archived >= from).await;
        drop(ready.map_err(|_| Failure::Ended)?);
        let inventory = Inventory::look(&**store, dir.system).await?;
        if inventory.good.iter().any(|g| is_behind(g, gap, &self.reigns)) {
            return Ok(None);
        }
        let id: SnapshotId = clock::wall().strftime("after-gap-%Y%m%dt%H%M%Sz").to_string().parse()?;
        say(&format!("snapshot {id}, which begins anew, is being taken"));
        let time = clock::wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let pace = self.access.pace();
        let options = snapshot::Options { part_size: PART, parallel: PARALLEL, time, pace: pace.clone() };
        let server = self.driver.archivist().streaming();
        let taking = take(store.clone(), dir, &id, &self.me.paths.pgdata, &server, &options);
        let taken = Box::pin(giving_way(&self.driver, &pace, taking)).await?;
        match timeout(WAL, progress.wait_for(|p| p.archived >= taken.stop)).await {
            Ok(Ok(_)) => Ok(Some(id)),
            Ok(Err(_)) => Err(Failure::Ended),
            Err(_) => Err(Failure::Wal(taken.stop)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::{ChangeId, Epoch, Incarnation, MemberId, MemberName, SystemId};

    #[test]
    fn only_a_snapshot_behind_the_gap_on_the_way_here_ends_it() {
        let epoch = |number: u32| Epoch { number, id: ChangeId::from_random(number.into()) };
        let reign = |number| Reign {
            epoch: epoch(number),
            leader: MemberId { name: MemberName::new("a", 1), incarnation: Incarnation::from_random(1) },
            parent: None,
        };
        let reigns = [reign(4), reign(2)];
        let gap = Gap { dir: EpochDir { system: SystemId(7), epoch: epoch(2) }, from: Lsn(0x100), to: Lsn(0x300) };
        let is = |number, start| {
            let good = Good {
                id: "s".parse().unwrap(),
                epoch: epoch(number),
                start: Lsn(start),
                stop: Lsn(start + 1),
                time: 0,
                bytes: 0,
            };
            is_behind(&good, &gap, &reigns)
        };
        assert_eq!([is(2, 0x50), is(2, 0x2ff), is(2, 0x300), is(4, 0x200)], [false, false, true, true]);
        assert!(!is(3, 0x900), "nobody went on from there");
        assert_eq!(
            missing(&gap),
            format!(
                "WAL of epoch {} from 0/100 to 0/300 was not archived and is gone, so what was archived before cannot be \
                 replayed beyond 0/100",
                epoch(2)
            )
        );
    }
}
