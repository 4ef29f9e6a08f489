//! What a cluster costs: memory and processor time.

use crate::{Cluster, mark};
use std::collections::BTreeMap;
use std::fs;

/// What the processes of one program cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// How many processes.
    pub processes: u32,
    /// Resident memory, in kB; memory that several share counts for each.
    pub rss: u64,
    /// Resident memory, in kB; memory that several share is divided among them.
    pub pss: u64,
    /// Processor time so far, in seconds.
    pub cpu: f64,
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.processes += other.processes;
        self.rss += other.rss;
        self.pss += other.pss;
        self.cpu += other.cpu;
    }
}

impl Cluster {
    /// By part and program, e.g. `n1/kubelet`; without containers.
    #[must_use]
    pub fn usage(&self) -> BTreeMap<String, Usage> {
        let mut all = BTreeMap::<String, Usage>::new();
        for process in mark::processes(self.folder()) {
            let place = process.part.split('/').next().unwrap_or_default();
            let name = if place == process.program { place.to_owned() } else { format!("{place}/{}", process.program) };
            all.entry(name).or_default().add(of(process.pid));
        }
        all
    }

    /// The sum of [`Cluster::usage`].
    #[must_use]
    pub fn whole_usage(&self) -> Usage {
        let mut sum = Usage::default();
        self.usage().into_values().for_each(|one| sum.add(one));
        sum
    }
}

/// What one process costs; nothing when it is gone.
fn of(pid: i32) -> Usage {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let rollup = read("smaps_rollup");
    let stat = read("stat");
    let ticks = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    let ticks: u64 = ticks.into_iter().flatten().filter_map(|t| t.parse::<u64>().ok()).sum();
    Usage {
        processes: 1,
        rss: kilobytes(&rollup, "Rss:"),
        pss: kilobytes(&rollup, "Pss:"),
        // The unit of that file is a hundredth of a second on every architecture that we build for.
        cpu: ticks as f64 / 100.0,
    }
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_costs_something() {
        let usage = of(std::process::id() as i32);
        assert!(usage.rss > 500 && usage.pss > 0 && usage.pss <= usage.rss, "{usage:?}");
        assert_eq!(kilobytes("Rss:    12 kB\nPss:     7 kB\n", "Pss:"), 7);
    }
}
