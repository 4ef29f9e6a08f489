//! Who leads when the leader is lost: another member, by itself, without an acknowledged write being lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Set, eventually, with_operator};
use std::time::{Duration, Instant};

/// For what takes one start of a member.
const SOON: Duration = Duration::from_secs(60);
/// For what takes several, or a copy.
const LATER: Duration = Duration::from_secs(180);
/// How long an outage may last on a loaded machine; what is measured is printed.
const OUTAGE: Duration = Duration::from_secs(40);

/// Waits for a later epoch in which writes are acknowledged again; how long that took.
fn outage(set: &Set<'_>, client: &Client<'_>, epoch: i64) -> f64 {
    let begin = Instant::now();
    eventually("a later epoch", OUTAGE, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    let before = client.written().unwrap();
    eventually("writes in it", OUTAGE, || Ok((client.written()? > before).then_some(()))).unwrap();
    begin.elapsed().as_secs_f64()
}

/// Everybody is back, and everything that was acknowledged is there.
fn whole(set: &Set<'_>, client: &Client<'_>, what: &str, seconds: f64) {
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    println!("measured: {what}: writes again after {seconds:.1} s; {tally:?}");
    assert_eq!(tally.lost, 0, "{what}: {tally:?}");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_killed_postmaster_costs_an_epoch_and_no_write() {
    let namespace = with_operator("postmaster").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    client.start_writing().unwrap();
    let kill = "kill -9 $(head -n 1 /var/lib/pgconvoy/pgdata/postmaster.pid)";
    namespace.kubectl(&["exec", &leader, "-c", "postgres", "--", "sh", "-c", kill], "").unwrap();
    let seconds = outage(&set, &client, epoch);
    whole(&set, &client, "postmaster of the leader killed", seconds);
    assert_eq!(set.restarts(&leader, "postgres").unwrap(), 0, "the supervisor starts PostgreSQL, not the kubelet");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_frozen_leader_is_replaced_and_comes_back_as_a_follower() {
    let namespace = with_operator("frozen").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    client.start_writing().unwrap();
    let bed = namespace.cluster().bed();
    bed.freeze(&namespace.name, &leader, Some("postgres")).unwrap();
    let seconds = outage(&set, &client, epoch);
    let leads = set.leader().unwrap();
    bed.thaw(&namespace.name, &leader, Some("postgres")).unwrap();
    assert_ne!(leads, leader);
    whole(&set, &client, "leader's container frozen", seconds);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_leader_whose_node_loses_power_is_replaced() {
    let namespace = with_operator("power").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let pod = namespace.get(&["pod", &leader]).unwrap();
    let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    // The client must survive.
    namespace.kubectl(&["cordon", &node], "").unwrap();
    let client = Client::start(&set).unwrap();
    namespace.kubectl(&["uncordon", &node], "").unwrap();
    client.start_writing().unwrap();
    let node = namespace.cluster().bed().node_named(&node).unwrap();
    node.power_off().unwrap();
    let begin = Instant::now();
    // The status is the operator's, which may have been on that node: the writes tell.
    let before = client.written().unwrap();
    eventually("writes again", OUTAGE, || Ok((client.written()? > before + 5).then_some(()))).unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    node.power_on().unwrap();
    eventually("a later epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    whole(&set, &client, "power cut of the leader's node", seconds);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_leader_that_is_deleted_by_force_is_replaced_at_once() {
    let namespace = with_operator("force").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    client.start_writing().unwrap();
    namespace.kubectl(&["delete", "pod", &leader, "--force", "--grace-period=0"], "").unwrap();
    let seconds = outage(&set, &client, epoch);
    whole(&set, &client, "leader's pod deleted by force", seconds);
}

/// Where commits wait for nobody, a leader that is gone is replaced all the same: once its permission has ended for certain.
#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn without_a_quorum_a_leader_that_is_gone_is_replaced_and_the_loss_is_on_record() {
    let namespace = with_operator("async").unwrap();
    let loose = serde_json::json!({ "members": 3, "durability": { "mode": "async" } });
    let set = namespace.apply("loose", &loose).unwrap();
    set.ready(3, LATER).unwrap();
    let leader = set.leader().unwrap();
    let pod = namespace.get(&["pod", &leader]).unwrap();
    let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    namespace.kubectl(&["cordon", &node], "").unwrap();
    let client = Client::start(&set).unwrap();
    namespace.kubectl(&["uncordon", &node], "").unwrap();
    client.start_writing().unwrap();
    let node = namespace.cluster().bed().node_named(&node).unwrap();
    node.power_off().unwrap();
    let begin = Instant::now();
    let before = client.written().unwrap();
    eventually("writes again", OUTAGE, || Ok((client.written()? > before + 5).then_some(()))).unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    assert!(seconds > 10.0, "a leader that might still have served was not waited for: {seconds:.1} s");
    node.power_on().unwrap();
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    println!(
        "measured: without a quorum, power cut of the leader's node: writes again after {seconds:.1} s; {tally:?}"
    );
    let term = namespace.get(&["pgterm", "loose"]).unwrap();
    let history = term["spec"]["history"].as_array().unwrap();
    assert!(history.iter().any(|f| f["lossy"] == serde_json::json!(true)), "{term}");
    assert_ne!(set.leader().unwrap(), leader);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_new_pod_spec_is_rolled_out_followers_first_and_the_leader_hands_over() {
    let namespace = with_operator("rollout").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, leader, before) = (set.epoch().unwrap(), set.leader().unwrap(), set.pods().unwrap());
    client.start_writing().unwrap();
    let begin = Instant::now();
    let patch =
        r#"{"spec":{"resources":{"requests":{"cpu":"11m"}},"postgresql":{"parameters":{"max_connections":"120"}}}}"#;
    namespace.kubectl(&["patch", "pgrs", "quickstart", "--type=merge", "-p", patch], "").unwrap();
    eventually("the roll-out to begin", SOON, || Ok((set.condition("Configured")?.1 == "RollingOut").then_some(())))
        .unwrap();
    eventually("the roll-out to end", LATER, || {
        let leads = set.leader()?;
        // While a follower is away, the leader must still be there.
        let replaced = set.pods()?.iter().filter(|(name, uid)| before.get(*name) != Some(*uid)).count();
        assert!(replaced == 3 || leads == leader || set.epoch()? > epoch, "the leader was not the last: {leads}");
        Ok((set.condition("Configured")?.0 == "True" && replaced == 3).then_some(()))
    })
    .unwrap();
    let took = begin.elapsed().as_secs_f64();
    assert_eq!(set.epoch().unwrap(), epoch + 1, "one change of leader");
    assert_ne!(set.leader().unwrap(), leader);
    let shown = client.sql(pgconvoy_e2e::Door::Writes, "show max_connections").unwrap();
    assert_eq!(shown, "120", "the new leader was started with the new parameters before it led");
    whole(&set, &client, "roll-out of a new pod spec to three members", took);
}
