//! Making what a cluster runs: programs out of Go modules, images out of Debian packages. Each is made once per content; a
//! build that was cut short goes on where it was, for Go's own cache holds what was compiled.

mod csi;
mod debian;
pub mod golden;
pub(crate) mod images;
mod programs;
mod tools;

pub use csi::{built as csi_built, make as csi};
pub use debian::root as debian_root;
pub use programs::VERSIONS;
pub(crate) use programs::{go_needed, numbers};
pub use tools::{TOOLS, tool};

use crate::{Store, host, mark};
use anyhow::Context;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// Says what goes on.
pub(crate) fn say(text: &str) {
    eprintln!("kcluster: {text}");
}

/// Makes what is missing for this Kubernetes; gives the directory of its programs.
///
/// # Errors
/// With what is missing on this machine, before anything is begun; or with the end of the log of what failed.
pub fn all(store: &Store, kubernetes: &str) -> anyhow::Result<PathBuf> {
    let begin = Instant::now();
    let bin = programs::folder(store, kubernetes)?;
    let built = bin.join("ok").exists();
    host::check(&host::Machine::look(store), if built { host::For::Cluster } else { host::For::Build })?;
    let whole = built && golden::exists(store) && debian::missing_packages(&debian::NEEDED).is_empty();
    if whole {
        return Ok(bin);
    }
    let lock = store.lock("build.lock")?;
    if lock.try_lock().is_err() {
        say("another build is running; waiting for it");
        lock.lock().context("cannot wait for the other build")?;
    }
    debian::packages(store, &debian::NEEDED)?;
    // Images wait for a package mirror most of the time: beside the compiler.
    std::thread::scope(|scope| {
        let images = scope.spawn(|| images::make(store));
        let programs = programs::make(store, kubernetes, &bin);
        let images = images.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        programs.and(images)
    })?;
    File::create(bin.join("ok")).context("cannot mark the build as done")?;
    golden::make(store, &bin)?;
    prune(store, &bin);
    say(&format!("ready in {} s, programs in {}", begin.elapsed().as_secs(), bin.display()));
    Ok(bin)
}

/// The directory of the programs of this Kubernetes, if they are built.
///
/// # Errors
/// When they are not.
pub fn built(store: &Store, kubernetes: &str) -> anyhow::Result<PathBuf> {
    let bin = programs::folder(store, kubernetes)?;
    anyhow::ensure!(bin.join("ok").exists(), "Kubernetes {kubernetes} is not built yet: kcluster build");
    Ok(bin)
}

/// Removes what no cluster runs on and nobody used for a week: other versions, or those of another checkout.
fn prune(store: &Store, bin: &std::path::Path) {
    let mut keep = vec![bin.to_owned(), golden::folder(store)];
    keep.extend(images::NAMES.iter().map(|name| images::file(store, name)));
    for cluster in store.clusters() {
        let used =
            |what: &str| fs::read_to_string(store.path(&format!("clusters/{cluster}/{what}"))).map(PathBuf::from);
        keep.extend(used("bin").into_iter().chain(used("csi")));
    }
    let week = Duration::from_secs(7 * 24 * 3600);
    let Ok(lock) = store.lock("golden.lock") else { return };
    if lock.lock().is_err() {
        return;
    }
    keep.push(csi::folder(store));
    for folder in ["bin", "csi", "img", "golden"] {
        for entry in fs::read_dir(store.path(folder)).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).map(|t| SystemTime::now().duration_since(t));
            if !keep.contains(&entry.path()) && matches!(age, Ok(Ok(age)) if age > week) {
                let gone = if entry.path().is_dir() {
                    fs::remove_dir_all(entry.path())
                } else {
                    fs::remove_file(entry.path())
                };
                if let Err(error) = gone {
                    say(&format!("cannot remove the old {}: {error}", entry.path().display()));
                }
            }
        }
    }
}

/// The end of a log, for people.
pub(crate) fn tail(path: &std::path::Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Ends what an unfinished build of a dead process left running.
pub(crate) fn end_leftovers(folder: &std::path::Path) -> anyhow::Result<()> {
    let left = mark::processes(folder);
    for process in &left {
        mark::end(process, folder)?;
    }
    mark::gone(&left, folder, Duration::from_secs(10))
}
