//! The shortest path: found, lead, clone, follow, count on the follower.

use crate::member::{Set, Streams, epoch, rule, say};
use pgconvoy_ha::{RuleInForce, Server, WantKind};
use pgconvoy_terms::TimelineId;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_is_founded_and_a_follower_joins() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let local = one.local().unwrap();
    assert!(local.good() && local.problem.is_none(), "{local:?}");
    let Server::Primary { timeline, fork: None, barrier: true, gate: true, in_force: Some(in_force), .. } =
        local.server
    else {
        panic!("{local:?}")
    };
    assert_eq!(timeline, TimelineId(1));
    assert_eq!(in_force, RuleInForce { followers: [].into(), acknowledgements: 0 });
    // The epoch's row, the roles, the application's database.
    assert_eq!(one.value("SELECT string_agg(number || leader, ',') FROM pgconvoy.epoch").await, "1t-1");
    assert_eq!(one.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'orders'").await, "shop");
    let password = "SELECT rolpassword FROM pg_authid WHERE rolname = 'shop'";
    assert!(one.value(password).await.starts_with("SCRAM-SHA-256$4096:"));
    assert_eq!(one.value("SELECT rolreplication FROM pg_roles WHERE rolname = 'pgconvoy_replication'").await, "t");

    let two = set.follower(2, &one, &epoch(1)).await;
    assert_eq!(two.value("SELECT pg_is_in_recovery()").await, "t");
    assert_eq!(two.value("SHOW synchronous_standby_names").await, "ANY 1 (\"nobody\")");
    // W 0 -> 1.
    let counted = rule(&epoch(1), &one, &[&two], 1);
    let local = one.reach(WantKind::Lead { epoch: epoch(1), rule: counted, gate: true }).await;
    let Server::Primary { in_force: Some(in_force), barrier: true, gate: true, .. } = local.server else {
        panic!("{local:?}")
    };
    assert_eq!(in_force, RuleInForce { followers: [two.id()].into(), acknowledgements: 1 });
    assert!(one.value("SHOW synchronous_standby_names").await.starts_with("ANY 1 (\"m2."));
    // Whoever chooses to wait for nobody is told of, by name, for as long as that is so.
    one.value("ALTER ROLE shop SET synchronous_commit = local").await;
    one.value("ALTER ROLE shop IN DATABASE orders SET synchronous_commit = off").await;
    let told = "role shop (local), role shop in database orders (off): what they commit is acknowledged before";
    one.until("a remark", |l| l.problem.as_ref().is_some_and(|p| p.contains(told))).await;
    one.value("ALTER ROLE shop RESET ALL").await;
    one.value("ALTER ROLE shop IN DATABASE orders RESET ALL").await;
    one.until("no remark", |l| l.problem.is_none()).await;
    one.value("CREATE TABLE t AS SELECT 7 AS x").await;
    two.wait_value("SELECT x FROM t", "7").await;
    one.until("the stream", |l| l.streams().iter().any(|s| s.member == two.id() && s.caught_up)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_join_and_leave_the_rule_while_clients_write() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let two = set.follower(2, &one, &epoch(1)).await;
    let three = set.follower(3, &one, &epoch(1)).await;
    let first = rule(&epoch(1), &one, &[&two], 1);
    one.reach(WantKind::Lead { epoch: epoch(1), rule: first, gate: true }).await;
    one.value("CREATE TABLE w (at timestamptz DEFAULT clock_timestamp())").await;
    let senders =
        "SELECT string_agg(application_name || pid || backend_start, ' ' ORDER BY 1) FROM pg_stat_replication";
    let writing = std::sync::atomic::AtomicBool::new(true);
    let slowest = async {
        let mut slowest = Duration::ZERO;
        while writing.load(std::sync::atomic::Ordering::Relaxed) {
            let begun = Instant::now();
            one_write(&one).await;
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let changes = async {
        for followers in [vec![&two, &three], vec![&three]] {
            let before = one.value(senders).await;
            let next = rule(&epoch(1), &one, &followers, 1);
            let letter = RuleInForce { followers: next.followers.clone(), acknowledgements: 1 };
            let revision = one.want(WantKind::Lead { epoch: epoch(1), rule: next, gate: true });
            let local = one.until("the next rule", |l| l.applied == revision).await;
            let Server::Primary { in_force: Some(in_force), gate: true, .. } = local.server else {
                panic!("{local:?}")
            };
            assert_eq!(in_force, letter);
            let after = one.value(senders).await;
            for old in before.split(' ').filter(|s| s.starts_with('m')) {
                assert!(!after.contains(old), "{old} is still there: {after}");
            }
        }
        writing.store(false, std::sync::atomic::Ordering::Relaxed);
    };
    let (slowest, ()) = tokio::join!(slowest, changes);
    say(&format!("driver: slowest commit while the rule changed twice: {slowest:?}"));
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // It is a member no more: its slot goes once it does not stream.
    let mut two = two;
    one.set(|s| s.roster = vec![one.name.clone(), three.name.clone()]);
    two.reach(WantKind::Stopped).await;
    one.wait_value("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'm2%'", "0").await;
    assert_eq!(one.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'm3%'").await, "1");
}

async fn one_write(member: &crate::member::Member) {
    member.value("INSERT INTO w DEFAULT VALUES").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_in_by_the_gate_only() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    assert_eq!(
        set.application(&one, "CREATE TABLE a (x int); SELECT 1").as_deref(),
        Ok("1"),
        "TLS, password, ownership"
    );
    let alone = rule(&epoch(1), &one, &[], 0);
    one.reach(WantKind::Lead { epoch: epoch(1), rule: alone.clone(), gate: false }).await;
    assert!(set.application(&one, "SELECT 1").unwrap_err().contains("no pg_hba.conf entry"));
    one.reach(WantKind::Lead { epoch: epoch(1), rule: alone, gate: true }).await;
    assert_eq!(set.application(&one, "SELECT 1").as_deref(), Ok("1"));
    // The replication role has no other way in than its certificate.
    let mut two = set.follower(2, &one, &epoch(1)).await;
    assert_eq!(set.application(&two, "SELECT count(*) FROM a").as_deref(), Ok("0"), "followers serve reads");
    // A session that is there is ended by a promotion.
    let session = {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&two.config.identity.paths.run).port(two.config.identity.postgres_port);
        config.user("postgres").dbname("orders").application_name("somebody").connect(tokio_postgres::NoTls).await
    };
    let (client, connection) = session.unwrap();
    let connection = tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
    one.reach(WantKind::Fenced).await;
    two.detached().await;
    let alone = rule(&epoch(2), &two, &[], 0);
    let begun = Instant::now();
    two.want(WantKind::Lead { epoch: epoch(2), rule: alone, gate: true });
    two.until("an open gate", |l| matches!(&l.server, Server::Primary { gate: true, .. })).await;
    say(&format!("driver: from wanting to lead until clients are let in: {:?}", begun.elapsed()));
    assert!(client.simple_query("SELECT 1").await.is_err());
    drop(connection.await);
    assert_eq!(set.application(&two, "INSERT INTO a VALUES (1) RETURNING x").as_deref(), Ok("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_container_restarts_and_stops() {
    let Some(set) = Set::new() else { return };
    let one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    set.restart_container(&mut two);
    two.until("nothing", |l| l.server == Server::Down).await;
    two.until("the stream", |l| matches!(&l.server, Server::Standby { receiving: true, .. })).await;
    one.until("its stream", |l| l.streams().iter().any(|s| s.member == two.id() && s.caught_up)).await;
    // Asked to stop: the driver tells, and the container ends when it is let go.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(two.supervisor()), nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut term = two.driver.term.clone();
    tokio::time::timeout(Duration::from_secs(10), term.wait_for(|t| *t)).await.unwrap().unwrap();
    two.driver.handle.acknowledge_term().await.unwrap();
    two.reach(WantKind::Stopped).await;
    two.driver.handle.release_container().await.unwrap();
    let begun = Instant::now();
    while !two.container_ended() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = std::fs::read_to_string(two.path("log")).unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_cut_off_is_begun_again() {
    let Some(set) = Set::new() else { return };
    let one = set.founded().await;
    one.value("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, 60000) i").await;
    let two = set.member(2).await;
    let slot = one.admitted(&epoch(1), &two, None).await;
    let (incarnation, from) = (two.incarnation.clone(), one.name.clone());
    two.want(WantKind::Clone { incarnation, from, slot, replace: false });
    let mut report = two.driver.report.clone();
    report.wait_for(|r| r.catch_up.as_ref().is_some_and(|c| c.total > 0)).await.unwrap();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication WHERE state = 'backup'";
    assert_eq!(one.value(cut).await, "1");
    let said = |l: &pgconvoy_ha::Local| l.problem.is_some() && l.data == pgconvoy_ha::Data::HalfMade;
    let local = two.until("the failure", said).await;
    assert!(local.problem.unwrap().contains("t-1"), "the sentence says who");
    let local = two.until("the copy", Streams::good).await;
    assert_eq!(local.server, Server::Down);
    assert_eq!(two.driver.report.borrow().catch_up, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_says_why_it_receives_nothing() {
    let Some(set) = Set::new() else { return };
    let mut one = set.founded().await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    one.reach(WantKind::Stopped).await;
    two.until("the silence", |l| l.problem.as_ref().is_some_and(|p| p.contains("cannot connect to PostgreSQL at t-1")))
        .await;
    assert!(matches!(&two.local().unwrap().server, Server::Standby { following: Some(e), .. } if *e == epoch(1)));
    // The slot of another epoch is not there.
    let alone = rule(&epoch(2), &one, &[], 0);
    one.detached().await;
    one.reach(WantKind::Lead { epoch: epoch(2), rule: alone, gate: true }).await;
    let tag = pgconvoy_terms::Tag::new(&two.id(), &epoch(2));
    let slot = tag.slot();
    two.reach(WantKind::Follow { leader: one.name.clone(), epoch: epoch(2), tag, slot, gate: true }).await;
    two.until("the reason", |l| l.problem.as_ref().is_some_and(|p| p.contains("it has no replication slot"))).await;
    let position = two.detached().await;
    one.admitted(&epoch(2), &two, Some(position)).await;
    two.follow(&one, &epoch(2)).await;
    two.until("no problem", |l| l.problem.is_none()).await;
}
