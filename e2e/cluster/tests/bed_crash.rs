//! Who brought a cluster up may be killed: the next one takes it away, and no other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

mod common;

use common::{SOON, eventually, pod, ready};
use pgconvoy_cluster::{Cluster, Options, build};
use std::process::{Child, Command, Stdio};

/// `kcluster` itself, as an own process.
fn kcluster(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kcluster"));
    command.args(["--name", name]).args(words).stdin(Stdio::null());
    command
}

/// Somebody who owns a cluster.
fn owner() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

fn up(name: &str, owner: &Child) {
    let status = kcluster(name, &["up", "--nodes", "1", "--owner", &owner.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "brings up clusters, as root: ./test runs it"]
fn abandoned_clusters_are_taken_away_and_no_others() {
    let id = std::process::id();
    let [left, half, other, next] = ["left", "half", "other", "next"].map(|n| format!("{n}{id}"));
    let [left, half, other] = [left, half, other].map(|n| Cluster::named(&n).unwrap());
    build::all(left.store(), &common::options().kubernetes).unwrap();

    // Two at once, which do not disturb each other.
    let (mut dies, mut lives) = (owner(), owner());
    std::thread::scope(|scope| {
        scope.spawn(|| up(left.name(), &dies));
        up(other.name(), &lives);
    });
    for (cluster, text) in [(&left, "left"), (&other, "other")] {
        let script = format!("echo {text}; exec sleep infinity");
        cluster.kubectl(&["create", "-f", "-"], &pod("p", "n1", &script)).unwrap();
        ready(cluster, "p");
    }
    for (cluster, text) in [(&left, "left\n"), (&other, "other\n")] {
        assert_eq!(cluster.kubectl(&["logs", "p"], "").unwrap(), text);
        assert_eq!(cluster.get(&["pods"]).unwrap()["items"].as_array().unwrap().len(), 1);
    }
    let pod_of_other = other.pid("default", "p", None).unwrap();

    // One is killed in the middle of bringing another up.
    let mut raising = kcluster(half.name(), &["up", "--nodes", "1"]);
    raising.args(["--owner", &dies.id().to_string()]);
    let mut raising = raising.spawn().unwrap();
    eventually("it is half up", SOON, || half.traces().unwrap().iter().any(|t| t.contains("etcd")));
    raising.kill().unwrap();
    raising.wait().unwrap();
    dies.kill().unwrap();
    dies.wait().unwrap();
    assert!(!left.traces().unwrap().is_empty() && !half.traces().unwrap().is_empty(), "too early");

    // Whoever comes next clears up after them.
    let cluster = Cluster::up(&next, &Options { nodes: 1, ..common::options() }).unwrap();
    for gone in [&left, &half] {
        assert_eq!(gone.traces().unwrap(), Vec::<String>::new(), "{}", gone.name());
    }
    assert!(cluster.is_up() && other.is_up());
    assert_eq!(other.pid("default", "p", None).unwrap(), pod_of_other, "a pod of another cluster was touched");

    // By name it goes, too, whoever has it.
    assert!(kcluster(other.name(), &["down"]).status().unwrap().success());
    assert_eq!(other.traces().unwrap(), Vec::<String>::new());
    assert!(cluster.is_up());
    lives.kill().unwrap();
    lives.wait().unwrap();
    let name = cluster.name().to_owned();
    drop(cluster);
    assert_eq!(Cluster::named(&name).unwrap().traces().unwrap(), Vec::<String>::new());
}
