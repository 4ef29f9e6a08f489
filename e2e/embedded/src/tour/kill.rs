//! Which process of this machine is the first of a container: the one that `kill -9` is for.

use std::fs;
use std::path::Path;

/// The process of this machine that is the first one of `container` in the pod with this UID.
pub(super) fn first_process(directory: &Path, pod: &str, container: &str) -> Option<i32> {
    // The kubelet notes the number that it sees itself, `<container>.<life>.pid`; the last life is the present one.
    let life = |name: &str| name.strip_prefix(container)?.strip_prefix('.')?.strip_suffix(".pid")?.parse::<u32>().ok();
    let files = fs::read_dir(directory.join("pods").join(pod)).ok()?.flatten();
    let last = files.filter_map(|e| Some((life(e.file_name().to_str()?)?, e.path()))).max()?;
    let number: u32 = fs::read_to_string(last.1).ok()?.trim().parse().ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    let found = processes.into_iter().find(|p| of(*p).is_some_and(|s| s.is(number)) && descends(*p, own))?;
    i32::try_from(found).ok()
}

fn of(process: u32) -> Option<Status> {
    Status::read(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

/// Other clusters have the same numbers inside; ours are our children's children.
fn descends(process: u32, from: u32) -> bool {
    let mut next = process;
    // No tree of processes is that deep.
    for _ in 0..64 {
        match of(next) {
            Some(status) if status.parent == from => return true,
            Some(status) if status.parent > 1 => next = status.parent,
            _ => return false,
        }
    }
    false
}

#[derive(Debug, PartialEq)]
struct Status {
    parent: u32,
    /// Its numbers: as we see it, as the cluster does, as its container does.
    numbers: Vec<u32>,
}

impl Status {
    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name));
        let numbers = field("NSpid:")?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        Some(Self { parent: field("PPid:")?.trim().parse().ok()?, numbers })
    }

    /// The first process of a container, whose number is this one in the cluster.
    fn is(&self, in_cluster: u32) -> bool {
        matches!(self.numbers[..], [_, n, 1] if n == in_cluster)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_inside() {
        let status = Status::read("Name:\tsupervisor\nPPid:\t70\nNSpid:\t71\t12\t1\n").unwrap();
        assert_eq!(status, Status { parent: 70, numbers: vec![71, 12, 1] });
        assert!(status.is(12) && !status.is(71) && !status.is(1));
        let within = Status::read("PPid:\t71\nNSpid:\t80\t12\t2\n").unwrap();
        assert!(!within.is(12), "not the first");
    }

    #[test]
    fn only_ones_own_descendants_count() {
        let mut child = std::process::Command::new("sleep").arg("20").spawn().unwrap();
        assert!(descends(child.id(), std::process::id()));
        assert!(!descends(std::process::id(), child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
