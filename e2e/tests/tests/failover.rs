//! Who leads when the leader is lost: another member, by itself, without an acknowledged write being lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Door, End, Namespace, Output, Set, eventually, with_operator};
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
    eventually("writes in it", OUTAGE, || Ok((client.written()? > before).then_some(())))
        .unwrap_or_else(|error| panic!("{error:#}; writes failed with:\n{}", client.errors()));
    begin.elapsed().as_secs_f64()
}

/// Everybody is back, and everything that was acknowledged is there.
fn whole(set: &Set<'_>, client: &Client<'_>, what: &str, seconds: f64) {
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    println!("measured: {what}: writes again after {seconds:.1} s; {tally:?}");
    assert_eq!(tally.lost, 0, "{what}: {tally:?}");
}

/// Waits until writes are acknowledged again; how long that took. The status is the operator's, which may be where the leader was:
/// the writes tell.
fn again(client: &Client<'_>) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let before = client.written()?;
    eventually("writes again", OUTAGE, || Ok((client.written()? > before + 5).then_some(())))?;
    Ok(begin.elapsed().as_secs_f64())
}

/// A client on another node than the leader's, and that node.
fn elsewhere<'a>(namespace: &'a Namespace, set: &'a Set<'a>) -> (Client<'a>, String) {
    let pod = namespace.get(&["pod", &set.leader().unwrap()]).unwrap();
    let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    namespace.kubectl(&["cordon", &node], "").unwrap();
    let client = Client::start(set).unwrap();
    namespace.kubectl(&["uncordon", &node], "").unwrap();
    (client, node)
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
    // A transaction is under way. Nothing but the client's patience ends it before the thaw, and nothing may acknowledge it after.
    let held = r#"(psql "$URI" -Xqc "insert into writes values (-1); select pg_sleep(2)"; echo $? > /tmp/held) > /dev/null 2>&1 < /dev/null &"#;
    client.shell(held, &[], "").unwrap();
    client
        .gives(
            Door::Writes,
            "select count(*) from pg_stat_activity where query like '%(-1)%' and wait_event = 'PgSleep'",
            "1",
            SOON,
        )
        .unwrap();
    let bed = namespace.cluster().bed();
    bed.freeze(&namespace.name, &leader, Some("postgres")).unwrap();
    let seconds = outage(&set, &client, epoch);
    let leads = set.leader().unwrap();
    bed.thaw(&namespace.name, &leader, Some("postgres")).unwrap();
    assert_ne!(leads, leader);
    eventually("an end of the transaction that was under way", SOON, || {
        let output = client.shell("cat /tmp/held", &[], "")?;
        Ok(output
            .ok
            .then(|| assert_ne!(output.stdout.trim(), "0", "the old leader acknowledged a commit after the thaw")))
    })
    .unwrap();
    whole(&set, &client, "leader's container frozen", seconds);
    client.gives(Door::Writes, "select count(*) from writes where n = -1", "0", SOON).unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_leader_whose_node_loses_power_is_replaced() {
    let namespace = with_operator("power").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let epoch = set.epoch().unwrap();
    // The client must survive.
    let (client, node) = elsewhere(&namespace, &set);
    client.start_writing().unwrap();
    let node = namespace.cluster().bed().node_named(&node).unwrap();
    node.power_off().unwrap();
    let seconds = again(&client).unwrap();
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

/// A node that takes no pods, until this is dropped.
struct Cordoned<'a>(&'a Namespace, String);

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.kubectl(&["uncordon", &self.1], "") {
            eprintln!("{error:#}");
        }
    }
}

/// `kubectl drain` of the set's pods on a node.
fn drain(namespace: &Namespace, set: &Set<'_>, node: &str, within: &str) -> Output {
    let (pods, within) = (format!("--pod-selector=pgconvoy.dev/set={}", set.name), format!("--timeout={within}"));
    let drain = ["drain", node, &pods, &within, "--delete-emptydir-data", "--ignore-daemonsets"];
    namespace.try_kubectl(&drain, "").unwrap()
}

/// Its leader hands over before it goes; while that one is away, the budget keeps a second node from being drained.
#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_drained_node_costs_no_acknowledged_write_and_the_next_one_waits() {
    let namespace = with_operator("drain").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let (client, node) = elsewhere(&namespace, &set);
    client.start_writing().unwrap();
    let drained = drain(&namespace, &set, &node, "60s");
    let cordoned = Cordoned(&namespace, node.clone());
    assert!(drained.ok, "{}", drained.stderr);
    eventually("a later epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    assert_ne!(set.leader().unwrap(), leader);
    // Its volume keeps the drained member from another node: it waits, and so must the next drain.
    let follower = set.followers().unwrap().into_iter().find(|f| *f != leader).unwrap();
    let next = namespace.get(&["pod", &follower]).unwrap()["spec"]["nodeName"].as_str().unwrap().to_owned();
    let second = drain(&namespace, &set, &next, "8s");
    drop(Cordoned(&namespace, next));
    assert!(!second.ok && second.stderr.contains("disruption budget"), "{}", second.stderr);
    drop(cordoned);
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    println!("measured: leader's node drained: {tally:?}");
    assert_eq!((tally.lost, set.epoch().unwrap()), (0, epoch + 1), "{tally:?}");
}

/// Of a node by its name.
fn number(node: &str) -> u8 {
    node.trim_start_matches('n').parse().unwrap()
}

/// Its PostgreSQL goes on behind the cut, and can acknowledge nothing there.
#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_leader_whose_node_is_cut_off_is_replaced_and_acknowledges_nothing_more() {
    let namespace = with_operator("cutoff").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let leader = set.leader().unwrap();
    let (client, node) = elsewhere(&namespace, &set);
    client.start_writing().unwrap();
    let bed = namespace.cluster().bed();
    let cut = number(&node);
    for other in (1..=3).filter(|n| *n != cut) {
        bed.cut(End::Node(cut), End::Node(other)).unwrap();
    }
    bed.cut(End::Node(cut), End::Api).unwrap();
    let seconds = again(&client);
    bed.heal().unwrap();
    let seconds = seconds.unwrap();
    whole(&set, &client, "leader's node cut off", seconds);
    assert_ne!(set.leader().unwrap(), leader);
}

/// Nothing that a leader needs to acknowledge is at the API server.
#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_leader_that_is_cut_off_from_the_api_alone_goes_on() {
    let namespace = with_operator("apicut").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let (client, node) = elsewhere(&namespace, &set);
    client.start_writing().unwrap();
    let bed = namespace.cluster().bed();
    bed.cut(End::Node(number(&node)), End::Api).unwrap();
    std::thread::sleep(Duration::from_secs(30));
    bed.heal().unwrap();
    let tally = client.stop_writing().unwrap();
    println!("measured: leader's node cut off from the API for 30 s: {tally:?}");
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    assert_eq!((set.epoch().unwrap(), set.leader().unwrap()), (epoch, leader));
}

/// The kubelet waits longer and longer before it starts such a container again: leadership moves on meanwhile, and stays.
#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_container_that_is_killed_again_and_again_loses_leadership_only_when_it_has_it() {
    let namespace = with_operator("again").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, victim) = (set.epoch().unwrap(), set.leader().unwrap());
    client.start_writing().unwrap();
    let mut longest = 0_f64;
    for round in 1..=4 {
        let (leads, before) = (set.leader().unwrap() == victim, set.epoch().unwrap());
        set.kill(&victim, "postgres", "supervisor").unwrap();
        if leads {
            longest = longest.max(outage(&set, &client, before));
        }
        eventually("its container to be back", LATER, || {
            Ok((set.restarts(&victim, "postgres")? >= round).then_some(()))
        })
        .unwrap();
    }
    let epochs = set.epoch().unwrap() - epoch;
    whole(&set, &client, "leader's container killed four times", longest);
    assert_eq!(epochs, 1, "leadership did not stay where it went");
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
    let (client, node) = elsewhere(&namespace, &set);
    client.start_writing().unwrap();
    let node = namespace.cluster().bed().node_named(&node).unwrap();
    node.power_off().unwrap();
    let seconds = again(&client).unwrap();
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
