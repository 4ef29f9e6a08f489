//! What a set cannot run with is said in a sentence on the set itself, soon; what runs goes on; and a mended spec is enough.
//! (What the API server refuses at once: `crd_rules.rs`.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Door, Namespace, Set, with_operator};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For what takes one start of a member. (The aim for a sentence is 10 s; what is measured is printed.)
const SOON: Duration = Duration::from_secs(60);
/// For what takes several.
const LATER: Duration = Duration::from_secs(120);

fn parameter(name: &str, value: &str) -> Value {
    json!({ "postgresql": { "parameters": { name: value } } })
}

fn hba(line: &str) -> Value {
    json!({ "postgresql": { "hba": [line] } })
}

/// What PostgreSQL refuses, and what is said of it.
fn refused() -> [(&'static str, Value, &'static str); 5] {
    [
        ("unknown", parameter("wrok_mem", "4MB"), "unrecognized configuration parameter \"wrok_mem\""),
        ("value", parameter("work_mem", "4XB"), "invalid value for parameter \"work_mem\": \"4XB\""),
        ("memory", parameter("shared_buffers", "900GB"), "lower it, or raise resources.limits.memory"),
        ("form", hba("hostssl all all all scram"), "names no authentication method that PostgreSQL knows"),
        ("line", hba("hostssl all all 1.2.3.4/99 scram-sha-256"), "invalid CIDR mask in address \"1.2.3.4/99\""),
    ]
}

/// Ready, Stalled and `kubectl get` all say why this set does not come; an Event, too. Gives the message of Stalled.
fn stalled(set: &Set<'_>, reason: &str, words: &[&str]) -> String {
    let message = set.says("Stalled", "True", reason, words, SOON).unwrap();
    set.says("Ready", "False", reason, words, SOON).unwrap();
    set.says("Configured", "False", reason, &[], SOON).unwrap();
    let listed = set.listed().unwrap();
    assert!(listed.contains(reason), "{listed}");
    let told = set.told(reason, SOON).unwrap();
    assert!(words.iter().all(|w| told.contains(w)), "{told}");
    message
}

/// A set of one member is Ready and serves.
fn serves(namespace: &Namespace, name: &str) {
    let set = Set { namespace, name: name.to_owned() };
    set.ready(1, LATER).unwrap();
    set.says("Stalled", "False", "AsExpected", &[], SOON).unwrap();
    set.says("Configured", "True", "InForce", &[], SOON).unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_new_set_says_why_postgresql_refuses_its_configuration() {
    let namespace = with_operator("config").unwrap();
    for (name, changes, words) in refused() {
        let begin = Instant::now();
        let set = namespace.apply(name, &changes).unwrap();
        if name == "line" {
            // PostgreSQL itself must read it, so it runs: with the line for clients that is the default.
            set.says("Configured", "False", "ConfigurationRefused", &[words], SOON).unwrap();
        } else {
            set.says("Stalled", "True", "ConfigurationRefused", &[words], SOON).unwrap();
        }
        println!("measured: {name}: kubectl apply until the set says why: {:.1} s", begin.elapsed().as_secs_f64());
    }
    // Long enough for a pod that is made again and again to show.
    std::thread::sleep(Duration::from_secs(5));
    for (name, changes, words) in refused().into_iter().filter(|(name, ..)| *name != "line") {
        let set = Set { namespace: &namespace, name: name.to_owned() };
        let message = stalled(&set, "ConfigurationRefused", &[words]);
        println!("{name}: {message}");
        let (pods, pod) = (set.pods().unwrap(), format!("{name}-1"));
        assert_eq!(set.restarts(&pod, "agent").unwrap() + set.restarts(&pod, "postgres").unwrap(), 0);
        // Mended, it comes by itself, in the same pod.
        let field = if changes["postgresql"]["hba"].is_null() { "parameters" } else { "hba" };
        set.patch(&json!({ "postgresql": { field: null } })).unwrap();
        serves(&namespace, name);
        assert_eq!(set.pods().unwrap(), pods);
    }
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_running_set_goes_on_whatever_its_spec_says() {
    let namespace = with_operator("running").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    // So that it is seen what the spec alone does: a roll-out is another matter.
    set.patch(&json!({ "update": { "strategy": "Manual" } })).unwrap();
    let (pods, epoch) = (set.pods().unwrap(), set.epoch().unwrap());
    let since: Vec<_> = pods.keys().map(|m| client.postmaster_start(m).unwrap()).collect();
    client.start_writing().unwrap();

    for (name, changes, words) in refused() {
        set.patch(&changes).unwrap();
        let said = set.says("Configured", "False", "ConfigurationRefused", &[words, "goes on with the last"], SOON);
        println!("{name}: {}", said.unwrap());
        set.says("Ready", "True", "AllMembersAttached", &[], SOON).unwrap();
        set.patch(&json!({ "postgresql": null })).unwrap();
        set.says("Configured", "True", "InForce", &[], SOON).unwrap();
    }
    assert!(set.told("ConfigurationRefused", SOON).unwrap().contains("PostgreSQL refuses the configuration"));
    // The next good one is taken; what wants a restart is said.
    set.patch(&json!({ "postgresql": { "parameters": { "work_mem": "5MB", "max_connections": 110 } } })).unwrap();
    let words = ["max_connections", "quickstart-1, quickstart-2, quickstart-3", "delete these pods one at a time"];
    println!("{}", set.says("Configured", "False", "RestartRequired", &words, SOON).unwrap());
    client.gives(Door::Writes, "show work_mem", "5MB", SOON).unwrap();

    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
    assert_eq!((set.pods().unwrap(), set.epoch().unwrap()), (pods.clone(), epoch));
    let after: Vec<_> = pods.keys().map(|m| client.postmaster_start(m).unwrap()).collect();
    assert_eq!(after, since, "PostgreSQL was restarted");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn an_image_of_another_major_is_refused_by_the_member_that_gets_it() {
    let namespace = with_operator("major").unwrap();
    // A name that does not tell, so that the API server cannot refuse it.
    for node in namespace.cluster().bed().nodes().unwrap() {
        let tag = ["images", "tag", "--force", "docker.io/library/postgres:15", "docker.io/local/db:1"];
        node.run(&[&["ctr", "-n", "k8s.io"], &tag[..]].concat(), "").unwrap().success().unwrap();
    }
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (leader, pods) = (set.leader().unwrap(), set.pods().unwrap());
    client.start_writing().unwrap();
    set.patch(&json!({ "image": "docker.io/local/db:1" })).unwrap();
    // The roll-out begins with a follower, and goes no further.
    let words = ["PostgreSQL 15", "holds data of PostgreSQL 17", "name one in spec.image"];
    let said = set.says("Stalled", "True", "ImageUnusable", &words, LATER).unwrap();
    println!("{said}");
    let tried = said.split(':').next().unwrap().to_owned();
    assert!(pods.contains_key(&tried) && tried != leader, "{tried}");
    std::thread::sleep(Duration::from_secs(5));
    let now = set.pods().unwrap();
    for (pod, uid) in pods.iter().filter(|(pod, _)| **pod != tried) {
        assert_eq!(now.get(pod), Some(uid), "{pod} was made anew though {tried} did not come");
    }
    assert_eq!(set.leader().unwrap(), leader);
    // The old image again, and the member comes back with its data.
    let rule = set.rule().unwrap();
    set.patch(&json!({ "image": "docker.io/library/postgres:17" })).unwrap();
    set.ready(3, LATER).unwrap();
    assert_eq!(set.rule().unwrap(), rule);
    let tally = client.stop_writing().unwrap();
    assert_eq!((tally.failed, tally.lost), (0, 0), "{tally:?}");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn an_image_that_cannot_run_is_named_and_a_better_one_is_enough() {
    let namespace = with_operator("image").unwrap();
    // A registry that refuses at once.
    let missing = "localhost:1/postgres:17.99";
    let absent = json!({ "image": missing, "imagePullPolicy": "IfNotPresent" });
    let never = json!({ "image": missing, "imagePullPolicy": "Never" });
    let nothing = json!({ "image": "docker.io/local/nothing:1", "imagePullPolicy": "Never" });
    let [absent, never, nothing] = [("absent", absent), ("never", never), ("nothing", nothing)]
        .map(|(name, changes)| namespace.apply(name, &changes).unwrap());
    let begin = Instant::now();
    let pull = format!("the PostgreSQL image {missing} cannot be pulled");
    println!("{}", stalled(&never, "ImageUnusable", &["never-1", &pull]));
    println!("{}", stalled(&nothing, "ImageUnusable", &["nothing-1", "holds no PostgreSQL", "name one in spec.image"]));
    // A registry may come back, so the set waits for that and for a person alike.
    println!("{}", absent.says("Ready", "False", "ImageUnusable", &["absent-1", &pull], SOON).unwrap());
    absent.says("Stalled", "False", "AsExpected", &[], SOON).unwrap();
    assert!(absent.listed().unwrap().contains("ImageUnusable"));
    assert!(absent.told("ImageUnusable", SOON).unwrap().contains(&pull));
    println!("measured: sets with bad images applied until all three say so: {:.1} s", begin.elapsed().as_secs_f64());

    for set in [&absent, &never, &nothing] {
        set.patch(&json!({ "image": "docker.io/library/postgres:17" })).unwrap();
    }
    for set in [&absent, &never, &nothing] {
        serves(&namespace, &set.name);
    }
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_storage_class_that_is_not_there_is_named_and_may_come_later() {
    let namespace = with_operator("class").unwrap();
    let class = format!("late-{}", std::process::id());
    let set = namespace.apply("class", &json!({ "storage": { "storageClassName": class } })).unwrap();
    let words = ["class-1", "class-1-data", &format!("there is no storage class {class}"), "kubectl get storageclass"];
    println!("{}", stalled(&set, "NoStorageClass", &words));
    let object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": class },
        "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
    });
    namespace.kubectl(&["create", "-f", "-"], &object.to_string()).unwrap();
    serves(&namespace, "class");
    namespace.kubectl(&["delete", "storageclass", &class], "").unwrap();
}
