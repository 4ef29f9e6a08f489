//! Data out of the archive: a snapshot, and the log behind it up to where the leader still has its own.
//!
//! The log is put into `pg_wal`, so that PostgreSQL replays it like its own at its next start, and what is left comes by streaming.
//! It follows the way to the leader's epoch only, and of each epoch on it ends where the next one went on: what a deposed
//! leader archived behind that is never put here.

use super::{progress::Progress, seen::Found, task::Task};
use crate::postgres::{Error, FILES, Marker, Postgres, empty_directory, making};
use pgconvoy_archive::{
    fetch::{self, Fetched, Fetcher, Link},
    layout,
    retain::reach_along,
    snapshot::{self, Manifest, RestoreOptions, SnapshotId},
    store::{S3, Store},
};
use pgconvoy_ha::Data;
use pgconvoy_terms::{Epoch, Incarnation, Lsn, SegmentName};
use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::sleep;

/// For emptying a directory, and for writing everything to disk.
const LONG: Duration = Duration::from_secs(600);
/// How long a store that fails is waited for in the middle of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Log that is fetched before it is put to its place, in bytes.
const AHEAD: u64 = 64 << 20;
/// Parts of a snapshot at the same time: each takes some MiB of memory.
const PARALLEL: usize = 2;
/// How often it is looked how much has come.
const LOOK: Duration = Duration::from_millis(500);
/// What PostgreSQL takes for the history of a timeline that nobody wrote: it looks for the newest one number by number.
const NO_TIMELINE: &[u8] = b"# pgconvoy: no timeline\n";
/// Of files that are on the way into `pg_wal`.
const FETCHED: &str = ".fetched";

/// Why it did not come to an end.
pub(super) enum Failed {
    /// Something here; the archive is not to blame.
    Here(Error),
    /// The archive, or what was to be had from it.
    Archive {
        /// A sentence without its end.
        why: String,
        /// It will not go away by itself.
        lasting: bool,
    },
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Here(e)
    }
}

impl From<snapshot::Error> for Failed {
    fn from(e: snapshot::Error) -> Self {
        let lasting =
            matches!(&e, snapshot::Error::Archive(layout::Error::Damaged { .. } | layout::Error::Newer { .. }));
        Self::Archive { why: e.to_string(), lasting }
    }
}

impl From<fetch::Error> for Failed {
    fn from(e: fetch::Error) -> Self {
        let lasting = matches!(&e, fetch::Error::Archive(layout::Error::Damaged { .. } | layout::Error::Newer { .. }));
        Self::Archive { why: e.to_string(), lasting }
    }
}

/// Adds to good data the log that it lacks, and gives it its new name. The data stays good all the time.
pub(super) async fn add_log(
    postgres: &Postgres,
    incarnation: &Incarnation,
    found: &Found,
    progress: &Progress,
) -> Result<(), Failed> {
    let Some((epoch, end)) = &found.here else {
        return Err(Error::NotYet("how far the log of the data here goes is not known any more".into()).into());
    };
    postgres.stop().await?;
    postgres.facts.forget_server();
    let paths = postgres.paths().clone();
    let lock = {
        let paths = paths.clone();
        move || making::no_server(&paths)
    };
    let _alone = postgres.disk.run("making sure that no PostgreSQL runs", FILES, lock).await?;
    let store = open(found).await?;
    fill(postgres, &store, found, (epoch, *end), 0, progress).await?;
    finish(postgres, incarnation, found).await
}

/// Restores a snapshot and the log behind it under this name. What lies on the volume is thrown away.
pub(super) async fn restore(
    postgres: &Postgres,
    incarnation: &Incarnation,
    found: &Found,
    name: &str,
    progress: &Progress,
) -> Result<(), Failed> {
    let Some((id, manifest)) = found.snapshots.iter().find(|(id, _)| id.to_string() == name) else {
        return Err(Error::NotYet(format!("snapshot {name} is not there any more")).into());
    };
    // Opened first: data that is there is not thrown away for a store that cannot be had.
    let store = open(found).await?;
    postgres.fence().await?;
    let paths = postgres.paths().clone();
    let begin = {
        let paths = paths.clone();
        move || making::begin(&paths)
    };
    let _alone = postgres.disk.run("emptying the data directory", LONG, begin).await?;
    postgres.facts.set(|k| k.data = Data::HalfMade);
    let packed = manifest.parts.iter().map(|p| p.size).sum::<u64>();
    let made = async {
        files(postgres, &store, found, id, manifest, progress).await?;
        fill(postgres, &store, found, (&manifest.epoch, manifest.start), packed, progress).await
    };
    if let Err(e) = Box::pin(made).await {
        // Worthless, and the next try may need the room.
        let pgdata = paths.pgdata.clone();
        let empty = move || empty_directory(&pgdata);
        postgres.disk.run("removing what was restored in vain", LONG, empty).await?;
        return Err(e);
    }
    finish(postgres, incarnation, found).await
}

async fn open(found: &Found) -> Result<Arc<dyn Store>, Failed> {
    let store = S3::new(found.config.clone()).await;
    Ok(Arc::new(store.map_err(|e| Failed::Archive { why: e.to_string(), lasting: false })?))
}

/// The snapshot's files.
async fn files(
    postgres: &Postgres,
    store: &Arc<dyn Store>,
    found: &Found,
    id: &SnapshotId,
    manifest: &Manifest,
    progress: &Progress,
) -> Result<(), Failed> {
    let unpacking = postgres.kept().unpacking.clone();
    let options = RestoreOptions { parallel: PARALLEL, unpacking, ..RestoreOptions::default() };
    let received = options.received.clone();
    let restoring = {
        let (store, system, id, manifest) = (store.clone(), found.system, id.clone(), manifest.clone());
        let pgdata = postgres.paths().pgdata.clone();
        Task::begin(async move { snapshot::restore(store, system, &id, &manifest, &pgdata, &options).await })
    };
    let total = manifest.parts.iter().map(|p| p.size).sum::<u64>();
    let telling = async {
        loop {
            progress.at(received.load(Ordering::Relaxed), total);
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        ended = restoring.ended() => Ok(ended??),
        never = telling => match never {},
    }
}

/// Puts the log behind `begin` into `pg_wal`, up to where it is archived now. `before`: bytes that have come already.
async fn fill(
    postgres: &Postgres,
    store: &Arc<dyn Store>,
    found: &Found,
    (epoch, start): (&Epoch, Lsn),
    before: u64,
    progress: &Progress,
) -> Result<(), Failed> {
    // More may have come since it was looked.
    let reach = reach_along(&**store, &found.chain, epoch, start).await?;
    let (Some(reach), Some(way)) = (reach, found.chain.beginning(epoch, start)) else {
        let why = format!("the leader's log does not go on from epoch {epoch} at {start}");
        return Err(Failed::Archive { why, lasting: true });
    };
    let pg_wal = postgres.pg_wal();
    let exchange = postgres.paths().volume.join("restore");
    let (clean, volume) = (pg_wal.clone(), exchange.clone());
    postgres.disk.run("preparing for the log", FILES, move || prepare(&clean, &volume)).await?;
    let options = fetch::Options { ahead: AHEAD, patience: PATIENCE, ..fetch::Options::new(exchange.join("ahead")) };
    let fetcher = Fetcher::new(store.clone(), found.chain.clone(), options)?;
    let total = before + reach.end.bytes_since(start);
    let mut at = start;
    for link in way.iter().rev() {
        let size = link.claim.segment_size;
        let mut begins = Lsn(at.0 - at.0 % size);
        while begins < reach.end && link.until.is_none_or(|until| begins < until) {
            let segment = SegmentName::holding(link.dir.timeline(), begins, size);
            if !put(postgres, &fetcher, &pg_wal, &segment.to_string(), link.until.map(|u| (begins, u, size))).await? {
                break;
            }
            begins = Lsn(begins.0 + size);
            at = link.until.map_or(begins, |until| begins.min(until));
            progress.at(before + at.min(reach.end).0.saturating_sub(start.0), total);
        }
        // Where the next epoch went on, whether there is anything of this one or not.
        at = link.until.unwrap_or(at);
    }
    histories(postgres, &fetcher, &pg_wal, way).await?;
    drop(fetcher);
    let remove = move || remove_directory(&exchange);
    postgres.disk.run("cleaning up after the log was fetched", FILES, remove).await?;
    tracing::info!(%start, end = %reach.end, timeline = %reach.timeline, "the log is there");
    Ok(())
}

/// Fetches one file into `pg_wal`; whether there is such a file. `until`: where a segment of this beginning and size ends to be of
/// the way.
async fn put(
    postgres: &Postgres,
    fetcher: &Fetcher,
    pg_wal: &Path,
    name: &str,
    until: Option<(Lsn, Lsn, u64)>,
) -> Result<bool, Failed> {
    let fetched = pg_wal.join(format!("{name}{FETCHED}"));
    if fetcher.fetch(name, &fetched).await? == Fetched::Absent {
        return Ok(false);
    }
    let to = pg_wal.join(name);
    let place = move || {
        if let Some((begins, until, size)) = until {
            end_at(&fetched, begins, until, size)?;
        }
        fs::rename(&fetched, &to).map_err(Error::disk("rename", &fetched))
    };
    postgres.disk.run("putting the log to its place", FILES, place).await?;
    Ok(true)
}

/// Replaces by zeros what of a segment lies behind the fork.
fn end_at(path: &Path, begins: Lsn, until: Lsn, size: u64) -> Result<(), Error> {
    if until.0 >= begins.0 + size {
        return Ok(());
    }
    let file = fs::OpenOptions::new().write(true).open(path).map_err(Error::disk("open", path))?;
    let cut = file.set_len(until.0.saturating_sub(begins.0)).and_then(|()| file.set_len(size));
    cut.map_err(Error::disk("shorten", path))
}

/// Puts the histories of the way's timelines there, and covers the numbers between that nobody used: PostgreSQL looks for the newest
/// timeline number by number, and stops at the first that is missing.
async fn histories(postgres: &Postgres, fetcher: &Fetcher, pg_wal: &Path, way: &[Link]) -> Result<(), Failed> {
    for link in way {
        put(postgres, fetcher, pg_wal, &format!("{:08X}.history", link.dir.epoch.number), None).await?;
    }
    let (Some(newest), Some(oldest)) = (way.first(), way.last()) else { return Ok(()) };
    let between = oldest.dir.epoch.number + 1..newest.dir.epoch.number;
    let pg_wal = pg_wal.to_owned();
    let cover = move || {
        for number in between {
            let path = pg_wal.join(format!("{number:08X}.history"));
            if !path.exists() {
                fs::write(&path, NO_TIMELINE).map_err(Error::disk("write", &path))?;
            }
        }
        Ok(())
    };
    Ok(postgres.disk.run("covering timelines that nobody wrote", FILES, cover).await?)
}

/// Says that the data is complete and whose it is.
async fn finish(postgres: &Postgres, incarnation: &Incarnation, found: &Found) -> Result<(), Failed> {
    let paths = postgres.paths().clone();
    let marker =
        Marker { set_uid: postgres.config.identity.set_uid.clone(), incarnation: incarnation.clone(), fresh: false };
    let finish = move || {
        making::sync_filesystem(&paths.volume)?;
        making::finish(&paths, &marker)
    };
    postgres.disk.run("marking what came from the archive as complete", LONG, finish).await?;
    postgres.look_at_volume_again().await?;
    match postgres.facts.known().data {
        Data::Good { system, .. } if system == found.system => Ok(()),
        other => {
            let why = format!("what came from the archive is not of the database {}: {other:?}", found.system);
            Err(Failed::Archive { why, lasting: true })
        }
    }
}

fn prepare(pg_wal: &Path, exchange: &Path) -> Result<(), Error> {
    remove_directory(exchange)?;
    for dir in [pg_wal, exchange] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::disk("make", dir))?;
    }
    // Left by a try that was cut off.
    for entry in fs::read_dir(pg_wal).map_err(Error::disk("list", pg_wal))? {
        let path = entry.map_err(Error::disk("list", pg_wal))?.path();
        if path.to_string_lossy().ends_with(FETCHED) {
            fs::remove_file(&path).map_err(Error::disk("remove", &path))?;
        }
    }
    Ok(())
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::disk("remove", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_behind_a_fork_is_left_in_its_segment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let size = 1 << 20;
        for (until, left) in [(5 << 20, 1 << 20), (4 << 20, 0), ((4 << 20) + 700, 700), (6 << 20, 1 << 20)] {
            fs::write(&path, vec![7_u8; 1 << 20]).unwrap();
            end_at(&path, Lsn(4 << 20), Lsn(until), size).unwrap();
            let now = fs::read(&path).unwrap();
            assert_eq!(now.len(), 1 << 20);
            assert!(now[..left].iter().all(|b| *b == 7) && now[left..].iter().all(|b| *b == 0), "{until}");
        }
    }

    #[test]
    fn what_a_try_before_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (pg_wal, exchange) = (dir.path().join("pg_wal"), dir.path().join("restore"));
        prepare(&pg_wal, &exchange).unwrap();
        for name in ["000000010000000000000001", "000000010000000000000002.fetched"] {
            fs::write(pg_wal.join(name), "").unwrap();
        }
        prepare(&pg_wal, &exchange).unwrap();
        let left: Vec<_> = fs::read_dir(&pg_wal).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["000000010000000000000001"]);
    }
}
