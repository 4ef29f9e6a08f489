//! A wall clock that can be stepped for one member, on a kernel that all share.

use crate::{Cluster, Set};
use anyhow::{Context, ensure};
use std::process::Command;

/// The images' programs that tell a layer which is to get the clock: PostgreSQL's and the agent's.
const PROGRAMS: [&str; 2] = ["usr/lib/postgresql/17/bin/postgres", "usr/bin/pgconvoy-agent"];
/// Where it lies in the images.
const LIBRARY: &str = "usr/lib/pgconvoy-test-clock.so";
const PRELOAD: &str = "etc/ld.so.preload";

/// As long as this lives, containers that start on the cluster have a wall clock that [`step`] moves.
#[derive(Debug)]
pub struct Stepping<'a> {
    cluster: &'a Cluster,
}

impl<'a> Stepping<'a> {
    /// Puts the clock (`clock.c`) into the layers of PostgreSQL's and the agent's image on every node.
    ///
    /// # Errors
    /// When it cannot be compiled, or no layer is found.
    pub fn begin(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let stepping = Self { cluster };
        let library = std::env::temp_dir().join(format!("pgconvoy-test-clock-{}.so", std::process::id()));
        let source = crate::root().join("e2e/tests/src/clock.c");
        let compiled = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .context("there is no C compiler")?;
        ensure!(compiled.success(), "{} does not compile", source.display());
        // A node is a mount namespace of this machine: it sees the same files.
        let put = format!("cp {} $d/{LIBRARY}; echo /{LIBRARY} > $d/{PRELOAD}; echo $d", library.display());
        let placed = stepping.in_layers(&put);
        drop(std::fs::remove_file(&library));
        for layers in placed? {
            ensure!(layers.lines().count() >= PROGRAMS.len(), "not every image was found: {layers:?}");
        }
        Ok(stepping)
    }

    /// Whether the main process of a container has that clock.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn reaches(&self, set: &Set<'_>, member: &str, container: &str) -> anyhow::Result<bool> {
        let pid = self.cluster.process(&set.namespace.name, member, Some(container))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        Ok(maps.contains(LIBRARY))
    }

    /// Runs a shell command on every node, for each layer `$d` that holds one of the programs.
    fn in_layers(&self, command: &str) -> anyhow::Result<Vec<String>> {
        let script = format!(
            "config=$(ps -eo args | sed -n 's/^[^ ]*containerd -c *\\([^ ]*\\).*/\\1/p' | head -n 1)
             root=$(sed -n 's/^root = \"\\(.*\\)\"/\\1/p' $config)
             for d in $root/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs; do
               [ -e $d/{} ] || [ -e $d/{} ] || continue
               {command} || exit 1
             done",
            PROGRAMS[0], PROGRAMS[1]
        );
        let mut outputs = vec![];
        for node in ["n1", "n2", "n3"] {
            let done = self.cluster.bed().node_named(node)?.run(&["sh", "-c", &script], "")?;
            ensure!(done.ok, "on {node}: {}", done.stderr);
            outputs.push(done.stdout);
        }
        Ok(outputs)
    }
}

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        // The preload first: a loader that does not find its library complains in every program.
        if let Err(why) = self.in_layers(&format!("rm -f $d/{PRELOAD} $d/{LIBRARY}")) {
            eprintln!("the clock of tests stays in the images of this cluster: {why:#}");
        }
    }
}

/// Steps the wall clock of a member, its PostgreSQL's and its agent's, to so many seconds from the true time.
///
/// # Errors
/// When the member cannot be reached.
pub fn step(set: &Set<'_>, member: &str, seconds: i64) -> anyhow::Result<()> {
    let octal: String = seconds.to_le_bytes().iter().map(|b| format!("\\{b:03o}")).collect();
    // In place: a file that is emptied first would be pulled away under whoever has it mapped.
    let write = format!("printf '{octal}' | dd of=/tmp/step conv=notrunc bs=8 2> /dev/null");
    let exec = ["exec", member, "-c", "postgres", "--", "sh", "-c", &write];
    set.namespace.kubectl(&exec, "")?;
    Ok(())
}
