//! What lies on the volume, and configurations that PostgreSQL does not take.

use crate::member::{Set, Streams, epoch, rule};
use pgconvoy_ha::{Data, Server, WantKind};
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_left_alone() {
    let Some(set) = Set::new() else { return };
    let mut one = set.member(1).await;
    one.until("a look", |l| l.data == Data::Empty).await;
    let pgdata = one.config.identity.paths.pgdata.clone();
    fs::create_dir(&pgdata).unwrap();
    fs::write(pgdata.join("PG_VERSION"), "15\n").unwrap();
    one.restart_driver(WantKind::Keep).await;
    let foreign = |l: &pgconvoy_ha::Local| matches!(&l.data, Data::Foreign(w) if w.contains("did not make"));
    one.until("a foreign volume", foreign).await;
    one.want(WantKind::Found { incarnation: one.incarnation.clone() });
    one.until("the refusal", |l| l.problem.as_ref().is_some_and(|p| p.contains("left alone"))).await;
    assert!(pgdata.join("PG_VERSION").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_made_database_is_made_again() {
    let Some(set) = Set::new() else { return };
    let mut one = set.member(1).await;
    let state = one.config.identity.paths.state.clone();
    one.until("a look", |l| l.data == Data::Empty).await;
    // Given up in the middle of initdb.
    one.want(WantKind::Found { incarnation: one.incarnation.clone() });
    one.until("the beginning", |l| l.data == Data::HalfMade).await;
    one.want(WantKind::Keep);
    assert!(state.join("making").exists());
    one.restart_driver(WantKind::Keep).await;
    one.until("a look", |l| l.data == Data::HalfMade).await;
    let incarnation = one.incarnation.clone();
    let local = one.reach(WantKind::Found { incarnation }).await;
    assert!(local.good() && local.server == Server::Down, "{local:?}");
    assert!(!state.join("making").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_pod_waits_for_the_volume() {
    let Some(set) = Set::new() else { return };
    let one = set.member(1).await;
    one.until("a look", |l| l.data == Data::Empty).await;
    let second = one.second_driver();
    let mut local = second.local.clone();
    let waits =
        local.wait_for(|l| l.as_ref().and_then(|l| l.problem.as_ref()).is_some_and(|p| p.contains("another pod")));
    waits.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_is_refused_and_the_last_good_one_stays() {
    let Some(set) = Set::new() else { return };
    // A new set says why at once, and makes nothing.
    let mut one = set
        .member_with(1, |s| {
            s.parameters.insert("wrok_mem".into(), "4MB".into());
        })
        .await;
    one.want(WantKind::Found { incarnation: one.incarnation.clone() });
    let refused = |l: &pgconvoy_ha::Local| l.problem.as_ref().is_some_and(|p| p.contains("wrok_mem"));
    let local = one.until("the refusal", refused).await;
    assert_eq!(local.data, Data::Empty);
    assert!(one.error().unwrap().contains("unrecognized configuration parameter \"wrok_mem\""));
    one.set(|s| drop(s.parameters.remove("wrok_mem")));
    one.until("the database", Streams::good).await;
    assert_eq!(one.error(), None);
    let alone = rule(&epoch(1), &one, &[], 0);
    one.reach(WantKind::Lead { epoch: epoch(1), rule: alone, gate: true }).await;

    // A running one goes on; each mistake is named.
    for (name, value, part) in [
        ("work_mem", "4XB", "work_mem"),
        ("fsync", "off", "fsync is set by pgconvoy"),
        ("shared_buffers", "900GB", "but the container may use"),
    ] {
        one.set(|s| drop(s.parameters.insert(name.into(), value.into())));
        one.wait_error(part).await;
        one.set(|s| {
            s.parameters.remove(name);
            s.parameters.insert("shared_buffers".into(), "16MB".into());
        });
        one.wait_no_error().await;
    }
    // By reload where that is enough, by restart where it is not.
    one.set(|s| {
        s.parameters.insert("work_mem".into(), "5MB".into());
        s.parameters.insert("max_connections".into(), "60".into());
    });
    one.wait_value("SHOW work_mem", "5MB").await;
    assert_eq!(one.value("SHOW max_connections").await, "50");
    assert_eq!(one.pending().await, ["max_connections"]);

    // hba lines: their form is looked at here, their meaning by PostgreSQL.
    for (line, part) in
        [("hosts all all all md5", "does not begin"), ("hostssl all all 1.2.3.4/99 md5", "refuses a line")]
    {
        one.set(|s| s.hba = vec![line.into()]);
        one.wait_error(part).await;
        assert_eq!(one.value("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL").await, "0");
    }
    one.set(|s| s.hba = vec!["hostssl all all 10.0.0.0/8 scram-sha-256".into()]);
    one.wait_no_error().await;
    one.wait_value("SELECT count(*) FROM pg_hba_file_rules WHERE address = '10.0.0.0'", "1").await;
    one.until("no problem", |l| l.problem.is_none() && matches!(&l.server, Server::Primary { gate: true, .. })).await;

    // A new agent that finds a bad configuration goes on with the last good one.
    let mut bad = one.current_settings();
    bad.parameters.insert("wrok_mem".into(), "1".into());
    let alone = rule(&epoch(1), &one, &[], 0);
    one.restart_driver_with(WantKind::Lead { epoch: epoch(1), rule: alone, gate: true }, bad).await;
    one.wait_error("wrok_mem").await;
    one.until("the lead", |l| matches!(&l.server, Server::Primary { barrier: true, gate: true, .. })).await;
    assert_eq!(one.value("SHOW work_mem").await, "5MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alter_system_does_not_reach_what_is_ours() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    if one.try_value("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"x\")'").await.is_err() {
        // 17 and later refuse it.
        return;
    }
    let two = set.follower(2, &one, &epoch(1)).await;
    let counted = rule(&epoch(1), &one, &[&two], 1);
    one.reach(WantKind::Lead { epoch: epoch(1), rule: counted, gate: true }).await;
    assert!(one.value("SHOW synchronous_standby_names").await.contains("m2."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_password_follows_its_secret() {
    let Some(set) = Set::new() else { return };
    let one = set.founded().await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'shop'";
    let before = one.value(sql).await;
    fs::write(one.path("app/password"), "anderes").unwrap();
    let begun = std::time::Instant::now();
    while one.value(sql).await == before {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
