//! What is kept and what goes. Pure.

use super::inventory::{Good, Inventory};
use crate::{layout::EpochDir, snapshot::SnapshotId};
use jiff::Timestamp;
use pgconvoy_terms::Lsn;
use std::fmt;

/// Seconds of a day.
const DAY: i64 = 86_400;
/// An unfinished snapshot to which nothing was added for so long is not being taken any more.
const ABANDONED: i64 = 2 * DAY;

/// What the user asks for. With both, what either of them keeps is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Any moment of so many last days can be restored.
    pub days: Option<u32>,
    /// So many of the newest snapshots, and all WAL since.
    pub snapshots: Option<u32>,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is the newest: without it nothing could be restored.
    Newest,
    /// It is one of the last so many.
    Count,
    /// It is of the last so many days.
    Window,
    /// It is older, and the days begin with it.
    Base,
    /// Nothing is asked to go.
    NoPolicy,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "the newest",
            Self::Count => "among the last",
            Self::Window => "within the days",
            Self::Base => "the days begin with it",
            Self::NoPolicy => "no retention",
        })
    }
}

/// Where the WAL begins that kept snapshots need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// Epochs of lower numbers go as a whole.
    pub number: u32,
    /// Of these, what lies before: whole segments that end there or earlier.
    pub begins: Vec<(EpochDir, Lsn)>,
}

/// What is kept and what goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What stays, the newest first.
    pub keep: Vec<(SnapshotId, Why)>,
    /// Snapshots that go, the oldest first.
    pub expire: Vec<SnapshotId>,
    /// Remains of snapshots that were never finished, which go.
    pub abandoned: Vec<SnapshotId>,
    /// WAL that goes lies before this; none: all of it stays.
    pub floor: Option<Floor>,
    /// What should be known about it.
    pub note: Option<String>,
}

/// Decides. `now`: this machine's clock and the store's, in seconds since 1970. Where they differ the earlier one counts, so that
/// a clock that is ahead deletes nothing that another would keep.
pub fn plan(inventory: &Inventory, policy: Policy, (here, store): (i64, i64)) -> Plan {
    let now = here.min(store);
    let mut plan = Plan::default();
    if here.abs_diff(store) > 3600 {
        plan.note = Some(format!(
            "this member's clock says {}, the store's {}; the earlier one counts",
            time(here),
            time(store)
        ));
    }
    // The order in which they were taken, whatever clocks say.
    let mut good: Vec<&Good> = inventory.good.iter().collect();
    good.sort_by_key(|g| (g.epoch.number, g.stop, g.id.clone()));
    let Some(newest) = good.last() else {
        plan.note = Some("there is no complete snapshot, so nothing goes".to_owned());
        return plan;
    };
    let cut = policy.days.map(|days| now.saturating_sub(i64::from(days).saturating_mul(DAY)));
    let nothing = policy.days.is_none() && policy.snapshots.is_none();
    // The newest that was complete when the days began; every later one lies within them.
    let base = cut.and_then(|cut| good.iter().rposition(|g| g.time <= cut));
    let counted = policy.snapshots.map(|n| good.len().saturating_sub(n as usize));
    let mut kept: Vec<&Good> = Vec::new();
    for (n, snapshot) in good.iter().enumerate() {
        let why = if nothing {
            Some(Why::NoPolicy)
        } else if snapshot.id == newest.id {
            Some(Why::Newest)
        } else if counted.is_some_and(|first| n >= first) {
            Some(Why::Count)
        } else if cut.is_some() && base.is_none_or(|base| n > base) {
            Some(Why::Window)
        } else if base == Some(n) {
            Some(Why::Base)
        } else {
            None
        };
        match why {
            Some(why) => {
                plan.keep.insert(0, (snapshot.id.clone(), why));
                kept.push(snapshot);
            }
            None => plan.expire.push(snapshot.id.clone()),
        }
    }
    if nothing {
        return plan;
    }
    let old = |newest: Option<i64>| newest.is_some_and(|t| t <= now.saturating_sub(ABANDONED));
    plan.abandoned = inventory.unfinished.iter().filter(|u| old(u.newest)).map(|u| u.id.clone()).collect();
    plan.floor = floor(inventory, &kept);
    if plan.floor.is_none() {
        plan.note = Some("where the WAL of a kept snapshot begins cannot be told, so no WAL goes".to_owned());
    }
    plan
}

/// Where the WAL of kept snapshots begins; none: it cannot be told.
fn floor(inventory: &Inventory, kept: &[&Good]) -> Option<Floor> {
    let mut bases: Vec<(EpochDir, Lsn)> = Vec::new();
    for snapshot in kept {
        let mut epoch = &snapshot.epoch;
        // A follower's snapshot may begin before its epoch does.
        let dir = loop {
            let seen = inventory.epochs.iter().find(|e| e.dir.epoch == *epoch)?;
            match &seen.parent {
                Some((parent, fork)) if snapshot.start < *fork && parent.number < epoch.number => epoch = parent,
                _ => break seen,
            }
        };
        let start = Lsn(snapshot.start.0 - snapshot.start.0 % dir.segment_size.max(1));
        match bases.iter_mut().find(|(known, _)| *known == dir.dir) {
            Some((_, known)) => *known = start.min(*known),
            None => bases.push((dir.dir.clone(), start)),
        }
    }
    let number = bases.iter().map(|(dir, _)| dir.epoch.number).min()?;
    bases.retain(|(dir, _)| dir.epoch.number == number);
    Some(Floor { number, begins: bases })
}

/// A time for people.
pub(super) fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s"), |t| t.to_string())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
