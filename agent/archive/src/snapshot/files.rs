//! Which files belong to a snapshot: those that pg_basebackup takes.

use super::error::Error;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// Directories that are there and empty: PostgreSQL makes their contents anew.
const EMPTY: &[&str] =
    &["pg_wal", "pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];
/// Files that belong to the server that runs, or to another backup.
const SKIPPED: &[&str] = &[
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "backup_manifest",
    "standby.signal",
    "recovery.signal",
];
/// It is copied last, because it says how far recovery has to go.
pub(super) const CONTROL: &str = "global/pg_control";

/// What a data directory holds.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Directories, parents before children, relative.
    pub(super) directories: Vec<PathBuf>,
    /// Files and their sizes when they were seen, relative; without pg_control.
    pub(super) files: Vec<(PathBuf, u64)>,
}

pub(super) fn find(data: &Path) -> Result<Files, Error> {
    let mut found = Files::default();
    walk(data, Path::new(""), &mut found)?;
    found.directories.push("pg_wal/archive_status".into());
    Ok(found)
}

fn walk(data: &Path, inside: &Path, found: &mut Files) -> Result<(), Error> {
    let dir = data.join(inside);
    let mut entries: Vec<_> = match fs::read_dir(&dir) {
        Ok(entries) => entries.flatten().collect(),
        // Dropped meanwhile; WAL knows.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !inside.as_os_str().is_empty() => return Ok(()),
        Err(e) => return Err(Error::disk("read", dir)(e)),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    let names: HashSet<String> = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = inside.join(&name);
        if (inside.as_os_str().is_empty() && SKIPPED.contains(&name.as_str())) || is_temporary(&name, &names) {
            continue;
        }
        let meta = match fs::symlink_metadata(entry.path()) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::disk("look at", entry.path())(e)),
        };
        let empty = inside.as_os_str().is_empty() && EMPTY.contains(&name.as_str());
        if meta.is_symlink() && !empty {
            return Err(Error::Unsupported {
                path: entry.path(),
                why: "is a link; tablespaces and linked files are not supported",
            });
        }
        if empty || meta.is_dir() {
            found.directories.push(path.clone());
            if !empty {
                walk(data, &path, found)?;
            }
        } else if meta.is_file() && path != Path::new(CONTROL) {
            found.files.push((path, meta.len()));
        }
    }
    Ok(())
}

/// Whether PostgreSQL throws a file away at its next start.
fn is_temporary(name: &str, siblings: &HashSet<String>) -> bool {
    if name.starts_with("pgsql_tmp") || name.starts_with("pg_internal.init") {
        return true;
    }
    // Temporary relations: t<backend>_<relation>[_fork][.segment].
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if let Some((backend, rest)) = name.strip_prefix('t').and_then(|n| n.split_once('_')) {
        return digits(backend) && rest.starts_with(|c: char| c.is_ascii_digit());
    }
    // Unlogged relations are made empty from their init fork, which is all that is kept of them.
    let relation = name.split(['_', '.']).next().unwrap_or_default();
    digits(relation) && siblings.contains(&format!("{relation}_init")) && !name.starts_with(&format!("{relation}_init"))
}

/// Groups files into parts of about `size` bytes, in their order.
pub(super) fn group(files: Vec<(PathBuf, u64)>, size: u64) -> Vec<Vec<PathBuf>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (path, length) in files {
        if bytes > 0 && bytes + length > size {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        // A tar header and its padding count, too: there are many small files.
        bytes += length + 1024;
        part.push(path);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_thrown_away_is_not_taken() {
        let siblings: HashSet<String> = ["16384", "16384_init", "16385", "16384_fsm"].map(str::to_owned).into();
        for name in
            ["t3_16390", "t12_16390_fsm", "t1_5.1", "pgsql_tmp1.0", "pg_internal.init", "16384", "16384_fsm", "16384.1"]
        {
            assert!(is_temporary(name, &siblings), "{name}");
        }
        for name in ["16385", "16384_init", "tablespace_map", "t_1", "table", "PG_VERSION", "pg_filenode.map"] {
            assert!(!is_temporary(name, &siblings), "{name}");
        }
    }

    #[test]
    fn parts_hold_about_what_they_should() {
        let files = |sizes: &[u64]| sizes.iter().enumerate().map(|(n, s)| (n.to_string().into(), *s)).collect();
        let parts = |sizes: &[u64]| group(files(sizes), 10_000).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(parts(&[]), [0; 0]);
        assert_eq!(parts(&[50_000]), [1]);
        assert_eq!(parts(&[4000, 4000, 4000, 1]), [2, 2]);
        assert_eq!(parts(&[0; 21]), [10, 10, 1]);
    }
}
