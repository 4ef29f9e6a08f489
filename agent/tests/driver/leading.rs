//! The shortest path: found, lead, clone, follow, count on the follower.

use crate::member::{Set, Streams, epoch, rule};
use pgconvoy_ha::{RuleInForce, Server, WantKind};
use pgconvoy_terms::TimelineId;

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
    one.value("CREATE TABLE t AS SELECT 7 AS x").await;
    two.wait_value("SELECT x FROM t", "7").await;
    one.until("the stream", |l| l.streams().iter().any(|s| s.member == two.id() && s.caught_up)).await;
}
