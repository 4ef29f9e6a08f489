//! Stopping a leader so that another can lead: everything is with whoever streams, and nobody slow is waited for.

use crate::member::{Member, Set, epoch, rule};
use pgconvoy_ha::{Server, WantKind};
use pgconvoy_terms::{Tag, TimelineId};
use std::time::{Duration, Instant};

/// The WAL receiver of this member, as the test's own kernel counts processes.
fn receiver(member: &Member) -> i32 {
    let parent = member.postmaster();
    let of = |pid: i32| -> Option<(i32, String)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((parent, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?))
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    all.into_iter()
        .find(|pid| of(*pid).is_some_and(|(p, line)| p == parent && line.contains("walreceiver")))
        .expect("a WAL receiver")
}

fn signal(pid: i32, signal: &str) {
    assert!(std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_streams_has_everything_and_who_is_slow_is_not_waited_for() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    let three = set.follower(3, &one, &epoch(1)).await;
    let counted = rule(&epoch(1), &one, &[&two, &three], 1);
    one.reach(WantKind::Lead { epoch: epoch(1), rule: counted, gate: true }).await;
    one.value("CREATE TABLE t AS SELECT generate_series(1, 10000) AS x").await;
    assert_eq!(one.local().unwrap().shutdown, None, "it runs");
    let slow = receiver(&three);
    signal(slow, "-STOP");
    one.driver.handle.prepare_to_step_down().await;
    let begun = Instant::now();
    let local = one.reach(WantKind::Stopped).await;
    // wal_sender_timeout is 5 s.
    assert!(begun.elapsed() < Duration::from_secs(4), "it waited for the slow one: {:?}", begun.elapsed());
    signal(slow, "-CONT");
    let last = local.shutdown.expect("the place of the shutdown checkpoint");
    assert_eq!((last.timeline, local.server), (TimelineId(1), Server::Down));
    let position = two.detached().await;
    assert!(position.timeline == last.timeline && position.end > last.end, "{position} {last}");
    // It leads, and the old leader follows without a rewind; at first it lets no clients in.
    let after = rule(&epoch(2), &two, &[&one], 1);
    two.want(WantKind::Lead { epoch: epoch(2), rule: after, gate: true });
    two.until("its promotion", |l| matches!(l.server, Server::Primary { .. })).await;
    let old = one.detached().await;
    assert!(old.end >= last.end);
    two.admitted(&epoch(2), &one, Some(old)).await;
    assert_eq!(one.local().unwrap().shutdown, None, "something ran since");
    let tag = Tag::new(&one.id(), &epoch(2));
    let follow =
        |gate| WantKind::Follow { leader: two.name.clone(), epoch: epoch(2), tag: tag.clone(), slot: tag.slot(), gate };
    one.reach(follow(false)).await;
    let refused = set.application(&one, "SELECT 1").unwrap_err();
    assert!(refused.contains("no pg_hba.conf entry"), "{refused}");
    one.reach(follow(true)).await;
    assert_eq!(set.application(&one, "SELECT count(*) FROM pg_class WHERE relname = 't'").unwrap().trim(), "0");
    one.wait_value("SELECT count(*) FROM t", "10000").await;
}
