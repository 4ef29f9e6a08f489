//! What is said of a schedule, and what is kept of its history.

use super::decide::{Ground, Run};
use super::status::{Known, Outcome, reasons, status, surplus};
use super::{own, snapshot, snapshot_name, told};
use jiff::Timestamp;
use pgconvoy_crds::{PgSnapshot, PgSnapshotSchedule, PgSnapshotScheduleStatus, PgSnapshotStatus, SnapshotPhase};
use serde_json::json;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule() -> PgSnapshotSchedule {
    serde_json::from_value(json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshotSchedule",
        "metadata": {"name": "nightly", "namespace": "shop", "uid": "u-1"},
        "spec": {"set": "orders", "schedule": "0 2 * * *"},
    }))
    .unwrap()
}

fn taken(day: u8, phase: Option<SnapshotPhase>) -> PgSnapshot {
    let mut s = snapshot(&schedule(), &snapshot_name("nightly", at(&format!("2026-06-{day:02}T02:00:00Z"))));
    s.status = Some(PgSnapshotStatus {
        phase,
        completed_at: (phase == Some(SnapshotPhase::Completed)).then(|| format!("2026-06-{day:02}T02:05:00Z")),
        message: (phase == Some(SnapshotPhase::Failed)).then(|| "no bucket".to_owned()),
        ..PgSnapshotStatus::default()
    });
    s
}

fn look(own: &[&PgSnapshot], before: &PgSnapshotScheduleStatus, outcome: &Outcome) -> PgSnapshotScheduleStatus {
    let ground = Ground { after: at("2026-06-01T12:00:00Z"), in_force: "0 2 * * * Etc/UTC".into(), anew: true };
    let known = Known { before, generation: 1, ground: &ground, own };
    status(&known, outcome, at("2026-06-02T02:00:01Z"))
}

fn run(missed: usize) -> Run {
    Run { due: at("2026-06-02T02:00:00Z"), missed, next: Some(at("2026-06-03T02:00:00Z")) }
}

#[test]
fn names_are_the_same_for_whoever_makes_them_and_sort_by_time() {
    let s = snapshot(&schedule(), &snapshot_name("nightly", at("2026-06-02T02:00:00Z")));
    assert_eq!(s.metadata.name.as_deref(), Some("nightly-20260602t0200"));
    let (late, early) = (taken(12, None), taken(3, None));
    let foreign = PgSnapshot {
        metadata: kube::api::ObjectMeta { owner_references: None, ..late.metadata.clone() },
        ..late.clone()
    };
    let mine: Vec<_> =
        own(&schedule(), [&late, &early, &foreign].into_iter()).iter().map(|s| s.metadata.name.clone()).collect();
    assert_eq!(mine, [early.metadata.name, late.metadata.name]);
}

#[test]
fn a_run_is_recorded_and_missed_ones_are_told() {
    let before = PgSnapshotScheduleStatus::default();
    let outcome = Outcome::Made { run: run(3), name: "nightly-20260602t0200".into() };
    let after = look(&[], &before, &outcome);
    assert_eq!(after.last_schedule_time.as_deref(), Some("2026-06-02T02:00:00Z"));
    assert_eq!(after.next_schedule_time.as_deref(), Some("2026-06-03T02:00:00Z"));
    assert_eq!(after.missed_runs, Some(3));
    assert_eq!(after.conditions[0].reason, reasons::RUNNING);
    assert!(after.conditions[0].message.contains("3 runs were missed"), "{}", after.conditions[0].message);
    let events: Vec<_> = told(&before, &after, &outcome).into_iter().map(|e| e.reason).collect();
    assert_eq!(events, ["SnapshotMade", "RunsMissed"]);
    // The same look again changes nothing but what has become of it.
    let last = taken(2, Some(SnapshotPhase::Completed));
    let later = look(&[&last], &after, &Outcome::Waiting { next: run(0).next });
    assert_eq!((later.conditions[0].reason.as_str(), later.missed_runs), (reasons::SCHEDULED, Some(3)));
    assert_eq!(later.last_completed_time.as_deref(), Some("2026-06-02T02:05:00Z"));
    assert_eq!(look(&[&last], &later, &Outcome::Waiting { next: run(0).next }), later);
    // The object goes; when it was complete stays known.
    assert_eq!(
        look(&[], &later, &Outcome::Waiting { next: run(0).next }).last_completed_time,
        later.last_completed_time
    );
}

#[test]
fn what_is_in_the_way_is_a_condition_with_a_sentence() {
    let before = PgSnapshotScheduleStatus::default();
    let failed = taken(2, Some(SnapshotPhase::Failed));
    let waiting = Outcome::Waiting { next: run(0).next };
    for (own, outcome, status, reason, said) in [
        (
            vec![],
            Outcome::Invalid("no cron".into()),
            "False",
            reasons::SCHEDULE_INVALID,
            "no cron; no snapshots are made",
        ),
        (vec![], Outcome::Suspended, "False", reasons::SUSPENDED, "spec.suspend is true"),
        (
            vec![],
            Outcome::Delayed { run: run(0), by: "big".into() },
            "True",
            reasons::DELAYED,
            "waits for PgSnapshot big",
        ),
        (
            vec![],
            Outcome::Delayed { run: run(1), by: "big".into() },
            "False",
            reasons::DELAYED,
            "1 run was due before it",
        ),
        (vec![&failed], waiting.clone(), "False", reasons::LAST_FAILED, "failed: no bucket"),
        (vec![], waiting.clone(), "True", reasons::SCHEDULED, "no snapshot was due yet"),
    ] {
        let after = look(&own, &before, &outcome);
        let c = &after.conditions[0];
        assert_eq!((c.status.as_str(), c.reason.as_str()), (status, reason), "{c:?}");
        assert!(c.message.contains(said), "{}", c.message);
        // Nothing in it changes by itself.
        assert_eq!(look(&own, &after, &outcome), after);
    }
}

#[test]
fn a_suspended_schedule_counts_from_when_it_is_resumed() {
    let seen = look(&[], &PgSnapshotScheduleStatus::default(), &Outcome::Waiting { next: run(0).next });
    assert_eq!(seen.in_force.as_deref(), Some("0 2 * * * Etc/UTC"));
    let suspended = look(&[], &seen, &Outcome::Suspended);
    assert_eq!((suspended.in_force, suspended.counts_from), (None, seen.counts_from));
    assert_eq!(suspended.next_schedule_time, None);
}

#[test]
fn history_keeps_the_newest() {
    let all: Vec<PgSnapshot> = vec![
        taken(1, Some(SnapshotPhase::Completed)),
        taken(2, Some(SnapshotPhase::Failed)),
        taken(3, Some(SnapshotPhase::Completed)),
        taken(4, Some(SnapshotPhase::Failed)),
        taken(5, Some(SnapshotPhase::Completed)),
        taken(6, Some(SnapshotPhase::Running)),
        taken(7, None),
    ];
    let all: Vec<&PgSnapshot> = all.iter().collect();
    let gone = |limits| -> Vec<String> {
        surplus(&all, limits).iter().map(|s| s.metadata.name.clone().unwrap()[14..16].to_owned()).collect()
    };
    assert_eq!(gone((2, 1)), ["01", "02"]);
    assert_eq!(gone((9, 9)), [""; 0]);
    assert_eq!(gone((1, 0)), ["01", "03", "02", "04"]);
}

/// As they lie in the API server. `e2e/book/tests` shows them to Argo CD's and Flux's rules.
#[test]
fn the_objects_that_others_judge_are_these() {
    let before = PgSnapshotScheduleStatus::default();
    let (failed, complete) = (taken(1, Some(SnapshotPhase::Failed)), taken(1, Some(SnapshotPhase::Completed)));
    let waiting = Outcome::Waiting { next: Some(at("2026-06-03T02:00:00Z")) };
    let nobody = Outcome::Nobody { reason: reasons::NO_SET, message: "there is no PgReplicaSet orders".to_owned() };
    let cases: Vec<(&str, Vec<&PgSnapshot>, Outcome)> = vec![
        ("nothing was due yet", vec![], waiting.clone()),
        ("the last one is complete", vec![&complete], waiting.clone()),
        ("the last one failed", vec![&failed], waiting),
        ("there is no such set", vec![], nobody),
        ("suspended", vec![], Outcome::Suspended),
        ("the expression is none", vec![], Outcome::Invalid("there is no 32nd".to_owned())),
    ];
    let mut seen = vec![];
    for (case, own, outcome) in cases {
        let mut object = schedule();
        object.metadata.generation = Some(1);
        object.status = Some(look(&own, &before, &outcome));
        seen.push(json!({ "case": case, "object": object }));
    }
    insta::assert_yaml_snapshot!("objects", seen);
}
