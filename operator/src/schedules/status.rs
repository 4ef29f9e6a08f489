//! How a schedule stands. Pure.

use super::decide::{Ground, Run};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use pgconvoy_crds::conditions::READY;
use pgconvoy_crds::{PgSnapshot, PgSnapshotScheduleStatus, SnapshotPhase};

/// Reasons of the condition `Ready` of a PgSnapshotSchedule.
pub mod reasons {
    /// Snapshots are made when they are due.
    pub const SCHEDULED: &str = "Scheduled";
    /// One of them is being taken.
    pub const RUNNING: &str = "Running";
    /// A run that is due waits for another snapshot of the set.
    pub const DELAYED: &str = "Delayed";
    /// The user wants none now.
    pub const SUSPENDED: &str = "Suspended";
    /// The expression or the zone is none.
    pub const SCHEDULE_INVALID: &str = "ScheduleInvalid";
    /// There is no such set.
    pub const NO_SET: &str = "NoSet";
    /// The set has no archive.
    pub const NO_ARCHIVE: &str = "NoArchive";
    /// The last snapshot failed.
    pub const LAST_FAILED: &str = "LastSnapshotFailed";
}

/// What came of a look at a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Expression or zone is none.
    Invalid(String),
    /// Suspended.
    Suspended,
    /// There is nobody to take snapshots of.
    Nobody {
        /// The reason.
        reason: &'static str,
        /// The sentence.
        message: String,
    },
    /// Nothing is due.
    Waiting {
        /// Before this time.
        next: Option<Timestamp>,
    },
    /// A run waits for another snapshot.
    Delayed {
        /// The run.
        run: Run,
        /// The snapshot.
        by: String,
    },
    /// A snapshot was made.
    Made {
        /// For this run.
        run: Run,
        /// Its name.
        name: String,
    },
}

/// What is known of a schedule besides its spec.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) before: &'a PgSnapshotScheduleStatus,
    pub(super) generation: i64,
    pub(super) ground: &'a Ground,
    /// Its own snapshots, the oldest first.
    pub(super) own: &'a [&'a PgSnapshot],
}

/// How far a snapshot is.
pub(super) fn phase(snapshot: &PgSnapshot) -> Option<SnapshotPhase> {
    snapshot.status.as_ref().and_then(|s| s.phase)
}

/// Whether something will still come of it.
pub(super) fn is_open(snapshot: &PgSnapshot) -> bool {
    matches!(phase(snapshot), None | Some(SnapshotPhase::Running))
}

/// The status to write.
pub(super) fn status(known: &Known<'_>, outcome: &Outcome, now: Timestamp) -> PgSnapshotScheduleStatus {
    let Known { before, generation, ground, own } = known;
    let mut after = PgSnapshotScheduleStatus { observed_generation: Some(*generation), ..(*before).clone() };
    let time = |t: Timestamp| Some(t.to_string());
    if ground.anew && !matches!(outcome, Outcome::Invalid(_)) {
        // Resumed, it counts from then on; until then this would change with every look.
        if *outcome != Outcome::Suspended || after.counts_from.is_none() {
            after.counts_from = time(ground.after);
        }
    }
    match outcome {
        Outcome::Invalid(_) => after.next_schedule_time = None,
        Outcome::Suspended => (after.next_schedule_time, after.in_force) = (None, None),
        Outcome::Nobody { .. } => after.in_force = Some(ground.in_force.clone()),
        Outcome::Waiting { next } => {
            (after.next_schedule_time, after.in_force) = (next.and_then(time), Some(ground.in_force.clone()));
        }
        Outcome::Delayed { run, .. } => {
            (after.next_schedule_time, after.in_force) = (time(run.due), Some(ground.in_force.clone()));
        }
        Outcome::Made { run, name } => {
            after.last_schedule_time = time(run.due);
            after.last_snapshot = Some(name.clone());
            after.missed_runs = (run.missed > 0).then(|| i64::try_from(run.missed).unwrap_or(i64::MAX));
            after.next_schedule_time = run.next.and_then(time);
            after.in_force = Some(ground.in_force.clone());
        }
    }
    let completed = own.iter().filter_map(|s| s.status.as_ref()).filter(|s| s.phase == Some(SnapshotPhase::Completed));
    after.last_completed_time = completed.filter_map(|s| s.completed_at.clone()).max().max(after.last_completed_time);
    after.conditions = vec![condition(known, &after, outcome, now)];
    after
}

fn condition(known: &Known<'_>, after: &PgSnapshotScheduleStatus, outcome: &Outcome, now: Timestamp) -> Condition {
    let (holds, reason, message) = verdict(known.own, after, outcome);
    let status = if holds { "True" } else { "False" };
    let same = |c: &&Condition| c.type_ == READY && c.status == status;
    let since = known.before.conditions.iter().find(same).map(|c| c.last_transition_time.clone());
    Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(known.generation),
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

fn verdict(own: &[&PgSnapshot], after: &PgSnapshotScheduleStatus, outcome: &Outcome) -> (bool, &'static str, String) {
    match outcome {
        Outcome::Invalid(why) => return (false, reasons::SCHEDULE_INVALID, format!("{why}; no snapshots are made")),
        Outcome::Suspended => {
            let message = "spec.suspend is true: no snapshots are made, and none is made up for later".to_owned();
            return (false, reasons::SUSPENDED, message);
        }
        Outcome::Nobody { reason, message } => return (false, reason, message.clone()),
        Outcome::Delayed { run, by } => {
            let missed = if run.missed == 0 {
                String::new()
            } else {
                format!("; {} due before it fall to the same snapshot", runs(run.missed as i64, "was", "were"))
            };
            let message = format!(
                "the run of {} waits for PgSnapshot {by}, which has not ended: never two are taken at once{missed}",
                run.due
            );
            // Late is no trouble; so late that the next is due is.
            return (run.missed == 0, reasons::DELAYED, message);
        }
        Outcome::Waiting { .. } | Outcome::Made { .. } => {}
    }
    let made_now = matches!(outcome, Outcome::Made { .. });
    let missed = after.missed_runs.filter(|n| *n > 0).map_or_else(String::new, |n| {
        format!("; {} missed before it, this one is for all of them", runs(n, "was", "were"))
    });
    let last = own.last().filter(|_| !made_now);
    let name = |s: &PgSnapshot| s.metadata.name.clone().unwrap_or_default();
    match last {
        None if made_now => {
            let message = format!("PgSnapshot {} was made{missed}", after.last_snapshot.as_deref().unwrap_or_default());
            (true, reasons::RUNNING, message)
        }
        Some(last) if is_open(last) => {
            (true, reasons::RUNNING, format!("PgSnapshot {} has not ended yet{missed}", name(last)))
        }
        Some(last) if phase(last) == Some(SnapshotPhase::Failed) => {
            let why = last.status.as_ref().and_then(|s| s.message.as_deref()).unwrap_or("it does not say why");
            (false, reasons::LAST_FAILED, format!("PgSnapshot {} failed: {why}", name(last)))
        }
        Some(last) => (true, reasons::SCHEDULED, format!("PgSnapshot {} is complete{missed}", name(last))),
        None => (true, reasons::SCHEDULED, "no snapshot was due yet".to_owned()),
    }
}

fn runs(number: i64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 run {one}") } else { format!("{number} runs {many}") }
}

/// Those of a schedule's own snapshots, the oldest first, that its history has no room for.
pub(super) fn surplus<'a>(own: &[&'a PgSnapshot], (completed, failed): (usize, usize)) -> Vec<&'a PgSnapshot> {
    use SnapshotPhase::{Completed, Expired, Failed};
    let of = |wanted: [SnapshotPhase; 2]| {
        own.iter().copied().filter(move |s| phase(s).is_some_and(|phase| wanted.contains(&phase)))
    };
    let beyond = |wanted, limit: usize| {
        let number = of(wanted).count().saturating_sub(limit);
        of(wanted).take(number)
    };
    beyond([Completed, Expired], completed.max(1)).chain(beyond([Failed, Failed], failed)).collect()
}
