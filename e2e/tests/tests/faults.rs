//! What goes wrong under a running set: what must go on does, what stands still says why, and what can mend itself does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Cluster, Component, Door, Set, SmallVolumes, Stepping, eventually, step, with_operator};
use serde_json::json;
use std::time::{Duration, Instant};

/// For what takes one start of a member.
const SOON: Duration = Duration::from_secs(60);
/// For what takes several, or a copy.
const LATER: Duration = Duration::from_secs(120);

/// The API server is killed, and started again when this is dropped.
struct Away<'a>(&'a Cluster);

impl<'a> Away<'a> {
    fn begin(cluster: &'a Cluster) -> Self {
        cluster.bed().kill(Component::ApiServer).unwrap();
        Self(cluster)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Err(why) = self.0.bed().start_component(Component::ApiServer) {
            eprintln!("{why:#}");
        }
        let ready = || Ok((self.0.kubectl(&["get", "--raw", "/readyz"], "")? == "ok").then_some(()));
        if let Err(why) = eventually("the API server again", SOON, ready) {
            eprintln!("{why:#}");
        }
    }
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn without_the_api_server_for_a_minute_nothing_stops_but_nobody_takes_over() {
    let namespace = with_operator("away").unwrap();
    let three = namespace.example("quickstart.yaml", "quickstart").unwrap();
    let lazy = namespace.example("async.yaml", "async").unwrap();
    let alone = namespace.example("single.yaml", "single").unwrap();
    for (set, members) in [(&three, 3), (&lazy, 3), (&alone, 1)] {
        set.ready(members, LATER).unwrap();
    }
    let sets = [&three, &lazy, &alone];
    let clients = sets.map(|set| Client::start(set).unwrap());
    let epochs = sets.map(|set| set.epoch().unwrap());
    let pods = sets.map(|set| set.pods().unwrap());
    let since = || -> Vec<_> {
        let all = clients.iter().zip(&pods);
        all.flat_map(|(client, pods)| pods.keys().map(|m| client.postmaster_start(m).unwrap())).collect()
    };
    let started = since();
    for client in &clients {
        client.start_writing().unwrap();
    }
    let writers = clients.each_ref().map(|client| client.seen_from_outside().unwrap());

    let away = Away::begin(namespace.cluster());
    let begin = Instant::now();
    let mut last = writers.each_ref().map(|writer| (writer.written().unwrap(), Instant::now()));
    let mut longest = [Duration::ZERO; 3];
    while begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
        for (i, writer) in writers.iter().enumerate() {
            let now = writer.written().unwrap();
            if now > last[i].0 {
                longest[i] = longest[i].max(last[i].1.elapsed());
                last[i] = (now, Instant::now());
            }
            let silent = last[i].1.elapsed();
            assert!(silent < Duration::from_secs(10), "{}: no write for {silent:?}", sets[i].name);
        }
    }
    drop(away);
    println!("measured: API server away for 60 s: longest pause between writes {longest:.1?} (quorum, async, single)");

    for (i, set) in sets.into_iter().enumerate() {
        let tally = clients[i].stop_writing().unwrap();
        assert_eq!((tally.failed, tally.lost), (0, 0), "{}: {tally:?}", set.name);
        set.ready(pods[i].len(), SOON).unwrap();
        assert_eq!((set.epoch().unwrap(), set.pods().unwrap()), (epochs[i], pods[i].clone()), "{}", set.name);
        for pod in pods[i].keys() {
            assert_eq!(set.restarts(pod, "agent").unwrap() + set.restarts(pod, "postgres").unwrap(), 0, "{pod}");
        }
    }
    assert_eq!(since(), started, "PostgreSQL was restarted");
    // And what is asked for from now on is done.
    namespace.apply("after", &json!({})).unwrap().ready(1, LATER).unwrap();

    // A leader that dies meanwhile: there is nobody to agree with on another, so writes wait, and go on when there is.
    let (leader, client) = (three.leader().unwrap(), &clients[0]);
    client.start_writing().unwrap();
    let writer = client.seen_from_outside().unwrap();
    let target = three.target(&leader, "postgres", "supervisor").unwrap();
    let away = Away::begin(namespace.cluster());
    target.kill().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let before = writer.written().unwrap();
    std::thread::sleep(Duration::from_secs(15));
    assert_eq!(writer.written().unwrap(), before, "somebody leads without a word of the API server");
    let begin = Instant::now();
    drop(away);
    eventually("writes again", SOON, || Ok((writer.written()? > before + 5).then_some(()))).unwrap();
    println!(
        "measured: leader killed without an API server: writes {:.1?} after it was started again",
        begin.elapsed()
    );
    three.ready(3, SOON).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
    assert!(three.epoch().unwrap() > epochs[0]);
}

/// Runs a shell command in the PostgreSQL container of a member.
fn inside(set: &Set<'_>, member: &str, command: &str) -> bool {
    let args = ["exec", member, "-c", "postgres", "--", "sh", "-c", command];
    set.namespace.try_kubectl(&args, "").unwrap().ok
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_follower_whose_volume_is_full_says_so_and_comes_back_by_itself() {
    let namespace = with_operator("full").unwrap();
    let volumes = SmallVolumes::make(&namespace, 400).unwrap();
    let storage = json!({ "members": 3, "storage": { "size": "400Mi", "storageClassName": volumes.class } });
    let set = namespace.apply("full", &storage).unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, leader, rule, pods) =
        (set.epoch().unwrap(), set.leader().unwrap(), set.rule().unwrap(), set.pods().unwrap());
    let follower = set.followers().unwrap().remove(0);
    client.start_writing().unwrap();

    // dd ends with an error when there is no room any more: that is what it is for.
    inside(&set, &follower, "dd if=/dev/zero of=/var/lib/pgconvoy/ballast bs=1M 2> /dev/null");
    let begin = Instant::now();
    // Its present segment of the log still has room; more than that.
    client.sql(Door::Writes, "create table bulk (t text)").unwrap();
    for _ in 0..3 {
        let insert = "insert into bulk select repeat(md5(n::text), 30) from generate_series(1, 15000) n";
        client.sql(Door::Writes, insert).unwrap();
    }
    let words = [follower.as_str(), "is full", "of 3", "MiB are free", "spec.storage.size"];
    println!("{}", set.says("Stalled", "True", "VolumeFull", &words, LATER).unwrap());
    println!("measured: volume of a follower full until the set says so: {:.1} s", begin.elapsed().as_secs_f64());
    set.says("Ready", "False", "VolumeFull", &["2 of 3 members are attached", &follower], SOON).unwrap();
    assert!(set.listed().unwrap().contains("VolumeFull"));
    assert!(set.told("VolumeFull", SOON).unwrap().contains(&follower));
    // It stays so, and the others go on.
    let before = client.written().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    set.says("Stalled", "True", "VolumeFull", &words, Duration::from_secs(1)).unwrap();
    assert!(client.written().unwrap() > before + 10);
    assert_eq!((set.epoch().unwrap(), set.leader().unwrap()), (epoch, leader));

    assert!(inside(&set, &follower, "rm /var/lib/pgconvoy/ballast"));
    let begin = Instant::now();
    set.ready(3, LATER).unwrap();
    println!("measured: room again until Ready 3/3: {:.1} s", begin.elapsed().as_secs_f64());
    set.says("Stalled", "False", "AsExpected", &[], SOON).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    client.gives(Door::Member(&follower), "select count(*) from bulk", "45000", SOON).unwrap();
    assert_eq!((set.rule().unwrap(), set.pods().unwrap(), set.epoch().unwrap()), (rule, pods, epoch));
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn deleted_certificates_are_made_again_while_the_set_serves() {
    let namespace = with_operator("secrets").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, mut pods) = (set.epoch().unwrap(), set.pods().unwrap());
    let since: Vec<_> = pods.keys().map(|m| client.postmaster_start(m).unwrap()).collect();
    let secrets = ["quickstart-ca", "quickstart-1-tls", "quickstart-2-tls", "quickstart-3-tls"];
    let authority = || -> anyhow::Result<String> {
        let path = "jsonpath={.data.ca\\.crt}";
        let all: Result<Vec<_>, _> =
            secrets.iter().map(|s| namespace.kubectl(&["get", "secret", s, "-o", path], "")).collect();
        Ok(all?.concat())
    };
    let old = authority().unwrap();
    client.start_writing().unwrap();
    namespace.kubectl(&[&["delete", "secret"], &secrets[..]].concat(), "").unwrap();
    eventually("other certificates", SOON, || Ok((authority()? != old).then_some(()))).unwrap();
    let told = set.told("AuthorityMadeAnew", SOON).unwrap();
    assert!(told.contains("the Secret quickstart-ca was gone"), "{told}");

    // The kubelets bring them to the pods within some 90 s; at once when a pod changes, and nobody wants to wait.
    let selector = ["annotate", "pods", "-l", "pgconvoy.dev/set=quickstart", "example.org/touched=yes"];
    namespace.kubectl(&selector, "").unwrap();
    for member in pods.keys() {
        let path = "jsonpath={.data.ca\\.crt}";
        let new = namespace.kubectl(&["get", "secret", &format!("{member}-tls"), "-o", path], "").unwrap();
        let there = format!("test $(base64 -w 0 /etc/pgconvoy/tls/ca.crt) = {new}");
        eventually(&format!("new certificates in {member}"), LATER, || Ok(inside(&set, member, &there).then_some(())))
            .unwrap();
    }
    // Everybody trusts the new ones alone: long enough for who does not to be missed.
    std::thread::sleep(Duration::from_secs(5));
    set.ready(3, SOON).unwrap();
    assert_eq!(set.pods().unwrap(), pods);
    // What comes now has nothing but the new ones, and is let in.
    let follower = set.followers().unwrap().remove(0);
    let after: Vec<_> = pods.keys().map(|m| client.postmaster_start(m).unwrap()).collect();
    assert_eq!(after, since, "PostgreSQL was restarted");
    let gone = pods.remove(&follower);
    namespace.kubectl(&["delete", "pod", &follower, "--wait=false"], "").unwrap();
    eventually("another pod", SOON, || Ok((set.pods()?.get(&follower) != gone.as_ref()).then_some(()))).unwrap();
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    assert_eq!(set.epoch().unwrap(), epoch);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn wall_clocks_may_step() {
    let namespace = with_operator("clock").unwrap();
    let stepping = Stepping::begin(namespace.cluster()).unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, pods, leader) = (set.epoch().unwrap(), set.pods().unwrap(), set.leader().unwrap());
    let since = || pods.keys().map(|m| client.postmaster_start(m).unwrap()).collect::<Vec<_>>();
    let started = since();
    let followers = set.followers().unwrap();
    for member in pods.keys() {
        assert!(stepping.reaches(&set, member, "agent").unwrap(), "the agent of {member} has the kernel's clock");
    }
    client.start_writing().unwrap();
    // Certificates begin an hour before they are made, so no further back than that.
    let (hour, minute) = (3600, 60);
    for steps in [[hour, 0, 0], [hour, -50 * minute, 300 * 24 * hour], [-50 * minute, hour, -5], [0, 0, 0]] {
        for (member, seconds) in [&leader, &followers[0], &followers[1]].into_iter().zip(steps) {
            step(&set, member, seconds).unwrap();
            let ahead =
                client.sql(Door::Member(member), "select extract(epoch from clock_timestamp())::bigint").unwrap();
            let true_time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let ahead = ahead.parse::<i64>().unwrap() - i64::try_from(true_time.as_secs()).unwrap();
            assert!((ahead - seconds).abs() < 20, "{member} is {ahead} s ahead, not {seconds}: nothing is tested here");
        }
        let before = client.written().unwrap();
        std::thread::sleep(Duration::from_secs(7));
        assert!(client.written().unwrap() > before + 10, "after {steps:?} nothing is written");
        set.ready(3, SOON).unwrap();
        assert_eq!((set.epoch().unwrap(), set.leader().unwrap()), (epoch, leader.clone()), "after {steps:?}");
    }
    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    assert_eq!((since(), set.pods().unwrap()), (started, pods));
    drop(stepping);
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn data_that_is_not_this_sets_is_left_alone_and_named() {
    let namespace = with_operator("foreign").unwrap();
    let set = namespace.example("two-members.yaml", "pair").unwrap();
    set.ready(2, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    client.sql(Door::Writes, "create table kept (n int); insert into kept values (1)").unwrap();
    let follower = set.followers().unwrap().remove(0);
    // As if somebody had put a data directory of their own there.
    assert!(inside(&set, &follower, "rm /var/lib/pgconvoy/pgdata/pgconvoy.json"));
    namespace.kubectl(&["delete", "pod", &follower, "--wait=false"], "").unwrap();
    let words = [follower.as_str(), "a PostgreSQL 17 data directory that pgconvoy did not make; it is left alone"];
    println!("{}", set.says("Stalled", "True", "MemberFailed", &words, LATER).unwrap());
    assert!(set.told("MemberFailed", SOON).unwrap().contains("did not make"));
    assert!(inside(&set, &follower, "test -s /var/lib/pgconvoy/pgdata/global/pg_control"), "it was not left alone");

    // Another volume, as the sentence says. Of three members that is all (`skeleton.rs`); of two, the only copy that
    // commits waited for was on it.
    let claim = format!("{follower}-data");
    namespace.kubectl(&["delete", "pvc", &claim, "--wait=false"], "").unwrap();
    namespace.kubectl(&["delete", "pod", &follower, "--wait=false"], "").unwrap();
    let words = ["writes wait", &format!("the data that {follower} had is gone"), "kubectl pgconvoy takeover"];
    println!("{}", set.says("Stalled", "True", "CopiesLost", &words, LATER).unwrap());
    set.says("Ready", "False", "CopiesLost", &words, SOON).unwrap();
    assert_eq!(client.sql(Door::Member(&follower), "select count(*) from kept").unwrap(), "1");
    let insert = r#"timeout 4 psql "$URI" -Xqc "insert into kept values (2)""#;
    assert!(!client.shell(insert, &[], "").unwrap().ok, "a commit that nobody else holds was acknowledged");
    assert!(client.sql(Door::Writes, "select count(*) from kept").is_ok());

    // A person lets that copy go; the leader has everything, so nothing is lost.
    let epoch = set.epoch().unwrap();
    let request = format!(
        "{{apiVersion: pgconvoy.dev/v1alpha1, kind: PgRequest, metadata: {{name: let-go}}, \
         spec: {{set: pair, takeover: {{epoch: {epoch}, acceptLoss: true}}}}}}"
    );
    namespace.kubectl(&["apply", "-f", "-"], &request).unwrap();
    client
        .gives(
            Door::Writes,
            "insert into kept values (3); select count(distinct n) filter (where n in (1, 3)) from kept",
            "2",
            LATER,
        )
        .unwrap();
    set.ready(2, LATER).unwrap();
}

/// Every question about the server is still answered; only commits never end, and nothing can be written down.
#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_leader_whose_disk_hangs_is_replaced_and_comes_back() {
    let namespace = with_operator("hung").unwrap();
    let volumes = SmallVolumes::make(&namespace, 400).unwrap();
    let storage = json!({ "members": 3, "storage": { "size": "400Mi", "storageClassName": volumes.class } });
    let set = namespace.apply("hung", &storage).unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let node = namespace.get(&["pod", &leader]).unwrap()["spec"]["nodeName"].as_str().unwrap().to_owned();
    client.start_writing().unwrap();
    volumes.freeze(&node).unwrap();
    let begin = Instant::now();
    eventually("a later epoch", LATER, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    let before = client.written().unwrap();
    eventually("writes in it", LATER, || Ok((client.written()? > before + 5).then_some(())))
        .unwrap_or_else(|error| panic!("{error:#}; writes failed with:\n{}", client.errors()));
    let seconds = begin.elapsed().as_secs_f64();
    assert_ne!(set.leader().unwrap(), leader);
    volumes.thaw(&node).unwrap();
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    println!("measured: leader's disk hangs: writes again after {seconds:.1} s; {tally:?}");
    assert_eq!(tally.lost, 0, "{tally:?}");
}
