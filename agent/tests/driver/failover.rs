//! A leader dies, another one takes over: positions, timelines, fences.

use crate::member::{Member, Set, Streams, epoch, rule, say};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgconvoy_ha::{Answer, Instant as At, Permission, Server, WantKind};
use pgconvoy_terms::{Lsn, Position, TimelineId};
use std::{
    fs,
    time::{Duration, Instant},
};

async fn lead(member: &mut Member, number: u32, followers: &[&Member], w: u32) {
    let rule = rule(&epoch(number), member, followers, w);
    member.reach(WantKind::Lead { epoch: epoch(number), rule, gate: true }).await;
}

async fn lsn(member: &Member, sql: &str) -> Lsn {
    member.value(sql).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_is_reported_at_once_and_not_started_again() {
    let Some(set) = Set::new() else { return };
    let one = set.founded().await;
    let begun = Instant::now();
    kill(Pid::from_raw(one.postmaster()), Signal::SIGKILL).unwrap();
    one.until("the death", |l| l.server == Server::Down).await;
    let took = begun.elapsed();
    say(&format!("driver: a killed postmaster was reported after {took:?}"));
    // A few milliseconds; a busy machine may need more, but not as much as a look by the clock would.
    assert!(took < Duration::from_secs(3), "{took:?}");
    // Epoch 1 began and cannot begin again; the data stays.
    one.until("the reason", |l| l.problem.as_ref().is_some_and(|p| p.contains("a later epoch must be opened"))).await;
    assert_eq!(one.local().unwrap().server, Server::Down);
    assert!(one.local().unwrap().good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_leads_epoch_3_and_the_old_leader_is_refused() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    lead(&mut one, 1, &[&two], 1).await;
    one.value("CREATE TABLE t AS SELECT 1 AS x").await;
    let acknowledged = lsn(&one, "SELECT pg_current_wal_flush_lsn()").await;

    // It pledges: receives nothing, holds what was acknowledged.
    let position = two.detached().await;
    assert!(position.end >= acknowledged && position.timeline == TimelineId(1), "{position} {acknowledged}");
    assert_eq!(two.value("SHOW primary_conninfo").await, "");
    assert_eq!(two.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'").await, "0");
    // The old leader goes on writing what nobody will have.
    one.value("SET synchronous_commit = local; INSERT INTO t VALUES (2)").await;
    // The position of a restarted one is the same.
    two.reach(WantKind::Fenced).await;
    assert_eq!(two.local().unwrap().server, Server::Down);
    assert_eq!(two.detached().await, position);

    lead(&mut two, 3, &[], 0).await;
    let local = two.local().unwrap();
    let Server::Primary { timeline: TimelineId(3), fork: Some(fork), .. } = local.server else { panic!("{local:?}") };
    assert_eq!(fork, (TimelineId(1), position.end));
    let pg_wal = two.config.identity.paths.pgdata.join("pg_wal");
    assert!(fs::read_to_string(pg_wal.join("00000002.history")).unwrap().starts_with("# pgconvoy"));
    assert_eq!(two.value("SELECT string_agg(number::text, ',' ORDER BY number) FROM pgconvoy.epoch").await, "1,3");
    assert_eq!(two.value("SELECT count(*) FROM t").await, "1");

    // The old leader: killed, a standby of its own log, which left that of the new leader.
    let stale = one.detached().await;
    assert!(stale.end > position.end, "{stale} {position}");
    let answer = two.driver.handle.admit(epoch(3), one.id(), Some(stale), two.name.clone()).await;
    assert_eq!(answer, Answer::Diverged { timeline: TimelineId(1), fork: position.end });
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(two.value(slots).await, "0");
    // Another epoch than the one that is led; a log of a timeline that nobody knows.
    let answer = two.driver.handle.admit(epoch(4), one.id(), Some(position), two.name.clone()).await;
    assert_eq!(answer, Answer::NotYet);
    let unknown = Position { timeline: TimelineId(2), end: position.end };
    let answer = two.driver.handle.admit(epoch(3), one.id(), Some(unknown), two.name.clone()).await;
    assert!(matches!(answer, Answer::Diverged { .. }), "{answer:?}");

    // It throws its data away and follows.
    let slot = two.admitted(&epoch(3), &one, None).await;
    one.incarnation = pgconvoy_terms::Incarnation::from_random(99);
    let slot = {
        drop(slot);
        two.admitted(&epoch(3), &one, None).await
    };
    assert_eq!(two.value(slots).await, "1", "the slot of the data that is gone is dropped");
    let (incarnation, from) = (one.incarnation.clone(), two.name.clone());
    one.reach(WantKind::Clone { incarnation, from, slot, replace: true }).await;
    let position = one.detached().await;
    assert_eq!(position.timeline, TimelineId(3));
    two.admitted(&epoch(3), &one, Some(position)).await;
    one.follow(&two, &epoch(3)).await;
    lead(&mut two, 3, &[&one], 1).await;
    two.value("INSERT INTO t VALUES (3)").await;
    one.wait_value("SELECT string_agg(x::text, ',' ORDER BY x) FROM t", "1,3").await;
    // And back, as planned: stopped first, the leader has sent everything. Over two timelines that nobody wrote.
    two.reach(WantKind::Stopped).await;
    assert_eq!(two.local().unwrap().server, Server::Down);
    let position = one.detached().await;
    lead(&mut one, 6, &[], 0).await;
    let other = two.detached().await;
    assert_eq!(other, position);
    one.admitted(&epoch(6), &two, Some(other)).await;
    two.follow(&one, &epoch(6)).await;
    assert_eq!(two.value("SELECT count(*) FROM t").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_before_the_barrier_and_a_fence_does_not_wait() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    let three = set.follower(3, &one, &epoch(1)).await;
    one.reach(WantKind::Fenced).await;
    two.detached().await;
    // Nobody follows yet: the rule cannot be in force.
    let counted = rule(&epoch(2), &two, &[&one, &three], 1);
    let revision = two.want(WantKind::Lead { epoch: epoch(2), rule: counted.clone(), gate: true });
    let waiting = |l: &pgconvoy_ha::Local| {
        matches!(&l.server, Server::Primary { in_force: None, barrier: false, gate: false, .. }) && l.problem.is_some()
    };
    let local = two.until("waiting for followers", waiting).await;
    assert!(local.problem.as_ref().unwrap().contains("must have flushed"), "{local:?}");
    assert_eq!(two.value("SHOW synchronous_standby_names").await.matches("e2").count(), 2);
    let hba = fs::read_to_string(two.config.identity.paths.pgdata.join("pg_hba.conf")).unwrap();
    assert!(!hba.contains("scram"), "{hba}");
    assert!(two.local().unwrap().applied < revision);
    // A commit in a session of its own hangs, and the fence does not.
    let begun = Instant::now();
    two.reach(WantKind::Fenced).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(two.local().unwrap().server, Server::Down);
    // The epoch's timeline was taken: it cannot be led again.
    two.want(WantKind::Lead { epoch: epoch(2), rule: counted, gate: true });
    two.until("the refusal", |l| l.problem.as_ref().is_some_and(|p| p.contains("a later epoch must be opened"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_adopts_what_runs() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    lead(&mut one, 1, &[&two], 1).await;
    let started = "SELECT pg_postmaster_start_time()";
    let sender = "SELECT string_agg(pid::text || backend_start, ',') FROM pg_stat_replication";
    let (server, before) = (one.value(started).await, one.value(sender).await);
    let counted = rule(&epoch(1), &one, &[&two], 1);
    one.restart_driver(WantKind::Keep).await;
    // The server itself says that clients are let in, so they are not shut out while the new agent finds its way.
    let seen = |l: &pgconvoy_ha::Local| matches!(&l.server, Server::Primary { epoch: e, in_force: None, barrier: true, gate: true, .. } if *e == epoch(1));
    one.until("what runs", seen).await;
    one.reach(WantKind::Lead { epoch: epoch(1), rule: counted.clone(), gate: true }).await;
    let local = one.local().unwrap();
    let Server::Primary { in_force: Some(in_force), barrier: true, gate: true, .. } = &local.server else {
        panic!("{local:?}")
    };
    assert_eq!(in_force.followers, [two.id()].into());
    assert_eq!((one.value(started).await, one.value(sender).await), (server, before), "nothing was disturbed");
    // A follower likewise.
    let server = two.value(started).await;
    let receiver = two.value("SELECT pid FROM pg_stat_wal_receiver").await;
    two.restart_driver(WantKind::Keep).await;
    two.follow(&one, &epoch(1)).await;
    assert_eq!(two.value(started).await, server);
    assert_eq!(two.value("SELECT pid FROM pg_stat_wal_receiver").await, receiver);
    // Files that lack a line with which it was started would ask for a restart, and the operator would see to it.
    let pending = "SELECT coalesce(string_agg(name, ', '), 'nothing') FROM pg_settings WHERE pending_restart";
    for member in [&one, &two] {
        assert_eq!(member.value(pending).await, "nothing", "{}", member.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_permission_is_renewed_while_the_agent_lives_and_ends_without_it() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let kind = one.driver.want.borrow().0.clone();
    let now = || pgconvoy_supervisor::clock::Boottime::now().0;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        // As the core does: every step moves it.
        one.driver.want.send_replace((kind.clone(), Permission::Until(At(now() + 1500))));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(one.local().unwrap().server, Server::Primary { .. }));
    one.until("the end of the permission", |l| l.server == Server::Down).await;
    // A leader whose epoch is not wanted any more does not get a follower's permission: see the fence.
    one.detached().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_somebody_else_promotes_is_killed() {
    let Some(set) = Set::new() else { return };
    let one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    let started = two.value("SELECT pg_postmaster_start_time()").await;
    two.value("SELECT pg_promote(false)").await;
    // It comes back as a standby, on a timeline of its own; that is no part of the leader's log.
    let other = format!("SELECT pg_is_in_recovery() AND pg_postmaster_start_time() <> '{started}'");
    two.wait_value(&other, "t").await;
    let position = two.detached().await;
    assert_eq!(position.timeline, TimelineId(2));
    let answer = one.driver.handle.admit(epoch(1), two.id(), Some(position), one.name.clone()).await;
    assert!(matches!(answer, Answer::Diverged { .. }), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_is_gone_needs_a_copy() {
    let Some(set) = Set::new() else { return };
    let one = set.founded().await;
    let two = set.member(2).await;
    let end = lsn(&one, "SELECT pg_current_wal_flush_lsn()").await;
    let position = Position { timeline: TimelineId(1), end };
    one.admitted(&epoch(1), &two, Some(position)).await;
    one.value("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
    one.set(|s| {
        s.parameters.insert("wal_keep_size".into(), "0".into());
        s.parameters.insert("min_wal_size".into(), "32MB".into());
    });
    one.wait_value("SHOW wal_keep_size", "0").await;
    let there = format!(
        "SELECT count(*) FROM pg_ls_waldir() WHERE name = '{}'",
        one.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await
    );
    let begun = Instant::now();
    while one.value(&there).await != "0" {
        assert!(begun.elapsed() < Duration::from_secs(60));
        for sql in [
            "CREATE TABLE IF NOT EXISTS junk (x int)",
            "INSERT INTO junk VALUES (1)",
            "SELECT pg_switch_wal()",
            "CHECKPOINT",
        ] {
            one.value(sql).await;
        }
    }
    let answer = one.driver.handle.admit(epoch(1), two.id(), Some(position), one.name.clone()).await;
    assert_eq!(answer, Answer::Diverged { timeline: TimelineId(1), fork: Lsn(0) });
    assert_eq!(one.value("SELECT count(*) FROM pg_replication_slots").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_leader_is_rewound_and_follows() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    lead(&mut one, 1, &[&two], 1).await;
    one.value("CREATE TABLE t AS SELECT 1 AS x").await;
    two.detached().await;
    one.value("SET synchronous_commit = local; INSERT INTO t VALUES (2)").await;
    lead(&mut two, 4, &[], 0).await;
    two.value("INSERT INTO t VALUES (3)").await;
    let id = one.id();
    let local = one.reach(WantKind::Rewind { leader: two.name.clone() }).await;
    assert_eq!(local.server, Server::Down);
    let pgconvoy_ha::Data::Good { incarnation, .. } = local.data else { panic!("{local:?}") };
    assert_eq!(incarnation, id.incarnation, "the data keeps its name");
    let position = one.detached().await;
    two.admitted(&epoch(4), &one, Some(position)).await;
    one.follow(&two, &epoch(4)).await;
    one.wait_value("SELECT string_agg(x::text, ',' ORDER BY x) FROM t", "1,3").await;
    lead(&mut two, 4, &[&one], 1).await;
}

/// Promoted, and gone before its first checkpoint: to the pg_rewind of PostgreSQL 15 its data is of the timeline before, which ends
/// where it looks for a record. That is known at once, and not tried again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_rewound_is_told() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    let mut three = set.follower(3, &one, &epoch(1)).await;
    lead(&mut one, 1, &[&two, &three], 1).await;
    one.value("CREATE TABLE t AS SELECT 1 AS x").await;
    one.reach(WantKind::Fenced).await;
    assert_eq!(two.detached().await, three.detached().await);
    lead(&mut two, 4, &[], 0).await;
    two.value("INSERT INTO t VALUES (2)").await;
    two.reach(WantKind::Fenced).await;
    let timeline = two.control("Latest checkpoint's TimeLineID");
    assert_eq!(timeline, "1", "it made a checkpoint before it was killed, so nothing is shown");
    lead(&mut three, 5, &[], 0).await;
    let goes_by_it = three.value("SELECT current_setting('server_version_num')::int < 160000").await == "t";
    let revision = two.want(WantKind::Rewind { leader: three.name.clone() });
    let local = two.until("an end of the rewind", |l| l.applied == revision || l.in_vain == Some(revision)).await;
    assert_eq!(local.in_vain == Some(revision), goes_by_it, "{local:?}");
}
