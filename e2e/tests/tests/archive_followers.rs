//! A follower without data comes from the archive, and the members serve no copy for it; where the archive does not give it, it
//! comes from a member, and says why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Bucket, Client, Door, Namespace, Set, eventually, with_operator};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);

/// A set of three that archives, and logs what is asked of it on replication connections; with a snapshot `first` behind some data.
fn archiving<'a>(namespace: &'a Namespace) -> Set<'a> {
    let spec = json!({
        "members": 3, "archive": { "ref": { "name": "s3" } },
        "postgresql": { "parameters": { "log_replication_commands": "on" } },
    });
    let set = namespace.apply("orders", &spec).unwrap();
    set.ready(3, LATER).unwrap();
    set.says("Archiving", "True", "Archiving", &[], SOON).unwrap();
    set
}

fn snapshot(namespace: &Namespace, name: &str) {
    let object = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshot", "metadata": { "name": name }, "spec": { "set": "orders" },
    });
    namespace.kubectl(&["create", "-f", "-"], &object.to_string()).unwrap();
    let taken = eventually("a snapshot", LATER, || {
        let status = namespace.get(&["pgsnap", name])?["status"].clone();
        assert_ne!(status["phase"], "Failed", "{status}");
        Ok((status["phase"] == "Completed").then_some(status))
    })
    .unwrap();
    println!("measured: {taken}");
}

/// How many base backups each member was asked for so far. Its pod must not have been made anew meanwhile.
fn copies(set: &Set<'_>) -> BTreeMap<String, usize> {
    let count = |pod: &String| {
        let log = set.namespace.kubectl(&["logs", pod, "-c", "postgres"], "").unwrap();
        log.lines().filter(|l| l.contains("BASE_BACKUP")).count()
    };
    set.pods().unwrap().into_keys().map(|pod| (pod.clone(), count(&pod))).collect()
}

/// Takes a follower's volume and pod away, waits until it is back, and says by which way it came.
fn lose_volume(set: &Set<'_>, client: &Client<'_>, follower: &str) -> Vec<String> {
    let namespace = set.namespace;
    let before = set.pods().unwrap()[follower].clone();
    let told = ways(set, follower);
    namespace.kubectl(&["delete", "pvc", &format!("{follower}-data"), "--wait=false"], "").unwrap();
    namespace.kubectl(&["delete", "pod", follower, "--wait=false"], "").unwrap();
    eventually("another pod", LATER, || Ok(set.pods()?.get(follower).is_some_and(|uid| *uid != before).then_some(())))
        .unwrap();
    back(set, client, follower, &told)
}

/// Waits until a member has everything, and says by which ways it came, those told before aside.
fn back(set: &Set<'_>, client: &Client<'_>, member: &str, told: &[String]) -> Vec<String> {
    let wanted = client.sql(Door::Writes, "insert into mark values (default) returning n").unwrap();
    let wanted = wanted.lines().next().unwrap().to_owned();
    client.gives(Door::Member(member), "select max(n) from mark", &wanted, LATER).unwrap();
    let now = ways(set, member);
    let now: Vec<String> = now.into_iter().filter(|m| !told.contains(m)).collect();
    println!("measured: {now:?}");
    now
}

/// What the Events say of the ways by which a member came to its data.
fn ways(set: &Set<'_>, member: &str) -> Vec<String> {
    let events = set.namespace.get(&["events", "--field-selector=reason=CatchingUp"]).unwrap();
    let messages = events["items"].as_array().into_iter().flatten().filter_map(|e| e["message"].as_str());
    let prefix = format!("{member}: ");
    messages.filter_map(|m| m.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// What a member holds.
fn holds(client: &Client<'_>, member: &str) -> String {
    let sql = "select count(*), sum(n), (select md5(string_agg(t::text, ',' order by i)) from filled t) from writes";
    client.sql(Door::Member(member), sql).unwrap()
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_follower_that_lost_its_volume_and_a_new_one_come_from_the_archive_and_nobody_is_asked_for_a_copy() {
    let namespace = with_operator("archive-followers").unwrap();
    let _bucket = Bucket::start(&namespace).unwrap();
    let set = archiving(&namespace);
    let client = Client::start(&set).unwrap();
    client.sql(Door::Writes, "create table mark (n serial); create table filled as select i, md5(i::text) from generate_series(1, 50000) i").unwrap();
    client.start_writing().unwrap();
    snapshot(&namespace, "first");
    // The log behind it goes over to another epoch.
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let kill = "kill -9 $(head -n 1 /var/lib/pgconvoy/pgdata/postmaster.pid)";
    namespace.kubectl(&["exec", &leader, "-c", "postgres", "--", "sh", "-c", kill], "").unwrap();
    eventually("a later epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    set.ready(3, LATER).unwrap();
    client.does("update filled set md5 = md5(md5) where i % 3 = 0", SOON).unwrap();
    set.says("Archiving", "True", "Archiving", &[], SOON).unwrap();

    let before = copies(&set);
    assert!(before.values().sum::<usize>() >= 2, "the first followers were copied from members: {before:?}");
    let follower = set.followers().unwrap().remove(0);
    let incarnation = set.member(&follower).unwrap()["incarnation"].clone();
    let told = lose_volume(&set, &client, &follower);
    assert!(told.iter().all(|t| t.starts_with("restoring snapshot first, ")) && !told.is_empty(), "{told:?}");
    assert_ne!(set.member(&follower).unwrap()["incarnation"], incarnation, "other data has another name");
    set.ready(3, LATER).unwrap();

    set.patch(&json!({ "members": 4 })).unwrap();
    set.ready(4, LATER).unwrap();
    let told = back(&set, &client, "orders-4", &[]);
    assert!(told.iter().all(|t| t.starts_with("restoring snapshot first, ")) && !told.is_empty(), "{told:?}");

    let mut after = copies(&set);
    for new in [follower.as_str(), "orders-4"] {
        assert_eq!(after.remove(new), Some(0), "{new} was asked for a copy");
    }
    for (member, count) in &after {
        assert_eq!(before.get(member), Some(count), "{member} was asked for a copy: {before:?}, {after:?}");
    }
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
    let last = client.sql(Door::Writes, "insert into mark values (default) returning n").unwrap();
    let wanted = holds(&client, &set.leader().unwrap());
    for new in [follower.as_str(), "orders-4"] {
        client.gives(Door::Member(new), "select max(n) from mark", last.lines().next().unwrap(), SOON).unwrap();
        assert_eq!(holds(&client, new), wanted, "{new}");
    }
    println!("measured: {tally:?}; {wanted}");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn where_the_archive_does_not_give_it_a_follower_is_copied_and_says_why() {
    let namespace = with_operator("archive-broken").unwrap();
    let bucket = Bucket::start(&namespace).unwrap();
    let set = archiving(&namespace);
    let client = Client::start(&set).unwrap();
    client.sql(Door::Writes, "create table mark (n serial); create table writes (n int); create table filled as select i from generate_series(1, 1000) i").unwrap();
    let follower = set.followers().unwrap().remove(0);
    let others = |copies: BTreeMap<String, usize>| -> usize {
        copies.into_iter().filter(|(m, _)| *m != follower).map(|(_, n)| n).sum()
    };

    let before = others(copies(&set));
    let told = lose_volume(&set, &client, &follower);
    assert!(told.iter().any(|t| t.starts_with("copying from") && t.contains("there is no snapshot")), "{told:?}");
    set.ready(3, LATER).unwrap();
    assert_eq!(others(copies(&set)), before + 1);

    // A part of the snapshot is gone: what is damaged is not tried again.
    snapshot(&namespace, "first");
    let parts = bucket.system("orders").unwrap().join("snapshots/first/part");
    let part: PathBuf = std::fs::read_dir(&parts).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&part).unwrap();
    let told = lose_volume(&set, &client, &follower);
    assert!(told.iter().any(|t| t.starts_with("restoring snapshot first, ")), "{told:?}");
    let why = told.iter().find(|t| t.starts_with("copying from")).unwrap();
    assert!(why.contains("because restoring snapshot first failed (") && why.contains("it is missing"), "{why}");
    set.ready(3, LATER).unwrap();
    assert_eq!(others(copies(&set)), before + 2);

    // The store is away.
    namespace.kubectl(&["delete", "service", "s3"], "").unwrap();
    namespace.kubectl(&["delete", "pod", "s3", "--force", "--grace-period=0"], "").unwrap();
    let told = lose_volume(&set, &client, &follower);
    assert!(told.iter().any(|t| t.contains("because looking at the archive failed 3 times (")), "{told:?}");
    set.ready(3, LATER).unwrap();
    assert_eq!(others(copies(&set)), before + 3);
    let wanted = holds(&client, &set.leader().unwrap());
    assert_eq!(holds(&client, &follower), wanted);
}
