//! The PID namespace of the container: everything in it, and the end of everything in it.

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};
use std::fs;

/// Proof that this process is PID 1 of its namespace, without which nothing may be killed wholesale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namespace(());

impl Namespace {
    /// The namespace of this process, if it is its first.
    pub(crate) fn own() -> Result<Self, String> {
        let pid = getpid();
        if pid.as_raw() == 1 {
            return Ok(Self(()));
        }
        Err(format!(
            "this must be the first process (PID 1) of a container, but it is process {pid}: it kills every process \
             that it can see when PostgreSQL's permission runs out, and outside a PID namespace of its own that is the \
             whole machine. Make it the command of the postgres container, in a pod without shareProcessNamespace; to \
             try it by hand: unshare --pid --fork --mount-proc --kill-child pgconvoy-supervisor ..."
        ))
    }

    /// Kills everything but this process, once; false when there was nothing, not even a zombie.
    ///
    /// One call is one pass under the kernel's list lock, and a process with a pending SIGKILL cannot fork: nobody
    /// slips through. Allocates nothing.
    pub(crate) fn kill_all(self) -> bool {
        kill(Pid::from_raw(-1), Signal::SIGKILL) != Err(Errno::ESRCH)
    }

    /// Whether anything but this process still runs. Zombies do not: those of `kubectl exec` are reaped outside.
    pub(crate) fn anything_runs(self) -> bool {
        match processes() {
            Some(list) => list.iter().any(|p| p.pid != 1),
            None => kill(Pid::from_raw(-1), None) != Err(Errno::ESRCH),
        }
    }

    /// The running processes whose parent has died; none when `/proc` does not tell.
    pub(crate) fn orphans(self) -> Option<Vec<Pid>> {
        Some(processes()?.iter().filter(|p| p.parent == 1).map(|p| Pid::from_raw(p.pid)).collect())
    }
}

struct Process {
    pid: i32,
    parent: i32,
}

/// Everything that runs, without zombies. None unless `/proc` is that of this namespace: the numbers of another one
/// would be other processes.
fn processes() -> Option<Vec<Process>> {
    if fs::read_link("/proc/self").ok()?.as_os_str() != "1" {
        return None;
    }
    let mut list = Vec::new();
    for entry in fs::read_dir("/proc").ok()? {
        let name = entry.ok()?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
        // It may have ended since.
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { continue };
        list.extend(running(pid, &stat));
    }
    Some(list)
}

/// Reads one `stat` line; none for a zombie (a dead leader with living threads is not one).
fn running(pid: i32, stat: &[u8]) -> Option<Process> {
    // The name stands in parentheses and may hold anything, parentheses included.
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let threads: i64 = fields.nth(15)?.parse().ok()?;
    let dead = matches!(state, "Z" | "X" | "x") && threads <= 1;
    (!dead).then_some(Process { pid, parent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_to_be_anything_but_the_first_process() {
        assert!(Namespace::own().unwrap_err().contains("PID 1"));
    }

    #[test]
    fn reads_its_own_line() {
        let pid = getpid().as_raw();
        let stat = fs::read("/proc/self/stat").unwrap();
        let me = running(pid, &stat).unwrap();
        assert_eq!((me.pid, me.parent), (pid, nix::unistd::getppid().as_raw()));
    }

    #[test]
    fn names_and_zombies() {
        let line = |name: &str, state: &str, threads: u32| {
            format!("7 ({name}) {state} 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 1 2").into_bytes()
        };
        assert_eq!(running(7, &line("a) R 1 (b", "S", 1)).unwrap().parent, 3);
        assert!(running(7, &line("x", "Z", 1)).is_none());
        assert!(running(7, &line("x", "Z", 2)).is_some());
        assert!(running(7, b"7 (x").is_none());
        assert!(running(7, b"7 (x) S 1").is_none());
    }

    #[test]
    fn another_namespaces_proc_is_not_read() {
        assert!(processes().is_none(), "this test is not PID 1, so /proc must not be believed");
    }
}
