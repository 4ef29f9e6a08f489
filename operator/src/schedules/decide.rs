//! Which run of a schedule is due. Pure.

use super::timetable::{Timetable, UTC};
use jiff::{SignedDuration, Timestamp};
use pgconvoy_crds::{PgSnapshotScheduleSpec, PgSnapshotScheduleStatus};

/// A clock that was put back by less is waited for: what was done is not done again. By more: the time that was noted came from
/// a clock that was wrong, and waiting for it would mean no snapshots until then.
const PUT_BACK: SignedDuration = SignedDuration::from_hours(1);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The spec is not usable: a sentence.
    Invalid(String),
    /// The user wants none now.
    Suspended,
    /// Nothing is due before `next`.
    Wait {
        /// When; none: never.
        next: Option<Timestamp>,
    },
    /// A snapshot is due.
    Run(Run),
}

/// A run that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The time for which it is.
    pub(super) due: Timestamp,
    /// How many were due before it and never made.
    pub(super) missed: usize,
    /// When the one behind it is due.
    pub(super) next: Option<Timestamp>,
}

/// From when on times count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ground {
    /// Times up to here are done, or not looked at.
    pub(super) after: Timestamp,
    /// The expression and the zone.
    pub(super) in_force: String,
    /// It begins anew with this look.
    pub(super) anew: bool,
}

/// Expression and zone in one text.
fn in_force(spec: &PgSnapshotScheduleSpec) -> String {
    format!("{} {}", spec.schedule, spec.time_zone.as_deref().unwrap_or(UTC))
}

/// From when on times count: the last run, or when the schedule was made, changed or resumed.
pub(super) fn ground(
    spec: &PgSnapshotScheduleSpec,
    before: &PgSnapshotScheduleStatus,
    made: Timestamp,
    now: Timestamp,
) -> Ground {
    let in_force = in_force(spec);
    let time = |text: &Option<String>| text.as_deref().and_then(|t| t.parse::<Timestamp>().ok());
    let counts = time(&before.counts_from);
    let noted = counts.max(time(&before.last_schedule_time));
    let ahead = noted.is_some_and(|n| n > now && n.duration_since(now) > PUT_BACK);
    // A schedule that was just made, and seen late by an operator that was away, counts from when it was made.
    let first = counts.is_none() && before.in_force.is_none();
    let changed = !first && before.in_force.as_ref() != Some(&in_force);
    match noted {
        Some(after) if !ahead && !changed => Ground { after, in_force, anew: false },
        None if first => Ground { after: made.min(now), in_force, anew: true },
        _ => Ground { after: now, in_force, anew: true },
    }
}

/// What is to be done at `now`.
pub(super) fn decide(spec: &PgSnapshotScheduleSpec, ground: &Ground, now: Timestamp) -> Decision {
    let table = match Timetable::new(&spec.schedule, spec.time_zone.as_deref()) {
        Ok(table) => table,
        Err(why) => return Decision::Invalid(why),
    };
    let Some(next) = table.next(ground.after) else {
        return Decision::Invalid(format!("spec.schedule {:?} names no day that ever comes", spec.schedule));
    };
    if spec.suspend == Some(true) {
        return Decision::Suspended;
    }
    match table.due(ground.after, now) {
        Some((due, missed)) => Decision::Run(Run { due, missed, next: table.next(due) }),
        None => Decision::Wait { next: Some(next) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str = "2026-06-01T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn daily() -> PgSnapshotScheduleSpec {
        PgSnapshotScheduleSpec {
            set: "orders".into(),
            schedule: "0 2 * * *".into(),
            time_zone: None,
            suspend: None,
            history: None,
        }
    }

    /// A status as it is after a look at the schedule, or a run for that time.
    fn after(spec: &PgSnapshotScheduleSpec, counts_from: &str, last: Option<&str>) -> PgSnapshotScheduleStatus {
        PgSnapshotScheduleStatus {
            counts_from: Some(counts_from.into()),
            last_schedule_time: last.map(Into::into),
            in_force: Some(in_force(spec)),
            ..PgSnapshotScheduleStatus::default()
        }
    }

    fn decided(spec: &PgSnapshotScheduleSpec, before: &PgSnapshotScheduleStatus, now: &str) -> Decision {
        decide(spec, &ground(spec, before, at(MADE), at(now)), at(now))
    }

    fn run(due: &str, missed: usize, next: &str) -> Decision {
        Decision::Run(Run { due: at(due), missed, next: Some(at(next)) })
    }

    #[test]
    fn it_runs_once_for_each_time() {
        let spec = daily();
        let new = PgSnapshotScheduleStatus::default();
        assert_eq!(decided(&spec, &new, MADE), Decision::Wait { next: Some(at("2026-06-02T02:00:00Z")) });
        let seen = after(&spec, MADE, None);
        assert_eq!(
            decided(&spec, &seen, "2026-06-02T02:00:00Z"),
            run("2026-06-02T02:00:00Z", 0, "2026-06-03T02:00:00Z")
        );
        let done = after(&spec, MADE, Some("2026-06-02T02:00:00Z"));
        let wait = Decision::Wait { next: Some(at("2026-06-03T02:00:00Z")) };
        assert_eq!(decided(&spec, &done, "2026-06-02T02:00:01Z"), wait);
    }

    #[test]
    fn what_was_missed_is_made_up_for_by_one_snapshot() {
        let spec = daily();
        let done = after(&spec, MADE, Some("2026-06-02T02:00:00Z"));
        let late = decided(&spec, &done, "2026-06-06T10:00:00Z");
        assert_eq!(late, run("2026-06-06T02:00:00Z", 3, "2026-06-07T02:00:00Z"));
        // Made while no operator ran, and never looked at.
        let never = PgSnapshotScheduleStatus::default();
        let late = decided(&spec, &never, "2026-06-03T10:00:00Z");
        assert_eq!(late, run("2026-06-03T02:00:00Z", 1, "2026-06-04T02:00:00Z"));
    }

    #[test]
    fn what_was_due_while_it_was_suspended_or_another_is_not_made_up_for() {
        let spec = PgSnapshotScheduleSpec { suspend: Some(true), ..daily() };
        let done = after(&spec, MADE, Some("2026-06-02T02:00:00Z"));
        assert_eq!(decided(&spec, &done, "2026-06-09T10:00:00Z"), Decision::Suspended);
        // The status forgets what is in force while it is suspended.
        let suspended = PgSnapshotScheduleStatus { in_force: None, ..done.clone() };
        let wait = Decision::Wait { next: Some(at("2026-06-10T02:00:00Z")) };
        assert_eq!(decided(&daily(), &suspended, "2026-06-09T10:00:00Z"), wait);

        let earlier = PgSnapshotScheduleSpec { schedule: "0 9 * * *".into(), ..daily() };
        let g = ground(&earlier, &done, at(MADE), at("2026-06-02T10:00:00Z"));
        assert!(g.anew);
        let wait = Decision::Wait { next: Some(at("2026-06-03T09:00:00Z")) };
        assert_eq!(decide(&earlier, &g, at("2026-06-02T10:00:00Z")), wait);
        let elsewhere = PgSnapshotScheduleSpec { time_zone: Some("Asia/Tokyo".into()), ..daily() };
        assert!(ground(&elsewhere, &done, at(MADE), at("2026-06-02T10:00:00Z")).anew);
    }

    #[test]
    fn a_clock_that_was_put_back_a_little_repeats_nothing_and_a_wrong_one_does_not_stop_it() {
        let spec = daily();
        let done = after(&spec, MADE, Some("2026-06-02T02:00:00Z"));
        let wait = Decision::Wait { next: Some(at("2026-06-03T02:00:00Z")) };
        assert_eq!(decided(&spec, &done, "2026-06-02T01:59:00Z"), wait);
        let wrong = after(&spec, MADE, Some("2036-06-02T02:00:00Z"));
        assert!(ground(&spec, &wrong, at(MADE), at("2026-06-02T01:59:00Z")).anew);
        let wait = Decision::Wait { next: Some(at("2026-06-02T02:00:00Z")) };
        assert_eq!(decided(&spec, &wrong, "2026-06-02T01:59:00Z"), wait);
    }

    #[test]
    fn a_schedule_that_is_none_is_said_also_while_it_is_suspended() {
        for schedule in ["0 0 30 2 *", "99 * * * *"] {
            let spec = PgSnapshotScheduleSpec { schedule: schedule.into(), suspend: Some(true), ..daily() };
            let said = decided(&spec, &PgSnapshotScheduleStatus::default(), MADE);
            assert!(matches!(said, Decision::Invalid(_)), "{said:?}");
        }
    }
}
