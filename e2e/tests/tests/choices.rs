//! What users may choose where failover is concerned: to decide themselves who leads, and that writes go on without followers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Door, eventually, with_operator};
use serde_json::json;
use std::time::Duration;

/// For what takes one start of a member.
const SOON: Duration = Duration::from_secs(60);
/// For what takes several, or a copy.
const LATER: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_dead_leader_is_replaced_when_a_person_says_so() {
    let namespace = with_operator("manual").unwrap();
    let set = namespace.apply("byhand", &json!({ "members": 3, "failover": { "mode": "manual" } })).unwrap();
    set.ready(3, LATER).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let pod = namespace.get(&["pod", &leader]).unwrap();
    let name = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    namespace.kubectl(&["cordon", &name], "").unwrap();
    let client = Client::start(&set).unwrap();
    namespace.kubectl(&["uncordon", &name], "").unwrap();

    // PostgreSQL alone dies: the same leader begins again.
    client.start_writing().unwrap();
    let kill = "kill -9 $(head -n 1 /var/lib/pgconvoy/pgdata/postmaster.pid)";
    namespace.kubectl(&["exec", &leader, "-c", "postgres", "--", "sh", "-c", kill], "").unwrap();
    eventually("the next epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    set.ready(3, LATER).unwrap();
    assert_eq!(set.leader().unwrap(), leader, "another leads although no person has said so");

    let epoch = set.epoch().unwrap();
    let node = namespace.cluster().bed().node_named(&name).unwrap();
    node.power_off().unwrap();
    let command = format!("kubectl pgconvoy takeover byhand --epoch {epoch}");
    let words = ["failover is manual", "with every acknowledged commit", command.as_str()];
    let said = set.says("Stalled", "True", "WaitsForTakeover", &words, LATER).unwrap();
    assert!(!said.contains("accept-loss"), "{said}");
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(set.epoch().unwrap(), epoch, "an epoch nobody asked for");

    let request = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgRequest", "metadata": { "name": "mine" },
        "spec": { "set": "byhand", "takeover": { "epoch": epoch } },
    });
    let before = client.written().unwrap();
    namespace.kubectl(&["create", "-f", "-"], &request.to_string()).unwrap();
    eventually("writes again", SOON, || Ok((client.written()? > before + 5).then_some(()))).unwrap();
    let done = eventually("the request to end", SOON, || {
        let status = namespace.get(&["pgrequest", "mine"])?["status"].clone();
        Ok(status["finishedAt"].is_string().then(|| status["state"].as_str().unwrap_or_default().to_owned()))
    });
    assert_eq!(done.unwrap(), "Complete");
    node.power_on().unwrap();
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
    assert_ne!(set.leader().unwrap(), leader);
    let term = namespace.get(&["pgterm", "byhand"]).unwrap();
    let last = term["spec"]["history"].as_array().unwrap().last().unwrap().clone();
    assert_ne!(last["lossy"], json!(true), "{last}");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_leader_without_followers_goes_on_where_that_is_preferred_and_says_so() {
    let namespace = with_operator("degrade").unwrap();
    let changes = json!({
        "members": 3,
        "durability": { "whenShort": "degrade" },
        "postgresql": { "parameters": { "max_prepared_transactions": 5 } },
    });
    let set = namespace.apply("short", &changes).unwrap();
    set.ready(3, LATER).unwrap();
    let (epoch, leader, followers) = (set.epoch().unwrap(), set.leader().unwrap(), set.followers().unwrap());
    let client = Client::start(&set).unwrap();
    client.start_writing().unwrap();
    eventually("writes", SOON, || Ok((client.written()? > 5).then_some(()))).unwrap();
    let bed = namespace.cluster().bed();
    let hang = |hang: bool| {
        for follower in &followers {
            match hang {
                true => bed.freeze(&namespace.name, follower, Some("postgres")).unwrap(),
                false => bed.thaw(&namespace.name, follower, Some("postgres")).unwrap(),
            }
        }
    };

    hang(true);
    let alone = format!("{leader} acknowledges commits alone: if it is lost now, so are they");
    let degraded = set.says("Ready", "False", "Degraded", &[&alone], SOON);
    let before = client.written().unwrap();
    let goes_on = eventually("writes without followers", SOON, || Ok((client.written()? > before + 5).then_some(())));
    let status = set.get().unwrap()["status"]["durability"].clone();
    let prepare = "begin; insert into writes values (-7); prepare transaction 'kept'";
    let prepared = client.sql(Door::Writes, prepare);
    hang(false);
    degraded.unwrap();
    goes_on.unwrap();
    prepared.unwrap();
    assert_eq!(status, json!("degraded: leader only"));

    let told = set.told("Degraded", SOON).unwrap();
    assert!(told.contains("0 of the 1 followers that must hold a commit keep up"), "{told}");
    set.ready(3, LATER).unwrap();
    assert_eq!(set.get().unwrap()["status"]["durability"], json!("quorum 1/2"));
    assert_eq!((set.epoch().unwrap(), set.leader().unwrap()), (epoch, leader.clone()));
    // What it acknowledged alone is as safe as the rest again.
    namespace.kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"], "").unwrap();
    eventually("the next epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    set.ready(3, LATER).unwrap();
    // A transaction that was prepared before waits for its end on the next leader, as on any standby that is promoted.
    client.does("commit prepared 'kept'", SOON).unwrap();
    client.gives(Door::Writes, "select count(*) from writes where n = -7", "1", SOON).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
}
