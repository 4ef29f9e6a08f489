//! What the tests of the test bed share.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test takes what it needs; to panic is how it fails"
)]

use pgconvoy_cluster::{Cluster, Options};
use std::time::{Duration, Instant};

/// For what takes one start of something, on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The options of everybody, with the Kubernetes that the environment names in `KCLUSTER_KUBERNETES`, if it does.
pub(crate) fn options() -> Options {
    let default = Options::default();
    Options { kubernetes: std::env::var("KCLUSTER_KUBERNETES").unwrap_or(default.kubernetes), ..default }
}

/// Looks five times a second until it is so; how long that took.
#[track_caller]
pub(crate) fn eventually(what: &str, within: Duration, mut look: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !look() {
        assert!(begin.elapsed() < within, "{what}: not within {} s", within.as_secs());
        std::thread::sleep(Duration::from_millis(200));
    }
    begin.elapsed()
}

/// A pod on a node that runs a shell script in the image of PostgreSQL.
pub(crate) fn pod(name: &str, node: &str, script: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{name}"}}}},
            "spec": {{"terminationGracePeriodSeconds": 1, "nodeSelector": {{"kubernetes.io/hostname": "{node}"}},
            "containers": [{{"name": "c", "image": "docker.io/library/postgres:17", "imagePullPolicy": "Never",
            "command": ["bash", "-c", {}], "securityContext": {{"runAsUser": 999}}}}]}}}}"#,
        serde_json::to_string(script).unwrap()
    )
}

/// A PostgreSQL that everyone may use, on a node.
pub(crate) fn server(name: &str, node: &str) -> String {
    let script = "initdb -D /tmp/data --auth=trust -N >/dev/null && echo 'host all all all trust' >> /tmp/data/pg_hba.conf \
                  && exec postgres -D /tmp/data -c fsync=off";
    pod(name, node, script)
}

/// Waits until a pod is Ready.
pub(crate) fn ready(cluster: &Cluster, pod: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", "pod", pod], "").unwrap();
}

/// A pod's address.
pub(crate) fn address(cluster: &Cluster, pod: &str) -> String {
    cluster.get(&["pod", pod]).unwrap()["status"]["podIP"].as_str().unwrap().to_owned()
}

/// Whether a query from a pod to a server is answered within 3 s.
pub(crate) fn answers(cluster: &Cluster, from: &str, host: &str) -> bool {
    let psql = format!("timeout 3 psql -h {host} -d postgres -XAtc 'select 40 + 2'");
    let output = cluster.try_kubectl(&["exec", from, "--", "bash", "-c", &psql], "").unwrap();
    output.ok && output.stdout.trim() == "42"
}

/// Whether a node is Ready.
pub(crate) fn node_ready(cluster: &Cluster, node: &str) -> bool {
    let path = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    cluster.try_kubectl(&["get", "node", node, path], "").is_ok_and(|o| o.stdout == "True")
}
