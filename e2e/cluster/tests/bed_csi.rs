//! Volumes of the CSI driver: attached, full, grown, snapshot, restored, cloned; on another node when theirs is lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

mod common;

use common::{eventually, pod, ready};
use pgconvoy_cluster::{Cluster, Options};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For what takes several steps of Kubernetes and of the sidecars.
const LONG: Duration = Duration::from_secs(120);

#[test]
#[ignore = "brings up a cluster, as root: ./test runs it"]
fn volumes_are_attached_grow_and_have_snapshots() {
    let options = Options { nodes: 2, csi: true, kubernetes: common::options().kubernetes, ..Options::impatient() };
    let mut cluster = Cluster::up(&format!("csi{}", std::process::id()), &options).unwrap();
    println!("measured: with a CSI driver {} MB", cluster.whole_usage().rss / 1024);
    let script = "echo one > /data/file; exec sleep infinity";
    claim(&cluster, "data", "320Mi", &Value::Null);
    with_claim(&cluster, "writer", "n1", "data", script);
    ready(&cluster, "writer");
    assert_eq!(cluster.get(&["pvc", "data"]).unwrap()["status"]["phase"], "Bound");

    grows(&cluster);
    snapshot_and_clone(&cluster);
    a_node_at_a_time(&cluster);
    survives_the_power_of_all(&mut cluster, &options);
    goes_with_its_claim(&cluster);

    cluster.down(false).unwrap();
    assert_eq!(cluster.traces().unwrap(), Vec::<String>::new());
}

/// Makes a claim; `source` is what it is made of.
fn claim(cluster: &Cluster, name: &str, size: &str, source: &Value) {
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name }, "spec": {
        "storageClassName": "csi-disk", "accessModes": ["ReadWriteOnce"], "dataSource": source,
        "resources": { "requests": { "storage": size } } } });
    cluster.kubectl(&["create", "-f", "-"], &claim.to_string()).unwrap();
}

/// A pod with that claim at /data; on no node of choice when `node` is empty. `fsGroup` makes the volume its user's.
fn with_claim(cluster: &Cluster, name: &str, node: &str, claim: &str, script: &str) {
    let mut pod: Value = serde_json::from_str(&pod(name, node, script)).unwrap();
    if node.is_empty() {
        pod["spec"]["nodeSelector"] = Value::Null;
    }
    pod["spec"]["securityContext"] = json!({ "fsGroup": 999 });
    pod["spec"]["volumes"] = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/data" }]);
    cluster.kubectl(&["create", "-f", "-"], &pod.to_string()).unwrap();
}

/// What a shell in a pod prints.
#[track_caller]
fn shell(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.kubectl(&["exec", pod, "--", "bash", "-c", script], "").unwrap().trim().to_owned()
}

fn megabytes(cluster: &Cluster, pod: &str) -> u64 {
    shell(cluster, pod, "df -BM --output=size /data | tail -1 | tr -d ' M'").parse().unwrap()
}

/// Full, it refuses writes; grown under its pod, it takes them.
fn grows(cluster: &Cluster) {
    assert!(megabytes(cluster, "writer") <= 320);
    let fill = "head -c 350M /dev/zero > /data/big";
    let full = cluster.try_kubectl(&["exec", "writer", "--", "bash", "-c", fill], "").unwrap();
    assert!(!full.ok && full.stderr.contains("No space left"), "{full:?}");
    let grow = r#"{"spec": {"resources": {"requests": {"storage": "512Mi"}}}}"#;
    let begin = Instant::now();
    cluster.kubectl(&["patch", "pvc", "data", "-p", grow], "").unwrap();
    let grown = || cluster.get(&["pvc", "data"]).unwrap()["status"]["capacity"]["storage"] == "512Mi";
    eventually("the volume has grown", LONG, grown);
    println!("measured: a volume has grown after {:.1} s", begin.elapsed().as_secs_f64());
    assert!(megabytes(cluster, "writer") > 400);
    shell(cluster, "writer", fill);
    let shrink = r#"{"spec": {"resources": {"requests": {"storage": "320Mi"}}}}"#;
    assert!(!cluster.try_kubectl(&["patch", "pvc", "data", "-p", shrink], "").unwrap().ok);
}

/// A snapshot is of one moment, while a pod writes; what is made of it or of the volume has the data, and is another volume.
fn snapshot_and_clone(cluster: &Cluster) {
    let begin = Instant::now();
    let snapshot = json!({ "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": { "name": "s" },
        "spec": { "volumeSnapshotClassName": "csi-disk", "source": { "persistentVolumeClaimName": "data" } } });
    cluster.kubectl(&["create", "-f", "-"], &snapshot.to_string()).unwrap();
    let usable = || cluster.get(&["volumesnapshot", "s"]).unwrap()["status"]["readyToUse"] == true;
    eventually("the snapshot is there", LONG, usable);
    println!("measured: a snapshot after {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(cluster.get(&["volumesnapshot", "s"]).unwrap()["status"]["restoreSize"], "512Mi");
    shell(cluster, "writer", "echo two > /data/file");

    let source = json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s" });
    // Larger than the snapshot, and on the other node.
    claim(cluster, "restored", "600Mi", &source);
    with_claim(cluster, "reader", "n2", "restored", "exec sleep infinity");
    ready(cluster, "reader");
    assert_eq!(shell(cluster, "reader", "cat /data/file; stat -c %s /data/big"), "one\n367001600");
    assert!(megabytes(cluster, "reader") > 512);
    shell(cluster, "reader", "echo three > /data/file");
    assert_eq!(shell(cluster, "writer", "cat /data/file"), "two");

    claim(cluster, "cloned", "512Mi", &json!({ "kind": "PersistentVolumeClaim", "name": "data" }));
    with_claim(cluster, "clone", "n2", "cloned", "exec sleep infinity");
    ready(cluster, "clone");
    assert_eq!(shell(cluster, "clone", "cat /data/file"), "two");
}

/// It goes where its pod goes, after its node has let it go; also when that node is lost.
fn a_node_at_a_time(cluster: &Cluster) {
    with_claim(cluster, "second", "n2", "data", "exec sleep infinity");
    let told = || cluster.kubectl(&["get", "events", "--field-selector=reason=FailedAttachVolume"], "").unwrap();
    eventually("the second node is refused", LONG, || told().contains("Multi-Attach error"));
    cluster.kubectl(&["delete", "pod", "writer"], "").unwrap();
    ready(cluster, "second");
    assert_eq!(shell(cluster, "second", "cat /data/file; echo four > /data/file; sync"), "two");

    cluster.node(2).unwrap().power_off().unwrap();
    eventually("n2 is lost", LONG, || !common::node_ready(cluster, "n2"));
    let begin = Instant::now();
    cluster.kubectl(&["taint", "node", "n2", "node.kubernetes.io/out-of-service=lost:NoExecute"], "").unwrap();
    with_claim(cluster, "third", "n1", "data", "exec sleep infinity");
    ready(cluster, "third");
    println!("measured: a volume of a lost node is elsewhere after {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(shell(cluster, "third", "cat /data/file"), "four");
    cluster.node(2).unwrap().power_on().unwrap();
    eventually("n2 is back", LONG, || common::node_ready(cluster, "n2"));
    cluster.kubectl(&["taint", "node", "n2", "node.kubernetes.io/out-of-service-"], "").unwrap();
}

fn survives_the_power_of_all(cluster: &mut Cluster, options: &Options) {
    cluster.down(true).unwrap();
    cluster.bring_up(options).unwrap();
    eventually("the pod is Ready again", LONG, || {
        let output = cluster.try_kubectl(&["exec", "third", "--", "cat", "/data/file"], "").unwrap();
        output.ok && output.stdout == "four\n"
    });
}

fn goes_with_its_claim(cluster: &Cluster) {
    let images = || {
        let files = std::fs::read_dir(cluster.folder().join("disks")).unwrap().flatten();
        files.filter(|f| f.path().extension().is_some_and(|e| e == "img" || e == "snap")).count()
    };
    assert_eq!(images(), 4, "three volumes and a snapshot");
    cluster.kubectl(&["delete", "pods", "--all", "--force"], "").unwrap();
    cluster.kubectl(&["delete", "pvc,volumesnapshot", "--all", "--wait=false"], "").unwrap();
    eventually("volumes and snapshots are removed", LONG, || images() == 0);
}
