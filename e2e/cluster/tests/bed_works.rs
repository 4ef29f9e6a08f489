//! A cluster is a Kubernetes, and when it is gone nothing of it is left.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

mod common;

use common::{SOON, answers, eventually, node_ready, pod, ready, server};
use pgconvoy_cluster::{Cluster, mark};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

/// What must stay as it is in the machine's own network: links, addresses, routes, rules, packet filters, settings.
fn own_network() -> String {
    let script = "ip -o link | cut -d: -f2; ip -o addr | cut -d' ' -f2-7; ip route show table all; ip rule; nft list ruleset; \
                  cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/forwarding /proc/sys/vm/overcommit_memory \
                  /proc/sys/kernel/panic /proc/sys/kernel/panic_on_oops /proc/sys/kernel/keys/root_maxkeys";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Namespaces (kind and inode) that a process is in.
fn namespaces_of(pid: i32) -> impl Iterator<Item = String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/ns")).into_iter().flatten().flatten();
    links.filter_map(|link| Some(std::fs::read_link(link.path()).ok()?.display().to_string()))
}

fn all_pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Namespaces that somebody is in or that are mounted somewhere.
fn namespaces() -> BTreeSet<String> {
    let mut found: BTreeSet<_> = all_pids().into_iter().flat_map(namespaces_of).collect();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(
        table.lines().filter(|l| l.contains(" - nsfs ")).filter_map(|l| l.split(' ').nth(3)).map(str::to_owned),
    );
    found
}

#[test]
#[ignore = "brings up a cluster, as root: ./test runs it"]
fn a_cluster_is_a_kubernetes_and_leaves_nothing() {
    let (network, before) = (own_network(), namespaces());
    let begin = Instant::now();
    let cluster = Cluster::up(&format!("works{}", std::process::id()), &common::options()).unwrap();
    println!("measured: three nodes Ready after {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(own_network(), network, "the machine's own network has changed");

    pods_and_services(&cluster);
    volumes(&cluster);
    an_image_of_ones_own(&cluster);
    custom_resources(&cluster);
    #[cfg(feature = "client")]
    a_client_reaches_it(&cluster);
    what_is_wrong_is_said(&cluster);

    // What belongs to it, seen from outside: everything in namespaces that only its processes are in.
    let processes = mark::processes(cluster.folder());
    assert!(processes.len() > 15, "{processes:?}");
    let init = processes.iter().find(|p| p.part == "n1" && p.program == "kcluster").unwrap();
    let of_node: BTreeSet<_> = namespaces_of(init.pid).collect();
    let own: BTreeSet<_> = namespaces().difference(&before).cloned().collect();
    assert!(of_node.iter().filter(|n| own.contains(*n)).count() >= 4, "net, mnt, pid, ipc, uts of n1: {of_node:?}");
    let containers = all_pids().into_iter().filter(|pid| namespaces_of(*pid).any(|n| own.contains(&n))).count();
    assert!(containers > processes.len(), "{containers} processes in its namespaces");
    let traces = cluster.traces().unwrap();
    for kind in ["process", "mount", "control group", "directory"] {
        assert!(traces.iter().any(|t| t.starts_with(kind)), "no {kind} in {traces:?}");
    }

    let begin = Instant::now();
    cluster.down(false).unwrap();
    println!("measured: down after {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(cluster.traces().unwrap(), Vec::<String>::new());
    assert_eq!(own_network(), network);
    // The kernel takes a moment for a dead process's namespaces.
    let nodes_own: BTreeSet<_> = of_node.intersection(&own).cloned().collect();
    eventually("its namespaces end", SOON, || namespaces().is_disjoint(&nodes_own));
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(&format!("{}/", cluster.folder().display())), "{table}");
}

fn pods_and_services(cluster: &Cluster) {
    for node in ["n1", "n2", "n3"] {
        assert!(node_ready(cluster, node), "{node}");
        let script = format!("echo I am on {node}; exec sleep infinity");
        cluster.kubectl(&["create", "-f", "-"], &pod(&format!("on-{node}"), node, &script)).unwrap();
    }
    cluster.kubectl(&["create", "-f", "-"], &server("db", "n3")).unwrap();
    cluster.kubectl(&["expose", "pod", "db", "--port=5432"], "").unwrap();
    for node in ["n1", "n2", "n3"] {
        let name = format!("on-{node}");
        ready(cluster, &name);
        assert_eq!(cluster.kubectl(&["logs", &name], "").unwrap(), format!("I am on {node}\n"));
        assert_eq!(cluster.kubectl(&["exec", "-i", &name, "--", "cat"], "through").unwrap(), "through");
    }
    ready(cluster, "db");
    for node in ["n1", "n2", "n3"] {
        // By name: DNS, Service and the way between nodes.
        let name = format!("on-{node}");
        eventually("the Service answers", SOON, || answers(cluster, &name, "db.default.svc.cluster.local"));
    }
    // From outside, in the cluster's network, a pod's address.
    let address = common::address(cluster, "db");
    let open = cluster.inside(|| Ok(std::net::TcpStream::connect((address.as_str(), 5432)).is_ok())).unwrap();
    assert!(open, "{address}");
}

fn volumes(cluster: &Cluster) {
    let claim = r#"{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}"#;
    cluster.kubectl(&["create", "-f", "-"], claim).unwrap();
    let mut writer: serde_json::Value =
        serde_json::from_str(&pod("writer", "n2", "echo kept > /data/file; exec sleep infinity")).unwrap();
    writer["spec"]["volumes"] = serde_json::json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    writer["spec"]["containers"][0]["volumeMounts"] = serde_json::json!([{"name": "v", "mountPath": "/data"}]);
    cluster.kubectl(&["create", "-f", "-"], &writer.to_string()).unwrap();
    ready(cluster, "writer");
    let claim = cluster.get(&["pvc", "data"]).unwrap();
    assert_eq!(claim["status"]["phase"], "Bound");
    // It outlives its pod.
    cluster.kubectl(&["delete", "pod", "writer"], "").unwrap();
    writer["spec"]["containers"][0]["command"] = serde_json::json!(["sleep", "infinity"]);
    cluster.kubectl(&["create", "-f", "-"], &writer.to_string()).unwrap();
    ready(cluster, "writer");
    assert_eq!(cluster.kubectl(&["exec", "writer", "--", "cat", "/data/file"], "").unwrap(), "kept\n");
}

/// Made of a directory, put on all nodes, run on one.
fn an_image_of_ones_own(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let (source, root) = (folder.path().join("own.c"), folder.path().join("root"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { puts(\"of my own\"); return 0; }\n").unwrap();
    let status = Command::new("gcc").arg("-static").arg("-o").arg(root.join("own")).arg(&source).status().unwrap();
    assert!(status.success());
    let begin = Instant::now();
    cluster.load_root("docker.io/local/own:1", &root, &["--entrypoint", "/own"]).unwrap();
    println!("measured: a small image on three nodes after {:.1} s", begin.elapsed().as_secs_f64());
    let run = ["run", "own", "--image=docker.io/local/own:1", "--image-pull-policy=Never", "--restart=Never"];
    cluster.kubectl(&run, "").unwrap();
    cluster.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", "pod/own"], "").unwrap();
    assert_eq!(cluster.kubectl(&["logs", "own"], "").unwrap(), "of my own\n");
    assert!(cluster.load(&[source]).is_err(), "that was no image");
}

fn custom_resources(cluster: &Cluster) {
    let definition = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object",
                "properties": {"size": {"type": "integer"}, "color": {"type": "string"}},
                "x-kubernetes-validations": [
                    {"rule": "!has(oldSelf.size) || self.size >= oldSelf.size", "message": "it must not shrink"},
                    {"rule": "self.size < 10", "message": "it is too big"}]}}}}}]}}"#;
    cluster.kubectl(&["create", "-f", "-"], definition).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/things.example.org"], "").unwrap();
    let thing = |spec: &str| {
        format!(r#"{{"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {{"name": "t"}}, "spec": {spec}}}"#)
    };
    let apply = |manager: &str, spec: &str| {
        let manager = format!("--field-manager={manager}");
        cluster.try_kubectl(&["apply", "--server-side", &manager, "-f", "-"], &thing(spec)).unwrap()
    };
    let refused = apply("a", r#"{"size": 11}"#);
    assert!(!refused.ok && refused.stderr.contains("it is too big"), "{refused:?}");
    assert!(apply("a", r#"{"size": 3}"#).ok);
    let refused = apply("a", r#"{"size": 2}"#);
    assert!(!refused.ok && refused.stderr.contains("it must not shrink"), "{refused:?}");
    // Two appliers, each with fields of its own; a field of another's is a conflict.
    assert!(apply("b", r#"{"color": "red"}"#).ok);
    let refused = apply("b", r#"{"size": 4}"#);
    assert!(!refused.ok && refused.stderr.contains("conflict"), "{refused:?}");
    let seen = cluster.get(&["thing", "t"]).unwrap();
    assert_eq!((&seen["spec"]["size"], &seen["spec"]["color"]), (&3.into(), &"red".into()));
}

/// From outside of its network, by the library's runtime.
#[cfg(feature = "client")]
fn a_client_reaches_it(cluster: &Cluster) {
    use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
    let runtime = cluster.runtime().unwrap();
    let names = runtime.block_on(async {
        // Not on this thread, which is outside.
        let config = cluster.client().await.unwrap();
        let list = tokio::spawn(async move {
            let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
            Api::<DynamicObject>::all_with(config, &kind).list(&ListParams::default()).await.unwrap()
        });
        let list = list.await.unwrap();
        list.items.into_iter().filter_map(|n| n.metadata.name).collect::<Vec<_>>()
    });
    assert_eq!(names, ["n1", "n2", "n3"]);
}

fn what_is_wrong_is_said(cluster: &Cluster) {
    let again = Cluster::up(cluster.name(), &common::options()).unwrap_err().to_string();
    assert!(again.contains("is up already"), "{again}");
    assert!(cluster.is_up(), "who was refused took it away");
    assert!(cluster.node(4).unwrap_err().to_string().contains("has nodes n1 to n3"));
    assert!(cluster.pid("default", "no-such", None).is_err());
}
