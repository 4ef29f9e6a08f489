//! Which processes of this machine a pod consists of, and signals to them. Never by name: whoever is not a descendant of the
//! cluster's own program is left alone.

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    parent: u32,
    /// Its numbers, from our own view to the innermost one.
    numbers: Vec<u32>,
    command: Vec<String>,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(&status, &fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
    }

    fn parse(status: &str, command: &[u8]) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
        let numbers = field("NSpid:")?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let command = command.split(|b| *b == 0).filter(|w| !w.is_empty());
        let command = command.map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        Some(Self { parent: field("PPid:")?.trim().parse().ok()?, numbers, command })
    }

    /// The first process of a container whose number in the cluster is this.
    fn is_first(&self, in_cluster: u32) -> bool {
        matches!(self.numbers[..], [.., n, 1] if n == in_cluster)
    }

    /// The server itself, not one of its backends, which call themselves `postgres: …`.
    fn is_postmaster(&self) -> bool {
        self.command.first().is_some_and(|c| c == "postgres" || c.ends_with("/postgres"))
    }
}

/// Everything that the cluster's program started, at one moment.
pub(super) struct Tree(BTreeMap<u32, Process>);

impl Tree {
    /// `root`: the process that started the cluster.
    pub(super) fn of(root: u32) -> Self {
        let all = everything();
        let own = below(&all, root);
        Self(all.into_iter().filter(|(p, _)| own.contains(p)).collect())
    }

    /// The process whose arguments begin with these.
    pub(super) fn with_arguments(&self, arguments: &[&str]) -> Option<u32> {
        let same = |p: &Process| {
            p.command.len() > arguments.len() && p.command[1..].iter().zip(arguments).all(|(a, b)| a == b)
        };
        self.0.iter().find(|(_, p)| same(p)).map(|(pid, _)| *pid)
    }

    /// The process that holds the namespaces of the pod with this address.
    pub(super) fn sandbox(&self, address: &str) -> Option<u32> {
        let holds = |p: &Process| {
            p.command.get(1).is_some_and(|w| w == "sandbox") && p.command.last().is_some_and(|w| w == address)
        };
        self.0.iter().find(|(_, p)| holds(p)).map(|(pid, _)| *pid)
    }

    fn container(&self, in_cluster: u32) -> Vec<u32> {
        let Some(first) = self.0.iter().find(|(_, p)| p.is_first(in_cluster)).map(|(pid, _)| *pid) else {
            return vec![];
        };
        let mut all = vec![first];
        all.extend(below(&self.0, first));
        all
    }
}

/// Everything that runs on this machine.
pub(super) fn everything() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|p| Some((p, Process::read(p)?))).collect()
}

/// The descendants of a process.
pub(super) fn below(all: &BTreeMap<u32, Process>, root: u32) -> Vec<u32> {
    let mut found: Vec<u32> = vec![];
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        let children = all.iter().filter(|(pid, p)| p.parent == parent && !found.contains(pid)).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        next.extend(&children);
        found.extend(children);
    }
    found
}

/// A part of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The server's first process.
    Postmaster,
    /// All of PostgreSQL, without the supervisor.
    Server,
    /// The first process of PostgreSQL's container.
    Supervisor,
    /// All of that container.
    Database,
    /// The agent's container.
    Agent,
    /// All of the pod.
    Pod,
}

/// The processes of clusters are found from here.
#[derive(Debug, Clone)]
pub struct Processes {
    /// The process that started the cluster.
    pub root: u32,
    /// The cluster's directory.
    pub directory: PathBuf,
}

impl Processes {
    /// The processes of a part of the pod with this UID; none if it does not run.
    pub fn of(&self, pod: &str, part: Part) -> Vec<i32> {
        let tree = Tree::of(self.root);
        let container = |name: &str| {
            let number = first_of(&self.directory, pod, name);
            number.map(|n| tree.container(n)).unwrap_or_default()
        };
        let database = container("postgres");
        let postmaster = |pid: &u32| tree.0.get(pid).is_some_and(Process::is_postmaster);
        let pids: Vec<u32> = match part {
            Part::Postmaster => database.into_iter().filter(postmaster).take(1).collect(),
            Part::Server => database.into_iter().skip(1).collect(),
            Part::Supervisor => database.into_iter().take(1).collect(),
            Part::Database => database,
            Part::Agent => container("agent"),
            Part::Pod => [container("agent"), database].concat(),
        };
        pids.into_iter().filter_map(|p| i32::try_from(p).ok()).collect()
    }

    /// Kills it at once; how many processes that were.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, pod: &str, part: Part) -> anyhow::Result<usize> {
        let pids = self.of(pod, part);
        if pids.is_empty() {
            bail!("{part:?} of the pod {pod} does not run");
        }
        // Whoever has ended meanwhile is dead, too.
        pids.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid), Signal::SIGKILL));
        Ok(pids.len())
    }

    /// Stops it, children that it starts meanwhile included; which processes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self, pod: &str, part: Part) -> anyhow::Result<Vec<i32>> {
        let mut stopped: Vec<i32> = vec![];
        // A child that is started before its parent stops is seen in the next look.
        for _ in 0..10 {
            let new: Vec<i32> = self.of(pod, part).into_iter().filter(|p| !stopped.contains(p)).collect();
            if new.is_empty() {
                break;
            }
            new.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP));
            stopped.extend(new);
        }
        if stopped.is_empty() {
            bail!("{part:?} of the pod {pod} does not run");
        }
        Ok(stopped)
    }

    /// Lets those go on that still belong to the cluster.
    pub fn go_on(&self, stopped: &[i32]) {
        let tree = Tree::of(self.root);
        for pid in stopped.iter().filter(|p| u32::try_from(**p).is_ok_and(|p| tree.0.contains_key(&p))) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

/// The number, inside the cluster, of a container's first process. The kubelet notes it in `<container>.<life>.pid`; the last
/// life is the present one.
fn first_of(directory: &Path, pod: &str, container: &str) -> Option<u32> {
    let life = |name: &str| name.strip_prefix(container)?.strip_prefix('.')?.strip_suffix(".pid")?.parse::<u32>().ok();
    let files = fs::read_dir(directory.join("pods").join(pod)).ok()?.flatten();
    let (_, last) = files.filter_map(|e| Some((life(e.file_name().to_str()?)?, e.path()))).max()?;
    fs::read_to_string(last).ok()?.trim().parse().ok()
}

/// Empties the volume of a claim: those who have it go on with what was in it, and whoever starts next finds nothing. Where
/// that is now.
///
/// # Errors
/// When there is no such volume.
pub fn take_disk(directory: &Path, volume: &str) -> anyhow::Result<PathBuf> {
    let at = directory.join("volumes").join(volume);
    let away = directory.join("volumes").join(format!("{volume}-gone-{:08x}", rand::random::<u32>()));
    let what = || format!("the volume at {}", at.display());
    let before = fs::metadata(&at).with_context(what)?;
    fs::rename(&at, &away).with_context(what)?;
    fs::create_dir(&at).with_context(what)?;
    fs::set_permissions(&at, before.permissions()).with_context(what)?;
    chown(&at, Some(before.uid()), Some(before.gid())).with_context(what)?;
    Ok(away)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    fn process(parent: u32, numbers: &[u32], command: &[&str]) -> Process {
        Process { parent, numbers: numbers.to_vec(), command: command.iter().map(|c| (*c).to_owned()).collect() }
    }

    #[test]
    fn a_container_is_its_first_process_and_what_descends_from_it() {
        let all: BTreeMap<u32, Process> = [
            (70, process(60, &[70, 11], &["pgconvoy-embedded", "shim"])),
            (71, process(70, &[71, 12, 1], &["/place/supervisor"])),
            (80, process(71, &[80, 20, 2], &["postgres", "-D", "/x"])),
            (81, process(80, &[81, 21, 3], &["postgres: walwriter "])),
            (90, process(1, &[90, 12, 1], &["/another/cluster"])),
        ]
        .into();
        let own = below(&all, 60);
        assert_eq!(own, [70, 71, 80, 81], "nobody else's");
        let tree = Tree(all.into_iter().filter(|(p, _)| own.contains(p)).collect());
        assert_eq!(tree.container(12), [71, 80, 81]);
        assert!(tree.container(11).is_empty(), "a shim is no container");
        assert!(tree.0[&80].is_postmaster() && !tree.0[&81].is_postmaster() && !tree.0[&71].is_postmaster());
        assert_eq!(tree.with_arguments(&["shim"]), Some(70));
    }

    #[test]
    fn a_process_is_known_by_its_number_inside() {
        let first = Process::parse("Name:\tsupervisor\nPPid:\t70\nNSpid:\t71\t12\t1\n", b"").unwrap();
        assert_eq!(first, process(70, &[71, 12, 1], &[]));
        assert!(first.is_first(12) && !first.is_first(71) && !first.is_first(1));
        let within = Process::parse("PPid:\t71\nNSpid:\t80\t12\t2\n", b"").unwrap();
        assert!(!within.is_first(12), "not the first");
    }

    #[test]
    fn only_ones_own_descendants_count() {
        let mut child = std::process::Command::new("sleep").arg("20").spawn().unwrap();
        assert!(below(&everything(), std::process::id()).contains(&child.id()));
        assert!(!below(&everything(), child.id()).contains(&std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
