//! The one clock of the permission: `CLOCK_BOOTTIME`.
//!
//! It counts while the machine sleeps, nobody can set it, and the containers of a pod share the kernel that keeps it.

use nix::time::{ClockId, clock_gettime};
use std::{fmt, time::Duration};

/// A moment on `CLOCK_BOOTTIME`, in milliseconds since the kernel started. Means nothing on another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boottime(pub u64);

impl Boottime {
    /// The present moment, rounded down to a millisecond.
    pub fn now() -> Self {
        // The call fails for a bad clock id or pointer only. Should a sandbox forbid it, every permission must look
        // expired: the end of time is the safe answer.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Self(u64::MAX), |t| {
            let millis = t.tv_sec().saturating_mul(1000).saturating_add(t.tv_nsec() / 1_000_000);
            Self(u64::try_from(millis).unwrap_or(0))
        })
    }

    /// The moment `duration` later, rounded down to a millisecond; the end of time if that overflows.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long until `self`, seen from `now`; zero when it has passed.
    pub fn remaining(self, now: Boottime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(now.0))
    }
}

impl fmt::Display for Boottime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_and_agrees_with_the_kernel() {
        let before = Boottime::now();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        std::thread::sleep(Duration::from_millis(3));
        let after = Boottime::now();
        assert!(after > before);
        assert!((seconds * 1000.0 - before.0 as f64).abs() < 1000.0, "{seconds} s, {before} ms");
    }

    #[test]
    fn arithmetic_does_not_wrap() {
        assert_eq!(Boottime(5).after(Duration::from_millis(7)), Boottime(12));
        assert_eq!(Boottime(u64::MAX).after(Duration::MAX), Boottime(u64::MAX));
        assert_eq!(Boottime(9).remaining(Boottime(4)), Duration::from_millis(5));
        assert_eq!(Boottime(4).remaining(Boottime(9)), Duration::ZERO);
    }
}
