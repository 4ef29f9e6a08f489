//! Each fault acts, and heals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

mod common;

use common::{SOON, address, answers, eventually, node_ready, pod, ready, server};
use pgconvoy_cluster::{Cluster, Component, End, NodeService, Options};
use std::time::{Duration, Instant};

/// A silent node is NotReady after 12 s here.
const SILENT: Duration = Duration::from_secs(90);

#[test]
#[ignore = "brings up a cluster, as root: ./test runs it"]
fn each_fault_acts_and_heals() {
    // Pods stay where they are: here it is about nodes.
    let options = Options { toleration: Some(300), kubernetes: common::options().kubernetes, ..Options::impatient() };
    let cluster = Cluster::up(&format!("faults{}", std::process::id()), &options).unwrap();
    for node in ["n1", "n2", "n3"] {
        cluster.kubectl(&["create", "-f", "-"], &server(&format!("db-{node}"), node)).unwrap();
        let client = pod(&format!("on-{node}"), node, "exec sleep infinity");
        cluster.kubectl(&["create", "-f", "-"], &client).unwrap();
    }
    for node in ["n1", "n2", "n3"] {
        ready(&cluster, &format!("db-{node}"));
        ready(&cluster, &format!("on-{node}"));
    }
    for (name, fault) in [
        ("cut", cuts as fn(&Cluster)),
        ("one way", one_way),
        ("delay", delays),
        ("frozen container", frozen_container),
        ("killed container", killed_container),
        ("components", components),
        ("node services", node_services),
        ("silent nodes", silent_nodes),
        ("power", power),
        ("power of all", power_of_all),
    ] {
        let begin = Instant::now();
        fault(&cluster);
        println!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
    }
}

fn cuts(cluster: &Cluster) {
    let (two, three) = (address(cluster, "db-n2"), address(cluster, "db-n3"));
    eventually("all is well", SOON, || answers(cluster, "on-n1", &two) && answers(cluster, "on-n1", &three));
    cluster.cut(End::Node(1), End::Node(2)).unwrap();
    assert!(!answers(cluster, "on-n1", &two), "a packet passed");
    assert!(answers(cluster, "on-n1", &three), "another connection was cut");
    cluster.heal().unwrap();
    eventually("healed", SOON, || answers(cluster, "on-n1", &two));
    // Done twice it is no error.
    cluster.heal().unwrap();
}

/// Whether a node gets the first packet of a connection from another, to its kubelet.
fn arrives(cluster: &Cluster, from: u8, to: u8) -> bool {
    let address = format!("10.240.0.1{to}");
    let (from, to) = (cluster.node(from).unwrap(), cluster.node(to).unwrap());
    let connect = format!("exec 3<>/dev/tcp/{address}/10250; sleep 1");
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| from.run(&["timeout", "2", "bash", "-c", &connect], "").unwrap());
        let begin = Instant::now();
        let mut seen = false;
        while begin.elapsed() < Duration::from_millis(1500) && !seen {
            let list = "ss -Htan state established state syn-recv sport = :10250";
            let words: Vec<_> = list.split(' ').collect();
            let peer = from.name().replace('n', "10.240.0.1");
            seen = to.run(&words, "").unwrap().stdout.contains(&peer);
        }
        caller.join().unwrap();
        seen
    })
}

fn one_way(cluster: &Cluster) {
    assert!(arrives(cluster, 1, 2) && arrives(cluster, 2, 1));
    cluster.cut_one_way(End::Node(1), End::Node(2)).unwrap();
    assert!(!arrives(cluster, 1, 2), "a packet passed");
    assert!(arrives(cluster, 2, 1), "the other way was cut, too");
    cluster.heal().unwrap();
    assert!(arrives(cluster, 1, 2));
}

/// How long it takes to connect from one node to another's kubelet.
fn connect(cluster: &Cluster, from: u8, to: &str) -> Option<Duration> {
    let script = format!("date +%s%N; exec 3<>/dev/tcp/{to} && date +%s%N");
    let output = cluster.node(from).unwrap().run(&["timeout", "5", "bash", "-c", &script], "").unwrap();
    let times: Vec<u64> = output.stdout.lines().map(|l| l.parse().unwrap()).collect();
    (times.len() == 2).then(|| Duration::from_nanos(times[1] - times[0]))
}

fn delays(cluster: &Cluster) {
    let (kubelet, api) = ("10.240.0.12/10250", "10.240.0.1/6443");
    let none = Duration::ZERO;
    let (before, before_api) = (connect(cluster, 1, kubelet).unwrap(), connect(cluster, 1, api).unwrap());
    assert!(
        before < Duration::from_millis(100) && before_api < Duration::from_millis(100),
        "{before:?} {before_api:?}"
    );
    cluster.delay(End::Node(1), End::Node(2), Duration::from_millis(150), none, 0.0).unwrap();
    cluster.delay(End::Node(3), End::Api, Duration::from_millis(100), none, 0.0).unwrap();
    assert!(cluster.delay(End::Node(2), End::Node(1), none, none, 0.0).is_err(), "a second one in the same place");
    let (during, to_api) = (connect(cluster, 1, kubelet).unwrap(), connect(cluster, 3, api).unwrap());
    println!("measured: connect {before:?}, delayed by twice 150 ms {during:?}, to the API by twice 100 ms {to_api:?}");
    assert!(during > Duration::from_millis(300), "{during:?}");
    assert!(to_api > Duration::from_millis(200), "{to_api:?}");
    assert!(connect(cluster, 1, "10.240.0.13/10250").unwrap() < Duration::from_millis(100), "another connection waits");
    cluster.heal().unwrap();
    let after = connect(cluster, 1, kubelet).unwrap();
    assert!(after < Duration::from_millis(100), "{after:?}");

    cluster.delay(End::Node(1), End::Node(2), none, none, 100.0).unwrap();
    assert_eq!(connect(cluster, 1, kubelet), None, "everything is lost, and yet");
    cluster.heal().unwrap();
    assert!(connect(cluster, 1, kubelet).is_some());
}

fn frozen_container(cluster: &Cluster) {
    let address = address(cluster, "db-n2");
    assert!(answers(cluster, "on-n1", &address));
    cluster.freeze("default", "db-n2", Some("c")).unwrap();
    assert!(!answers(cluster, "on-n1", &address), "it answers");
    cluster.thaw("default", "db-n2", None).unwrap();
    eventually("thawed", SOON, || answers(cluster, "on-n1", &address));
    assert!(cluster.freeze("default", "db-n2", Some("other")).is_err());
}

fn restarts(cluster: &Cluster, pod: &str) -> i64 {
    cluster.get(&["pod", pod]).unwrap()["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap()
}

fn killed_container(cluster: &Cluster) {
    let before = restarts(cluster, "on-n3");
    let pid = cluster.pid("default", "on-n3", None).unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "sleep\n");
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
    let took = eventually("it starts again", SOON, || restarts(cluster, "on-n3") == before + 1);
    println!("measured: a killed container runs again after {:.1} s", took.as_secs_f64());
    ready(cluster, "on-n3");
}

fn components(cluster: &Cluster) {
    let works = || cluster.try_kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"], "").is_ok_and(|o| o.ok);
    for component in [Component::ApiServer, Component::Etcd] {
        cluster.kill(component).unwrap();
        // The API server looks after etcd once in a while and meanwhile says what it saw last.
        eventually(&format!("nothing works without {}", component.name()), SOON, || !works());
        assert!(cluster.kill(component).is_err(), "it was there twice");
        cluster.start_component(component).unwrap();
        let took = eventually("it works again", SOON, works);
        println!("measured: the API is back {:.1} s after {} was started", took.as_secs_f64(), component.name());
    }
    cluster.kill(Component::Scheduler).unwrap();
    let late = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late"}, "spec": {"containers":
        [{"name": "c", "image": "docker.io/local/nothing:1", "imagePullPolicy": "Never"}]}}"#;
    eventually("the pod is made", SOON, || cluster.try_kubectl(&["create", "-f", "-"], late).is_ok_and(|o| o.ok));
    std::thread::sleep(Duration::from_secs(3));
    assert!(cluster.get(&["pod", "late"]).unwrap()["spec"]["nodeName"].is_null(), "who gave it a node?");
    cluster.start_component(Component::Scheduler).unwrap();
    ready(cluster, "late");
}

fn node_services(cluster: &Cluster) {
    let node = cluster.node(1).unwrap();
    let postgres = cluster.pid("default", "db-n1", None).unwrap();
    node.kill(NodeService::Kubelet).unwrap();
    node.kill(NodeService::Containerd).unwrap();
    node.stop(NodeService::KubeProxy).unwrap();
    assert!(std::path::Path::new(&format!("/proc/{postgres}")).exists(), "the pod ended with containerd");
    // exec goes through both.
    let exec = || cluster.try_kubectl(&["exec", "on-n1", "--", "true"], "").is_ok_and(|o| o.ok);
    eventually("kubelet and containerd are back", SOON, exec);
    assert!(node.kill(NodeService::KubeProxy).is_err(), "a stopped one came back");
    node.start(NodeService::KubeProxy).unwrap();
    eventually("kube-proxy is back", SOON, || node.kill(NodeService::KubeProxy).is_ok());
    assert_eq!(cluster.pid("default", "db-n1", None).unwrap(), postgres, "the pod was started again");
}

fn silent_nodes(cluster: &Cluster) {
    // One hangs, one is cut off from the API: both look dead, at the same time.
    cluster.node(1).unwrap().freeze().unwrap();
    cluster.cut(End::Node(2), End::Api).unwrap();
    let took = eventually("the frozen node is NotReady", SILENT, || !node_ready(cluster, "n1"));
    println!("measured: a frozen node is NotReady after {:.1} s", took.as_secs_f64());
    eventually("the cut node is NotReady", SILENT, || !node_ready(cluster, "n2"));
    assert!(node_ready(cluster, "n3"));
    cluster.node(1).unwrap().thaw().unwrap();
    cluster.heal().unwrap();
    for node in ["n1", "n2"] {
        eventually("it is Ready again", SOON, || node_ready(cluster, node));
    }
}

fn power(cluster: &Cluster) {
    let node = cluster.node(2).unwrap();
    let postgres = cluster.pid("default", "db-n2", None).unwrap();
    // A frozen one loses its power as well; one of another node stays frozen.
    cluster.freeze("default", "db-n2", None).unwrap();
    cluster.freeze("default", "db-n3", None).unwrap();
    let begin = Instant::now();
    node.power_off().unwrap();
    println!("measured: a node's power is gone after {:.2} s", begin.elapsed().as_secs_f64());
    assert!(!answers(cluster, "on-n1", &address(cluster, "db-n3")), "it was thawed");
    cluster.thaw("default", "db-n3", None).unwrap();
    assert!(!node.is_on() && node.power_off().is_err() && node.run(&["true"], "").is_err());
    eventually("its pods end", Duration::from_secs(5), || !std::path::Path::new(&format!("/proc/{postgres}")).exists());
    eventually("it is NotReady", SILENT, || !node_ready(cluster, "n2"));
    node.power_on().unwrap();
    assert!(node.power_on().is_err(), "it is on twice");
    let took = eventually("it is Ready again", SOON, || node_ready(cluster, "n2"));
    println!("measured: a node is Ready {:.1} s after power is back", took.as_secs_f64());
    let address = || cluster.get(&["pod", "db-n2"]).unwrap()["status"]["podIP"].as_str().map(str::to_owned);
    eventually("its pods run again", SOON, || address().is_some_and(|a| answers(cluster, "on-n1", &a)));
}

fn power_of_all(cluster: &Cluster) {
    let options = cluster.options().unwrap();
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"], "").unwrap();
    cluster.down(true).unwrap();
    let traces = cluster.traces().unwrap();
    assert!(matches!(&traces[..], [one] if one.starts_with("directory")), "{traces:?}");
    let other = Options { nodes: 2, ..options.clone() };
    assert!(cluster.bring_up(&other).unwrap_err().to_string().contains("was kept with 3 nodes"));
    cluster.bring_up(&options).unwrap();
    assert_eq!(cluster.get(&["configmap", "kept"]).unwrap()["data"]["a"], "b");
}
