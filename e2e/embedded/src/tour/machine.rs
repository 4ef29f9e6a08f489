//! What this machine must have, and sentences for what it lacks.

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What a tour writes, rounded up: 578 MB were seen, three databases with their WAL and copies of the programs.
const NEEDS_MB: u64 = 700;
/// Less than this, and something has failed for lack of it.
const FULL_MB: u64 = 40;
const MB: u64 = 1 << 20;

/// Looks at what can be seen before anything is made.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(super) fn check(place: &Path) -> anyhow::Result<()> {
    let free =
        free_mb(place).with_context(|| format!("cannot look at {}; TMPDIR names another place", place.display()))?;
    if let Some(sentence) = too_small(free, place) {
        bail!("{sentence}");
    }
    if which("ip").is_none() {
        bail!("there is no program ip, which makes the pods' network. Install the package iproute2 (Fedora: iproute)");
    }
    let others = clusters(place);
    if others > 0 {
        println!(
            "{others} such cluster(s) run on this machine already. This one is beside it and independent of it; its Services get \
             other ports."
        );
    }
    Ok(())
}

/// What there is to say about a place with so much left.
fn too_small(free_mb: u64, place: &Path) -> Option<String> {
    (free_mb < NEEDS_MB).then(|| {
        format!(
            "the tour needs {NEEDS_MB} MB in {}, and {free_mb} MB are free there. Make room, or name another place: \
             TMPDIR=/somewhere ./quickstart",
            place.display()
        )
    })
}

/// Adds to an error that the disk is full, when it is.
pub(super) fn explain(error: anyhow::Error, place: &Path) -> anyhow::Error {
    match free_mb(place) {
        Ok(free) if free < FULL_MB => error.context(format!(
            "{} is full ({free} MB are left), and databases do not come up without room. Make some, or name another place: \
             TMPDIR=/somewhere ./quickstart",
            place.display()
        )),
        _ => error,
    }
}

fn free_mb(place: &Path) -> anyhow::Result<u64> {
    let there = statvfs(place)?;
    Ok(there.blocks_available() * there.fragment_size() / MB)
}

/// How many embedded clusters live here, whoever started them.
fn clusters(place: &Path) -> usize {
    let locked = |path: PathBuf| {
        let Ok(lock) = File::open(path.join("lock")) else { return path.exists() };
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_err()
    };
    let list = std::fs::read_dir(place).into_iter().flatten().flatten();
    let ours = list.filter(|e| e.file_name().to_string_lossy().starts_with(crate::machine::outside::PREFIX));
    ours.filter(|e| locked(e.path())).count()
}

/// Where a program is, in `PATH` or where only administrators look.
pub(super) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.into_iter().map(|p| p.join(program)).find(|p| p.is_file())
}

/// Where what was downloaded is kept: a place that the user who runs PostgreSQL can read, too.
pub(super) fn cache() -> PathBuf {
    if nix::unistd::Uid::effective().is_root() {
        return PathBuf::from("/var/cache/pgconvoy");
    }
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("pgconvoy")
}

/// The files of pgconvoy's custom resources.
///
/// # Errors
/// When this is no clone.
pub(super) fn custom_resources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let directory = root.join("crds");
    let list = std::fs::read_dir(&directory)
        .with_context(|| format!("there is no {}; run this in a clone of pgconvoy", directory.display()))?;
    let mut files: Vec<PathBuf> =
        list.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn a_place_without_room_is_named_with_what_to_do() {
        assert_eq!(too_small(NEEDS_MB, Path::new("/tmp")), None);
        let sentence = too_small(12, Path::new("/tmp")).unwrap();
        assert!(sentence.contains("12 MB") && sentence.contains("/tmp") && sentence.contains("TMPDIR="), "{sentence}");
    }

    #[test]
    fn clusters_that_live_are_told_from_what_a_killed_one_left() {
        let place = tempfile::tempdir().unwrap();
        for name in ["pgconvoy-embedded-1", "pgconvoy-embedded-2", "other"] {
            std::fs::create_dir(place.path().join(name)).unwrap();
            File::create(place.path().join(name).join("lock")).unwrap();
        }
        let held = File::open(place.path().join("pgconvoy-embedded-2/lock")).unwrap();
        let _held = Flock::lock(held, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e).unwrap();
        assert_eq!(clusters(place.path()), 1);
    }
}
