//! Taking a cluster away, from its name alone.

use crate::node::group;
use crate::{Cgroups, Cluster, Store, build, host, mark, net};
use anyhow::{Context, bail};
use std::fs;
use std::time::{Duration, Instant};

/// Removes processes, networks, control groups, and the directory unless it is kept.
pub(crate) fn take(cluster: &Cluster, keep: bool) -> anyhow::Result<()> {
    let (state, group) = (cluster.folder(), group(cluster.name()));
    let ours = state.exists();
    let cgroups = Cgroups::detect(host::CGROUPS.as_ref())?;
    processes(cluster, &cgroups)?;
    net::unmount_below(state)?;
    if ours {
        cgroups.remove(&group)?;
        if !keep {
            let removed = fs::remove_dir_all(state);
            removed.with_context(|| format!("{} cannot be removed", state.display()))?;
        }
    }
    let left: Vec<_> = cluster.traces()?.into_iter().filter(|t| !(keep && t.starts_with("directory"))).collect();
    if ours && !left.is_empty() {
        bail!("cluster {} is down, but this is left: {}", cluster.name(), left.join(", "));
    }
    Ok(())
}

/// Ends every process. Nodes first: with its PID 1 a whole node ends, containers included.
fn processes(cluster: &Cluster, cgroups: &Cgroups) -> anyhow::Result<()> {
    let state = cluster.folder();
    let limit = Instant::now() + Duration::from_secs(15);
    loop {
        for number in 1..=9 {
            if let Some(init) = cluster.place(number).init() {
                mark::end(&init, state)?;
            }
        }
        // What is frozen does not die.
        cgroups.thaw(group(cluster.name()).as_ref());
        let all = mark::processes(state);
        let Some(first) = all.first() else { return Ok(()) };
        if Instant::now() > limit {
            bail!("process {} ({}) of cluster {} does not end", first.pid, first.part, cluster.name());
        }
        for process in &all {
            mark::end(process, state)?;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Takes away clusters whose owners are gone. One that cannot be taken away is told, and is in nobody's way.
pub(crate) fn abandoned(store: &Store, but: &str) {
    for name in store.clusters().into_iter().filter(|name| name != but) {
        let Ok(cluster) = Cluster::in_store(&name, store.clone()) else { continue };
        let Some(owner) = cluster.options().ok().and_then(|o| o.owner) else { continue };
        if owner.lives() {
            continue;
        }
        build::say(&format!("taking away cluster {name}, whose owner (process {}) is gone", owner.pid));
        if let Err(error) = cluster.down(false) {
            build::say(&format!("cluster {name} cannot be taken away: {error:#}"));
        }
    }
}
