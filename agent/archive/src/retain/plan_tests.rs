//! What retention keeps, by example and by chance.

use super::*;
use crate::retain::inventory::{EpochSeen, Unfinished};
use pgconvoy_terms::{ChangeId, Epoch, SystemId};

const NOW: i64 = 1_800_000_000;
const SEGMENT: u64 = 16 << 20;

fn epoch(number: u32) -> Epoch {
    Epoch { number, id: ChangeId::from_random(number.into()) }
}

fn seen(number: u32, parent: Option<(u32, u64)>) -> EpochSeen {
    EpochSeen {
        dir: EpochDir { system: SystemId(7), epoch: epoch(number) },
        parent: parent.map(|(n, at)| (epoch(n), Lsn(at))),
        segment_size: SEGMENT,
    }
}

/// A snapshot that was complete so many days ago.
fn good(name: &str, number: u32, start: u64, days: i64) -> Good {
    let (id, epoch) = (name.parse().unwrap(), epoch(number));
    Good { id, epoch, start: Lsn(start), stop: Lsn(start + 1000), time: NOW - days * DAY, bytes: 1 }
}

fn inventory(good: Vec<Good>) -> Inventory {
    let epochs = vec![seen(1, None), seen(2, Some((1, 20 * SEGMENT))), seen(5, Some((2, 40 * SEGMENT + 5)))];
    Inventory { system: SystemId(7), good, unfinished: vec![], epochs }
}

fn daily() -> Inventory {
    inventory(vec![
        good("a", 1, 10 * SEGMENT + 40, 9),
        good("b", 1, 15 * SEGMENT + 40, 7),
        good("c", 2, 25 * SEGMENT + 40, 5),
        good("d", 2, 35 * SEGMENT + 40, 3),
        good("e", 5, 45 * SEGMENT + 40, 1),
    ])
}

fn kept(plan: &Plan) -> String {
    plan.keep.iter().map(|(id, _)| id.to_string()).collect()
}

fn days(days: u32) -> Policy {
    Policy { days: Some(days), snapshots: None }
}

fn count(snapshots: u32) -> Policy {
    Policy { days: None, snapshots: Some(snapshots) }
}

fn at(plan: &Plan) -> (u32, u64) {
    let floor = plan.floor.as_ref().unwrap();
    (floor.number, floor.begins[0].1.0 / SEGMENT)
}

#[test]
fn days_keep_the_snapshot_with_which_they_begin() {
    let planned = |policy| plan(&daily(), policy, (NOW, NOW));
    let four = planned(days(4));
    assert_eq!(kept(&four), "edc", "c is five days old, and the four days begin with it");
    assert_eq!(four.keep[2].1, Why::Base);
    assert_eq!(at(&four), (2, 25));
    assert_eq!(kept(&planned(days(5))), "edc");
    assert_eq!(kept(&planned(days(6))), "edcb");
    assert_eq!(kept(&planned(days(30))), "edcba");
    assert_eq!(kept(&planned(count(2))), "ed");
    assert_eq!(kept(&planned(count(99))), "edcba");
    let both = Policy { days: Some(1), snapshots: Some(4) };
    assert_eq!(kept(&planned(both)), "edcb", "what either of them keeps");
    assert_eq!(kept(&planned(Policy::default())), "edcba", "nothing is asked");
    assert_eq!(planned(Policy::default()).floor, None);
}

#[test]
fn the_newest_stays_however_old_and_a_clock_that_is_ahead_deletes_nothing_of_its_own() {
    let late = NOW + 365 * DAY;
    assert_eq!(kept(&plan(&daily(), days(1), (late, late))), "e");
    assert_eq!(kept(&plan(&daily(), count(0), (NOW, NOW))), "e");
    // One of the two clocks is a year ahead.
    for clocks in [(late, NOW), (NOW, late)] {
        let plan = plan(&daily(), days(4), clocks);
        assert_eq!(kept(&plan), "edc");
        assert!(plan.note.unwrap().contains("the earlier one counts"));
    }
    // A snapshot that says it is of the future is no base, and takes nothing with it.
    let mut archive = daily();
    archive.good[2].time = late;
    assert_eq!(kept(&plan(&archive, days(4), (NOW, NOW))), "edcb");
    assert_eq!(plan(&inventory(vec![]), days(1), (NOW, NOW)).floor, None);
}

#[test]
fn a_snapshot_that_begins_before_its_epoch_keeps_what_it_needs_of_the_one_before() {
    let archive = inventory(vec![good("a", 1, 10 * SEGMENT, 9), good("e", 5, 39 * SEGMENT + 1, 1)]);
    assert_eq!(at(&plan(&archive, count(1), (NOW, NOW))), (2, 39));
    let archive = inventory(vec![good("a", 1, 10 * SEGMENT, 9), good("e", 5, 19 * SEGMENT + 1, 1)]);
    assert_eq!(at(&plan(&archive, count(1), (NOW, NOW))), (1, 19), "over two forks");
    // Where it begins is not known: no WAL goes.
    let mut archive = inventory(vec![good("a", 1, 10 * SEGMENT, 9), good("e", 5, 45 * SEGMENT, 1)]);
    archive.epochs.pop();
    assert_eq!(plan(&archive, count(1), (NOW, NOW)).floor, None);
}

#[test]
fn remains_of_snapshots_go_once_nobody_adds_to_them() {
    let mut archive = daily();
    for (name, newest) in [("old", Some(NOW - 3 * DAY)), ("running", Some(NOW - 60)), ("unknown", None)] {
        archive.unfinished.push(Unfinished { id: name.parse().unwrap(), newest, bytes: 1 });
    }
    let gone: Vec<_> = plan(&archive, days(30), (NOW, NOW)).abandoned.iter().map(ToString::to_string).collect();
    assert_eq!(gone, ["old"]);
}

/// Whatever is there and asked: each moment of the days can be restored that could be before, the newest stays, and so do as many
/// as are asked for; and no WAL goes that a kept one needs.
#[test]
fn by_chance() {
    let mut seed = 1u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..20_000 {
        // Epochs that go on from one another, with gaps in their numbers, some from an earlier one than the last.
        let mut epochs = vec![seen(1, None)];
        let mut number = 1;
        let mut lsn = SEGMENT;
        let mut snapshots: Vec<Good> = Vec::new();
        let mut age = 40 * DAY;
        for n in 0..random(12) {
            lsn += random(5 * SEGMENT);
            age = (age - random(6 * DAY as u64) as i64).max(0);
            if random(3) == 0 {
                let parent = epochs[epochs.len() - 1 - (random(2) as usize).min(epochs.len() - 1)].dir.epoch.number;
                number += 1 + random(3) as u32;
                epochs.push(seen(number, Some((parent, lsn))));
            } else {
                // It may begin a little earlier than its epoch.
                let start = lsn.saturating_sub(random(3 * SEGMENT)).max(SEGMENT);
                let id = format!("s{n:02}").parse().unwrap();
                let stop = Lsn(lsn + 10);
                let time = NOW - age;
                snapshots.push(Good { id, epoch: epoch(number), start: Lsn(start), stop, time, bytes: 1 });
            }
        }
        let archive = Inventory { system: SystemId(7), good: snapshots.clone(), unfinished: vec![], epochs };
        let policy = Policy {
            days: (random(3) > 0).then(|| random(45) as u32),
            snapshots: (random(3) > 0).then(|| random(6) as u32),
        };
        let plan = plan(&archive, policy, (NOW, NOW));
        let is_kept = |s: &Good| plan.keep.iter().any(|(id, _)| *id == s.id);
        assert_eq!(plan.keep.len() + plan.expire.len(), snapshots.len(), "round {round}");
        if let Some(newest) = snapshots.last() {
            assert!(is_kept(newest), "round {round}");
        }
        let least = policy.snapshots.unwrap_or(0) as usize;
        assert!(plan.keep.len() >= least.min(snapshots.len()), "round {round}");
        let from = NOW - i64::from(policy.days.unwrap_or(0)) * DAY;
        for moment in (from..=NOW).step_by(DAY as usize / 2) {
            let newest = |of: &dyn Fn(&Good) -> bool| {
                snapshots.iter().rfind(|s| s.time <= moment && of(s)).map(|s| s.id.to_string())
            };
            if policy.days.is_some() {
                assert_eq!(newest(&|_| true), newest(&is_kept), "round {round}: {moment}");
            }
        }
        let Some(floor) = &plan.floor else { continue };
        for snapshot in snapshots.iter().filter(|s| is_kept(s)) {
            // Its own way back to where it begins.
            let mut at = snapshot.epoch.clone();
            loop {
                let here = archive.epochs.iter().find(|e| e.dir.epoch == at).unwrap();
                assert!(at.number >= floor.number, "round {round}: epoch {at} goes, which {} needs", snapshot.id);
                let fork = here.parent.as_ref().filter(|(_, fork)| snapshot.start < *fork);
                if let Some((_, begin)) = floor.begins.iter().find(|(dir, _)| dir.epoch == at)
                    && fork.is_none()
                {
                    assert!(*begin <= snapshot.start, "round {round}: {} begins earlier", snapshot.id);
                }
                match fork {
                    Some((parent, _)) => at = parent.clone(),
                    None => break,
                }
            }
        }
    }
}
