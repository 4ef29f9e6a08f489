//! What a user gets: a set that is Ready soon, takes writes, gives reads, and keeps to its spec whatever is deleted under it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Door, Namespace, OPERATOR_NAMESPACE, Set, eventually, with_operator};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// For what takes one start of a member.
const SOON: Duration = Duration::from_secs(60);
/// For what takes several, or a copy.
const LATER: Duration = Duration::from_secs(120);

/// The set of examples/quickstart.yaml, Ready, and a client.
fn quickstart(namespace: &Namespace) -> Set<'_> {
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    set
}

/// Five rows in a table `kept`.
fn fill(client: &Client<'_>) {
    let sql = "create table kept (n int primary key); insert into kept select generate_series(1, 5)";
    client.sql(Door::Writes, sql).unwrap();
}

/// All five are on this member.
fn filled(client: &Client<'_>, member: &str) {
    client.gives(Door::Member(member), "select count(*) from kept", "5", SOON).unwrap();
}

/// Members of the rule, without incarnations.
fn names(rule: &BTreeSet<String>) -> Vec<&str> {
    rule.iter().filter_map(|member| member.split_once('/')).map(|(name, _)| name).collect()
}

/// Nobody counts how long a pod's end takes: until the pod of this name is another one.
fn replaced(set: &Set<'_>, pod: &str, old: &str) {
    let what = format!("another pod {pod}");
    eventually(&what, SOON, || Ok(set.pods()?.get(pod).is_some_and(|uid| uid != old).then_some(()))).unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn the_example_is_ready_within_a_minute_and_serves() {
    let namespace = with_operator("ready").unwrap();
    let begin = Instant::now();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, SOON).unwrap();
    println!("measured: kubectl apply until Ready 3/3: {:.1} s", begin.elapsed().as_secs_f64());
    let listed = namespace.kubectl(&["get", "pgrs"], "").unwrap();
    assert!(listed.contains("quorum 1/2") && listed.contains("3/3"), "{listed}");
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "pgrs/quickstart"], "").unwrap();

    let client = Client::start(&set).unwrap();
    fill(&client);
    let tls = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(client.sql(Door::Writes, tls).unwrap(), "t|TLSv1.3");
    let plain = client.shell(r#"psql "$URI&sslmode=disable" -c "select 1""#, &[], "").unwrap();
    assert!(!plain.ok, "a connection without TLS was let in");

    client.gives(Door::Reads, "select count(*) from kept", "5", SOON).unwrap();
    assert_eq!(client.sql(Door::Reads, "select pg_is_in_recovery()").unwrap(), "t");
    let refused = client.try_sql(Door::Reads, "insert into kept values (6)").unwrap();
    assert!(!refused.ok && refused.stderr.contains("read-only transaction"), "{}", refused.stderr);
    assert_eq!(client.sql(Door::Any, "select 1").unwrap(), "1");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_deleted_follower_pod_is_back_and_caught_up_by_itself() {
    let namespace = with_operator("follower").unwrap();
    let set = quickstart(&namespace);
    let client = Client::start(&set).unwrap();
    fill(&client);
    let follower = set.followers().unwrap().remove(0);
    let (pods, claims, epoch) = (set.pods().unwrap(), set.claims().unwrap(), set.epoch().unwrap());
    let incarnations = set.rule().unwrap();

    client.start_writing().unwrap();
    let begin = Instant::now();
    namespace.kubectl(&["delete", "pod", &follower, "--wait=false"], "").unwrap();
    replaced(&set, &follower, &pods[&follower]);
    set.ready(3, LATER).unwrap();
    println!("measured: follower pod deleted until Ready 3/3: {:.1} s", begin.elapsed().as_secs_f64());
    let tally = client.stop_writing().unwrap();

    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    filled(&client, &follower);
    assert_eq!(set.claims().unwrap(), claims);
    assert_eq!(set.rule().unwrap(), incarnations, "it had its data and was copied all the same");
    assert_eq!(set.epoch().unwrap(), epoch, "a follower's end is no reason for a new epoch");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_follower_that_lost_its_volume_is_copied_anew() {
    let namespace = with_operator("volume").unwrap();
    let set = quickstart(&namespace);
    let client = Client::start(&set).unwrap();
    fill(&client);
    let follower = set.followers().unwrap().remove(0);
    let claim = format!("{follower}-data");
    let (pods, claims, rule) = (set.pods().unwrap(), set.claims().unwrap(), set.rule().unwrap());

    client.start_writing().unwrap();
    namespace.kubectl(&["delete", "pvc", &claim, "--wait=false"], "").unwrap();
    namespace.kubectl(&["delete", "pod", &follower, "--wait=false"], "").unwrap();
    let begin = Instant::now();
    replaced(&set, &follower, &pods[&follower]);
    set.wait("the copy in the rule", LATER, |_| {
        let now = set.rule().ok()?;
        (now != rule && names(&now) == names(&rule)).then_some(())
    })
    .unwrap();
    set.ready(3, LATER).unwrap();
    println!("measured: volume and pod deleted until Ready 3/3: {:.1} s", begin.elapsed().as_secs_f64());
    let tally = client.stop_writing().unwrap();

    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    assert_ne!(set.claims().unwrap()[&claim], claims[&claim]);
    filled(&client, &follower);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn scaling_to_five_and_back_to_three() {
    let namespace = with_operator("scale").unwrap();
    let set = quickstart(&namespace);
    let client = Client::start(&set).unwrap();
    fill(&client);
    client.start_writing().unwrap();

    let begin = Instant::now();
    namespace.kubectl(&["scale", "pgrs/quickstart", "--replicas=5"], "").unwrap();
    set.ready(5, LATER).unwrap();
    println!("measured: scaled from 3 until Ready 5/5: {:.1} s", begin.elapsed().as_secs_f64());
    for member in ["quickstart-4", "quickstart-5"] {
        filled(&client, member);
        assert_eq!(client.sql(Door::Member(member), "select pg_is_in_recovery()").unwrap(), "t");
    }

    let begin = Instant::now();
    namespace.kubectl(&["scale", "pgrs/quickstart", "--replicas=3"], "").unwrap();
    set.ready(3, LATER).unwrap();
    let three = ["quickstart-1", "quickstart-2", "quickstart-3"];
    eventually("pods of three members", SOON, || Ok(set.pods()?.keys().eq(three).then_some(()))).unwrap();
    println!("measured: scaled from 5 until Ready 3/3: {:.1} s", begin.elapsed().as_secs_f64());
    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    // What left does not hold back the leader's WAL.
    let slots = "select count(*) from pg_replication_slots where active";
    client.gives(Door::Writes, slots, "2", SOON).unwrap();
    let kept = "select count(*) from pg_replication_slots where slot_type = 'physical'";
    client.gives(Door::Writes, kept, "2", SOON).unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_single_member_serves_and_comes_back() {
    let namespace = with_operator("single").unwrap();
    let set = namespace.example("single.yaml", "single").unwrap();
    set.ready(1, SOON).unwrap();
    let client = Client::start(&set).unwrap();
    fill(&client);
    let pods = set.pods().unwrap();
    namespace.kubectl(&["delete", "pod", "single-1", "--wait=false"], "").unwrap();
    replaced(&set, "single-1", &pods["single-1"]);
    set.ready(1, LATER).unwrap();
    client.gives(Door::Writes, "select count(*) from kept", "5", SOON).unwrap();
    client.sql(Door::Writes, "insert into kept values (6)").unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn of_two_members_each_commit_waits_for_the_other() {
    let namespace = with_operator("pair").unwrap();
    let set = namespace.example("two-members.yaml", "pair").unwrap();
    set.ready(2, SOON).unwrap();
    let client = Client::start(&set).unwrap();
    fill(&client);
    let rule = client.sql(Door::Writes, "show synchronous_standby_names").unwrap();
    assert!(rule.contains("ANY 1") || rule.contains("FIRST 1"), "{rule}");
    let follower = set.followers().unwrap().remove(0);
    filled(&client, &follower);

    // Nobody to confirm: the commit waits, and is acknowledged when the follower is back.
    let pods = set.pods().unwrap();
    namespace.kubectl(&["delete", "pod", &follower], "").unwrap();
    client.sql(Door::Writes, "set statement_timeout = '90s'; insert into kept values (6)").unwrap();
    replaced(&set, &follower, &pods[&follower]);
    set.ready(2, LATER).unwrap();
    client.gives(Door::Member(&follower), "select count(*) from kept", "6", SOON).unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn asynchronous_commits_wait_for_nobody() {
    let namespace = with_operator("async").unwrap();
    let set = namespace.example("async.yaml", "async").unwrap();
    set.ready(3, SOON).unwrap();
    let client = Client::start(&set).unwrap();
    fill(&client);
    assert_eq!(client.sql(Door::Writes, "show synchronous_standby_names").unwrap(), "");
    for follower in set.followers().unwrap() {
        filled(&client, &follower);
    }
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_killed_agent_takes_nothing_with_it() {
    let namespace = with_operator("agent").unwrap();
    let set = quickstart(&namespace);
    let client = Client::start(&set).unwrap();
    let epoch = set.epoch().unwrap();
    let leader = set.leader().unwrap();
    let follower = set.followers().unwrap().remove(0);
    client.start_writing().unwrap();
    for member in [&leader, &follower] {
        let since = client.postmaster_start(member).unwrap();
        let restarts = set.restarts(member, "agent").unwrap();
        set.kill(member, "agent", "pgconvoy-agent").unwrap();
        eventually("another agent", SOON, || Ok((set.restarts(member, "agent")? > restarts).then_some(()))).unwrap();
        set.ready(3, SOON).unwrap();
        // Longer than any permission that the dead agent can have left behind.
        std::thread::sleep(Duration::from_secs(15));
        assert_eq!(client.postmaster_start(member).unwrap(), since, "PostgreSQL of {member} was started again");
        assert_eq!(set.restarts(member, "postgres").unwrap(), 0);
    }
    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    assert_eq!(set.epoch().unwrap(), epoch);
    println!("measured: agents killed: 0 of {} writes failed", tally.acknowledged);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_deleted_leader_pod_loses_no_acknowledged_write() {
    let namespace = with_operator("leader").unwrap();
    let set = quickstart(&namespace);
    let client = Client::start(&set).unwrap();
    let (epoch, leader, pods) = (set.epoch().unwrap(), set.leader().unwrap(), set.pods().unwrap());
    client.start_writing().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    namespace.kubectl(&["delete", "pod", &leader, "--wait=false"], "").unwrap();
    replaced(&set, &leader, &pods[&leader]);
    let begin = Instant::now();
    eventually("a later epoch", LATER, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    set.ready(3, LATER).unwrap();
    println!("measured: another leader pod made until Ready 3/3: {:.1} s", begin.elapsed().as_secs_f64());
    let before = client.written().unwrap();
    eventually("writes in the new epoch", SOON, || Ok((client.written()? > before).then_some(()))).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
    println!("measured: leader pod deleted: {} acknowledged, {} refused, 0 lost", tally.acknowledged, tally.failed);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn all_logs_are_json_and_postgres_errors_keep_their_level() {
    let namespace = with_operator("logs").unwrap();
    let set = namespace.example("single.yaml", "single").unwrap();
    set.ready(1, SOON).unwrap();
    let client = Client::start(&set).unwrap();
    let refused = client.try_sql(Door::Writes, "select *\nfrom there_is_no_such_table").unwrap();
    assert!(!refused.ok);
    let lines = |container: &str| {
        let text = namespace.kubectl(&["logs", "single-1", "-c", container], "").unwrap();
        let parse = |l: &str| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{e}: {l}"));
        text.lines().map(parse).collect::<Vec<_>>()
    };
    let error = eventually("the error in the log", SOON, || {
        let log = lines("postgres").into_iter();
        Ok(log.into_iter().find(|l| l["state_code"] == "42P01"))
    })
    .unwrap();
    assert_eq!(error["level"], "ERROR");
    assert_eq!(error["message"], "relation \"there_is_no_such_table\" does not exist at character 15");
    assert_eq!(error["statement"], "select *\nfrom there_is_no_such_table");
    assert_eq!((&error["user"], &error["dbname"]), (&Value::from("app"), &Value::from("app")));
    assert_eq!((&error["application_name"], &error["backend_type"]), (&"psql".into(), &"client backend".into()));
    let ready =
        lines("postgres").into_iter().find(|l| l["message"] == "database system is ready to accept connections");
    assert_eq!(ready.unwrap()["error_severity"], "LOG");
    // Whoever speaks, the same keys and words.
    let levels = ["DEBUG", "INFO", "WARN", "ERROR"];
    for line in [lines("postgres"), lines("agent")].concat() {
        let level = line["level"].as_str().unwrap_or_default();
        assert!(levels.contains(&level) && line["timestamp"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn an_idle_set_writes_nothing() {
    let namespace = with_operator("idle").unwrap();
    let cluster = namespace.cluster();
    // Others' namespaces are still going away, perhaps.
    eventually("quiet", LATER, || {
        let all = cluster.get(&["namespaces"])?;
        let going = all["items"].as_array().into_iter().flatten().any(|n| n["status"]["phase"] == "Terminating");
        Ok((!going).then_some(()))
    })
    .unwrap();
    let set = quickstart(&namespace);
    // What follows Ready: the last events, the last look of everybody.
    std::thread::sleep(Duration::from_secs(20));

    // Kubelets and provisioners tell of what is others': of Events only those count that are in our namespaces.
    let events = || -> BTreeMap<String, String> {
        let of = |place: &str| {
            cluster.get(&["-n", place, "events"]).unwrap()["items"].as_array().cloned().unwrap_or_default()
        };
        let all = [&namespace.name, OPERATOR_NAMESPACE].into_iter().flat_map(of);
        all.map(|e| (e["metadata"]["uid"].to_string(), format!("{} {} {}", e["count"], e["reason"], e["message"])))
            .collect()
    };
    let begin = Instant::now();
    let (before, told) = (cluster.writes().unwrap(), events());
    let (lease, operator) = std::thread::scope(|threads| {
        let lease = threads.spawn(|| cluster.lease_writes_in_a_minute(&namespace.name).unwrap());
        let operator = threads.spawn(|| cluster.lease_writes_in_a_minute(OPERATOR_NAMESPACE).unwrap());
        (lease.join().unwrap(), operator.join().unwrap())
    });
    let (after, told_since) = (cluster.writes().unwrap(), events());
    let news: Vec<_> = told_since.iter().filter(|(uid, event)| told.get(*uid) != Some(event)).collect();
    assert!(news.is_empty(), "an idle set told of {news:?}");
    let seconds = begin.elapsed().as_secs_f64();
    let rate = |count: usize| f64::from(u32::try_from(count).unwrap()) / 60.0;
    println!("measured: idle: {:.2} writes/s of the set's Lease, {:.2} of the operators'", rate(lease), rate(operator));

    let more: Vec<_> = after
        .iter()
        .filter(|(key, sum)| !key.ends_with(" events") && before.get(*key).unwrap_or(&0.0) < sum)
        .map(|(key, sum)| format!("{key} {}", sum - before.get(key).unwrap_or(&0.0)))
        .collect();
    assert!(more.is_empty(), "an idle set wrote in {seconds:.0} s: {more:?}");
    assert!(operator > 0, "no heartbeat was seen: this test measures nothing");
    assert_eq!(lease, 0, "a leader that serves under a quorum leaves the Lease alone");
    assert!(rate(operator) <= 0.3, "{operator} writes of the operators' Lease in a minute");
    set.ready(3, SOON).unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn operators_may_be_deleted_at_any_time() {
    let namespace = with_operator("operators").unwrap();
    let set = quickstart(&namespace);
    let client = Client::start(&set).unwrap();
    let (epoch, pods) = (set.epoch().unwrap(), set.pods().unwrap());
    client.start_writing().unwrap();
    let system = ["-n", OPERATOR_NAMESPACE];
    namespace.cluster().kubectl(&[&system[..], &["delete", "pods", "--all"]].concat(), "").unwrap();
    let rollout = ["rollout", "status", "deployment/pgconvoy-operator", "--timeout=90s"];
    namespace.cluster().kubectl(&[&system[..], &rollout].concat(), "").unwrap();

    // The new ones look after it: a follower is made again.
    let follower = set.followers().unwrap().remove(0);
    assert_eq!(set.pods().unwrap(), pods);
    assert_eq!(set.epoch().unwrap(), epoch);
    namespace.kubectl(&["delete", "pod", &follower, "--wait=false"], "").unwrap();
    replaced(&set, &follower, &pods[&follower]);
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn without_an_operator_the_set_serves() {
    let namespace = with_operator("uninstall").unwrap();
    let set = quickstart(&namespace);
    let client = Client::start(&set).unwrap();
    let (epoch, pods, claims) = (set.epoch().unwrap(), set.pods().unwrap(), set.claims().unwrap());
    client.start_writing().unwrap();
    namespace.cluster().uninstall_operator().unwrap();
    std::thread::sleep(Duration::from_secs(20));
    let without = (set.pods(), set.claims(), client.sql(Door::Reads, "select count(*) > 0 from writes"));
    let tally = client.stop_writing();
    // The tests after this one want it, whatever became of this one.
    namespace.cluster().install_operator().unwrap();

    let tally = tally.unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    assert_eq!((without.0.unwrap(), without.1.unwrap()), (pods, claims));
    assert_eq!(without.2.unwrap(), "t");
    set.ready(3, SOON).unwrap();
    assert_eq!(set.epoch().unwrap(), epoch);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn volumes_of_a_deleted_set_are_kept_and_not_given_to_another() {
    let namespace = with_operator("kept").unwrap();
    let set = quickstart(&namespace);
    fill(&Client::start(&set).unwrap());
    let claims = set.claims().unwrap();
    namespace.kubectl(&["delete", "pgrs", "quickstart", "--timeout=60s"], "").unwrap();
    eventually("the end of the pods", SOON, || Ok(set.pods()?.is_empty().then_some(()))).unwrap();
    assert_eq!(set.claims().unwrap(), claims, "data was deleted with the set");

    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    let said = set
        .wait("a refusal", SOON, |_| {
            let (status, reason, message) = set.condition("Stalled").ok()?;
            (status == "True" && reason == "ForeignVolume").then_some(message)
        })
        .unwrap();
    for words in
        ["quickstart-1-data", "quickstart-3-data", "hold data of an earlier replica set", "delete these claims"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(set.claims().unwrap(), claims, "a refused set touched the volumes");
    let pods = set.pods().unwrap();
    assert!(pods.is_empty(), "a refused set made {pods:?}");

    // What the sentence says to do helps.
    namespace.kubectl(&["delete", "pvc", "-l", "pgconvoy.dev/set=quickstart", "--timeout=60s"], "").unwrap();
    set.ready(3, LATER).unwrap();
}
