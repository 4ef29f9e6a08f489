//! A log of its own for data that came from another set: timeline 1 and a new system identifier, so that it can be founded
//! like what initdb makes, and is never taken for the set that it came from.
//!
//! The data was shut down in an orderly way, so its log is not needed any more. `pg_resetwal` writes a new one behind the old
//! one's end, as `pg_upgrade` has it do; but it never goes back to an earlier timeline, so the control file says 1 before.

use crate::postgres::Error;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Of PostgreSQL 15 to 18: `system_identifier`, and of the last checkpoint `ThisTimeLineID` with `PrevTimeLineID` behind it.
const SYSTEM: usize = 0;
const TIMELINES: usize = 48;
/// The checksum is the last field, which comes earlier or later with the version; the bytes behind it are zeros.
const CHECKSUM: std::ops::Range<usize> = 200..512;

/// Prepares the data for `pg_resetwal`.
pub(super) fn begin_anew(pgdata: &Path, random: u64) -> Result<(), Error> {
    let wal = pgdata.join("pg_wal");
    let mut gone: Vec<PathBuf> = ["backup_label.old", "backup_manifest"].iter().map(|f| pgdata.join(f)).collect();
    for entry in fs::read_dir(&wal).map_err(Error::disk("list", &wal))? {
        let path = entry.map_err(Error::disk("list", &wal))?.path();
        // Of timelines that this data will not have had.
        if path.extension().is_some_and(|e| e == "history") {
            gone.push(path);
        }
    }
    for path in gone {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::disk("remove", &path)(e)),
            _ => {}
        }
    }
    let path = pgdata.join("global/pg_control");
    let mut control = fs::read(&path).map_err(Error::disk("read", &path))?;
    // As PostgreSQL's own are: positive, and never 0.
    rewrite(&mut control, (random >> 1) | 1)
        .ok_or_else(|| Error::Unfit(format!("{} is not the control file of PostgreSQL 15 to 18", path.display())))?;
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new).map_err(Error::disk("create", &new))?;
    file.write_all(&control).and_then(|()| file.sync_all()).map_err(Error::disk("write", &new))?;
    fs::rename(&new, &path).map_err(Error::disk("rename", &new))
}

/// None: its checksum is not found.
fn rewrite(control: &mut [u8], system: u64) -> Option<()> {
    let at = checksum(control)?;
    control.get_mut(SYSTEM..SYSTEM + 8)?.copy_from_slice(&system.to_ne_bytes());
    for timeline in [TIMELINES, TIMELINES + 4] {
        control.get_mut(timeline..timeline + 4)?.copy_from_slice(&1_u32.to_ne_bytes());
    }
    let sum = pgconvoy_archive::crc32c(control.get(..at)?);
    control.get_mut(at..at + 4)?.copy_from_slice(&sum.to_ne_bytes());
    Some(())
}

fn checksum(control: &[u8]) -> Option<usize> {
    CHECKSUM.step_by(4).find(|at| {
        let (Some(before), Some(there)) = (control.get(..*at), control.get(*at..*at + 4)) else { return false };
        pgconvoy_archive::crc32c(before).to_ne_bytes() == there
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_says_timeline_1_another_system_and_is_whole() {
        for at in [288, 292] {
            let mut control = vec![7_u8; 8192];
            control[at + 4..].fill(0);
            let sum = pgconvoy_archive::crc32c(&control[..at]);
            control[at..at + 4].copy_from_slice(&sum.to_ne_bytes());
            let before = control.clone();
            rewrite(&mut control, 42).unwrap();
            assert_eq!(control[..8], 42_u64.to_ne_bytes());
            assert_eq!((&control[48..52], &control[52..56]), (&1_u32.to_ne_bytes()[..], &1_u32.to_ne_bytes()[..]));
            assert_eq!((&control[8..48], &control[56..at]), (&before[8..48], &before[56..at]));
            assert_eq!(checksum(&control), Some(at));
        }
        assert_eq!(rewrite(&mut vec![7; 8192], 42), None, "something else");
    }
}
