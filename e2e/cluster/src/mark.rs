//! The mark that every process of a cluster carries in its environment: which cluster, and which part of it.
//!
//! Process ids in files outlive their processes, a mark does not: whoever comes later asks `/proc`, and never ends anything
//! that does not carry it.

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The environment variable: `<the cluster's directory>:<part>`.
pub const VARIABLE: &str = "KCLUSTER_PART";

/// A process of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id, as seen by us.
    pub pid: i32,
    /// Which part of the cluster it was started as: `etcd`, `n1`, `n1/kubelet`, …; children inherit it.
    pub part: String,
    /// The name of its program, without the directory.
    pub program: String,
}

/// The value of [`VARIABLE`] for a part.
pub(crate) fn value(state: &Path, part: &str) -> String {
    format!("{}:{part}", state.display())
}

/// Every process of the cluster whose directory is `state`.
#[must_use]
pub fn processes(state: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| look(pid, state)).collect()
}

/// The processes of one part, without what it started under other program names.
pub(crate) fn of_part(state: &Path, part: &str, program: &str) -> Vec<Process> {
    processes(state).into_iter().filter(|p| p.part == part && p.program == program).collect()
}

fn look(pid: i32, state: &Path) -> Option<Process> {
    let part = part_in(&fs::read(format!("/proc/{pid}/environ")).ok()?, state)?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = String::from_utf8_lossy(command.split(|b| *b == 0).next()?).into_owned();
    let program = first.rsplit('/').next().unwrap_or_default().to_owned();
    Some(Process { pid, part, program })
}

/// The part that an environment names, if it is that of this cluster.
fn part_in(environment: &[u8], state: &Path) -> Option<String> {
    let head = [VARIABLE.as_bytes(), b"="].concat();
    let value = environment.split(|b| *b == 0).find_map(|entry| entry.strip_prefix(head.as_slice()))?;
    let (of, part) = std::str::from_utf8(value).ok()?.rsplit_once(':')?;
    (Path::new(of) == state).then(|| part.to_owned())
}

/// Sends SIGKILL, if the process is still that one.
pub(crate) fn end(process: &Process, state: &Path) -> anyhow::Result<()> {
    if look(process.pid, state).is_none_or(|now| now.part != process.part) {
        return Ok(());
    }
    match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot end process {} ({})", process.pid, process.part)),
    }
}

/// Waits until none of `these` is there any more.
pub(crate) fn gone(these: &[Process], state: &Path, within: Duration) -> anyhow::Result<()> {
    let limit = Instant::now() + within;
    loop {
        let left: Vec<_> = these.iter().filter(|p| look(p.pid, state).is_some_and(|n| n.part == p.part)).collect();
        let Some(first) = left.first() else { return Ok(()) };
        if Instant::now() > limit {
            bail!("process {} ({}, {}) does not end", first.pid, first.part, first.program);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The process ids of `pid` from our namespace inwards, as `NSpid` of `/proc/PID/status` has them.
pub(crate) fn ids(pid: i32) -> Vec<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// When a process started, in clock ticks since boot: with its id, that is an identity. None when there is no such process.
#[must_use]
pub fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_cluster() {
        let environment = b"A=1\0KCLUSTER_PART=/p/clusters/a:n1/kubelet\0B=2\0";
        assert_eq!(part_in(environment, Path::new("/p/clusters/a")).as_deref(), Some("n1/kubelet"));
        assert_eq!(part_in(environment, Path::new("/p/clusters/ab")), None);
        assert_eq!(part_in(b"XKCLUSTER_PART=/p/clusters/a:n1\0", Path::new("/p/clusters/a")), None);
    }

    #[test]
    fn a_marked_process_is_found_and_ended_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let sleep = |state: &Path, part: &str| {
            std::process::Command::new("sleep").arg("60").env(VARIABLE, value(state, part)).spawn().unwrap()
        };
        let (mut ours, mut other) = (sleep(folder.path(), "etcd"), sleep(Path::new("/elsewhere"), "etcd"));
        let limit = Instant::now() + Duration::from_secs(5);
        // Between fork and exec it still looks like this test.
        while of_part(folder.path(), "etcd", "sleep").is_empty() {
            assert!(Instant::now() < limit, "not found");
        }
        let found = of_part(folder.path(), "etcd", "sleep");
        assert_eq!(found.iter().map(|p| p.pid).collect::<Vec<_>>(), [ours.id() as i32]);
        assert!(of_part(folder.path(), "etcd", "etcd").is_empty());
        end(&found[0], folder.path()).unwrap();
        gone(&found, folder.path(), Duration::from_secs(5)).unwrap();
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "a process of another cluster was ended");
        // Its id may be anyone's now.
        let stale = Process { pid: other.id() as i32, ..found[0].clone() };
        end(&stale, folder.path()).unwrap();
        assert!(other.try_wait().unwrap().is_none(), "a process without our mark was ended");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_process_has_a_start() {
        assert!(started(std::process::id()).unwrap() > 0);
        assert_eq!(started(u32::MAX), None);
    }
}
