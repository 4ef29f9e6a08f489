//! Timeline history files in `pg_wal`: reading them, and the stubs by which the next timeline gets the epoch's number.
//!
//! PostgreSQL gives a promoted server the first id above its own for which no `<id>.history` exists; what is in that
//! file plays no part. So ids that no epoch used are covered by files of one comment line. A standby that *starts* with
//! such stubs above its newest real history hangs, so they go before every start as a standby, and only then.

use super::{Error, disk};
use pgconvoy_terms::{Lsn, TimelineId};
use pgconvoy_wire::History;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

const STUB: &[u8] = b"# pgconvoy: no timeline\n";

fn path(pg_wal: &Path, id: u32) -> PathBuf {
    pg_wal.join(format!("{id:08X}.history"))
}

/// A history file.
enum File {
    /// Comments only.
    Stub,
    /// With at least one ancestor.
    Real,
}

fn files(pg_wal: &Path) -> Result<BTreeMap<u32, File>, Error> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(pg_wal).map_err(Error::disk("list", pg_wal))? {
        let name = entry.map_err(Error::disk("list", pg_wal))?.file_name();
        let Some(id) = name.to_str().and_then(|n| n.strip_suffix(".history")).filter(|n| n.len() == 8) else {
            continue;
        };
        let Ok(id) = u32::from_str_radix(id, 16) else { continue };
        let Some(content) = disk::read(&path(pg_wal, id))? else { continue };
        let history = History::parse(TimelineId(id), &content).map_err(Error::Timeline)?;
        found.insert(id, if history.entries.is_empty() { File::Stub } else { File::Real });
    }
    Ok(found)
}

/// The history file of `timeline`, if it has one.
pub(crate) fn read(pg_wal: &Path, timeline: TimelineId) -> Result<Option<Vec<u8>>, Error> {
    disk::read(&path(pg_wal, timeline.0))
}

/// How `timeline` came to be. The first timeline, and one whose file is not there, have no ancestors.
pub(crate) fn history(pg_wal: &Path, timeline: TimelineId) -> Result<History, Error> {
    match disk::read(&path(pg_wal, timeline.0))? {
        Some(content) => History::parse(timeline, &content).map_err(Error::Timeline),
        None => Ok(History::first(timeline)),
    }
}

/// Removes stubs above the newest real history: before every start as a standby.
pub(crate) fn remove_stubs(pg_wal: &Path) -> Result<(), Error> {
    let files = files(pg_wal)?;
    let newest = files.iter().filter(|(_, f)| matches!(f, File::Real)).map(|(id, _)| *id).max().unwrap_or(0);
    for (id, _) in files.range(newest.saturating_add(1)..) {
        disk::remove(&path(pg_wal, *id))?;
    }
    Ok(())
}

/// Makes `next` the id that a promotion from `timeline` will take. Stubs that another promotion would have needed stay:
/// they can only lie below.
///
/// # Errors
/// When `next` is taken already, or is not above `timeline`: nothing may be promoted then.
pub(crate) fn reserve(pg_wal: &Path, timeline: TimelineId, next: TimelineId) -> Result<(), Error> {
    if next <= timeline {
        return Err(Error::Timeline(format!(
            "this member's log is on timeline {timeline} and cannot be promoted to epoch {next}: a later epoch must be \
             opened"
        )));
    }
    let files = files(pg_wal)?;
    if files.contains_key(&next.0) {
        return Err(Error::Timeline(format!(
            "there is a history of timeline {next} already, so this member cannot be promoted to epoch {next}: a later \
             epoch must be opened"
        )));
    }
    let mut made = false;
    for id in (timeline.0 + 1..next.0).filter(|id| !files.contains_key(id)) {
        let path = path(pg_wal, id);
        let write = || -> io::Result<()> {
            fs::write(&path, STUB)?;
            fs::File::open(&path)?.sync_all()
        };
        write().map_err(Error::disk("write", &path))?;
        made = true;
    }
    if made { disk::sync_directory(pg_wal) } else { Ok(()) }
}

/// What a follower's log is to that of a leader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// A part of it.
    Part,
    /// It left it here.
    Left(Lsn),
}

/// Whether a log that ends at `end` on `timeline` is a part of the log of `ours`, which has `flushed` so much.
pub(crate) fn relation(ours: &History, flushed: Lsn, timeline: TimelineId, end: Lsn) -> Relation {
    let limit = if timeline == ours.timeline {
        // Its own bytes of our timeline came from us, but only what is on our disk is sure to be what we go on with.
        flushed
    } else {
        // A timeline that is no ancestor: nothing of it is ours.
        ours.fork_of(timeline).unwrap_or(Lsn(0))
    };
    if end <= limit { Relation::Part } else { Relation::Left(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(u32, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(id, text)| fs::write(path(dir.path(), *id), text).unwrap());
        dir
    }

    fn ids(dir: &tempfile::TempDir) -> Vec<u32> {
        super::files(dir.path()).unwrap().into_keys().collect()
    }

    #[test]
    fn gaps_are_filled_and_real_files_stay() {
        let d = dir(&[(5, "3\t0/5000\tx\n"), (7, "5\t0/6000\tburnt\n")]);
        reserve(d.path(), TimelineId(5), TimelineId(9)).unwrap();
        assert_eq!(ids(&d), [5, 6, 7, 8]);
        assert_eq!(fs::read(path(d.path(), 7)).unwrap(), b"5\t0/6000\tburnt\n");
        // Again: nothing changes.
        reserve(d.path(), TimelineId(5), TimelineId(9)).unwrap();
        assert_eq!(ids(&d), [5, 6, 7, 8]);
    }

    #[test]
    fn a_taken_or_lower_id_is_refused() {
        let d = dir(&[(9, "5\t0/6000\tx\n")]);
        assert!(matches!(reserve(d.path(), TimelineId(5), TimelineId(9)), Err(Error::Timeline(_))));
        assert!(matches!(reserve(d.path(), TimelineId(5), TimelineId(5)), Err(Error::Timeline(_))));
        assert_eq!(ids(&d), [9]);
    }

    #[test]
    fn before_a_start_only_the_stubs_above_the_newest_history_go() {
        let d = dir(&[(2, "# c\n"), (3, "1\t0/5000\tx\n"), (4, "# c\n"), (5, "")]);
        remove_stubs(d.path()).unwrap();
        assert_eq!(ids(&d), [2, 3]);
        let d = dir(&[(2, "# c\n")]);
        remove_stubs(d.path()).unwrap();
        assert!(ids(&d).is_empty());
    }

    #[test]
    fn a_log_is_a_part_up_to_its_fork() {
        let h = History::parse(TimelineId(9), b"1\t0/5000\tx\n5\t0/6000\ty\n").unwrap();
        let part = |t, end| relation(&h, Lsn(0x9000), TimelineId(t), Lsn(end));
        assert_eq!(part(1, 0x5000), Relation::Part);
        assert_eq!(part(1, 0x5001), Relation::Left(Lsn(0x5000)));
        assert_eq!(part(5, 0x6000), Relation::Part);
        assert_eq!(part(5, 0x6001), Relation::Left(Lsn(0x6000)));
        assert_eq!(part(9, 0x9000), Relation::Part);
        assert_eq!(part(9, 0x9001), Relation::Left(Lsn(0x9000)));
        assert_eq!(part(7, 1), Relation::Left(Lsn(0)), "a timeline that is no ancestor");
        assert_eq!(part(11, 0x1000), Relation::Left(Lsn(0)));
    }
}
