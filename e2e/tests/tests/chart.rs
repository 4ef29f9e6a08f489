//! The operator is installed by Helm and by plain kubectl, upgraded, and taken away; sets and custom resources outlive it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Cluster, Namespace, helm, root};
use serde_json::Value;
use std::process::Command;

/// A set whose image no node has: its objects are what these tests look at.
const SET: &str = "
apiVersion: pgconvoy.dev/v1alpha1
kind: PgReplicaSet
metadata: { name: kept }
spec:
  image: docker.io/local/nothing:1
  members: 2
  storage: { size: 1Gi }
";

#[test]
fn chart_and_crates_have_one_version() {
    let chart: Value =
        serde_yaml::from_str(&std::fs::read_to_string(root().join("charts/pgconvoy/Chart.yaml")).unwrap()).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_kubectl_users_apply_has_the_chart_s_images_and_no_custom_resources() {
    let text = std::fs::read_to_string(root().join("deploy/pgconvoy.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("image: docker.io/pgconvoy/operator:{version}\n")));
    assert!(text.contains(&format!("--agent-image=docker.io/pgconvoy/agent:{version}\n")));
    // To delete what was applied must not delete every replica set of the cluster.
    assert!(!text.contains("CustomResourceDefinition"));
}

#[test]
#[ignore = "needs helm, which the cluster tier has"]
fn what_kubectl_users_apply_is_what_the_chart_renders() {
    let helm = helm().unwrap();
    let lint = Command::new(&helm).args(["lint", "--strict"]).arg(root().join("charts/pgconvoy")).output().unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    let path = format!("{}:{}", helm.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let check = Command::new(root().join("charts/render")).arg("--check").env("PATH", path).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
#[ignore = "needs helm, which the cluster tier has"]
fn values_that_the_chart_does_not_know_are_refused() {
    for (value, sentence) in [
        ("replica=3", "additional properties 'replica' not allowed"),
        ("image.tga=x", "additional properties 'tga' not allowed"),
        ("replicas=many", "got string, want integer"),
        ("image.digest=abc", "does not match pattern"),
    ] {
        let output = Command::new(helm().unwrap())
            .args(["template", "pgconvoy", "--kube-version=1.33.0", "--set", value])
            .arg(root().join("charts/pgconvoy"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(sentence), "{value}: {said}");
    }
}

/// To the letter, by the server itself: a field that it does not know would be dropped otherwise, without a word.
#[test]
#[ignore = "needs a cluster"]
fn what_is_rendered_is_valid_to_the_letter() {
    let cluster = Cluster::from_env().unwrap();
    let strict = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let kubectl = std::fs::read_to_string(root().join("deploy/pgconvoy.yaml")).unwrap();
    let namespace = cluster.namespace("chart-strict").unwrap();
    for values in [&[][..], &["watchNamespace=shop", "metrics.service.enabled=true", "flowSchema.enabled=true"][..]] {
        let mut helm = Command::new(helm().unwrap());
        helm.args(["template", "pgconvoy", "--kube-version=1.33.0", "--include-crds", "--namespace", &namespace.name]);
        helm.arg(root().join("charts/pgconvoy"));
        for value in values {
            helm.args(["--set", value]);
        }
        let rendered = helm.output().unwrap();
        assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        let text = String::from_utf8_lossy(&rendered.stdout)
            .replace("namespace: shop", &format!("namespace: {}", namespace.name));
        let said = cluster.try_kubectl(&strict, &text).unwrap();
        assert!(said.ok && !said.stderr.contains("unknown field"), "{values:?}: {}", said.stderr);
    }
    let here = kubectl.replace("namespace: pgconvoy-system", &format!("namespace: {}", namespace.name));
    let said = cluster.try_kubectl(&strict, &here).unwrap();
    assert!(said.ok && !said.stderr.contains("unknown field"), "{}", said.stderr);
    // Such a field is noticed.
    let said = cluster.try_kubectl(&strict, &here.replacen("replicas:", "replica:", 1)).unwrap();
    assert!(!said.ok && said.stderr.contains("unknown field"), "{}", said.stderr);
}

fn uids(namespace: &Namespace, what: &str) -> String {
    let list = "jsonpath={range .items[*]}{.metadata.name}={.metadata.uid} {end}";
    namespace.kubectl(&["get", what, "-l", "pgconvoy.dev/set=kept", "-o", list], "").unwrap()
}

/// Waits until `look` gives something, half a minute at most.
fn eventually(what: &str, look: impl Fn() -> Option<String>) -> String {
    for _ in 0..60 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    panic!("{what} did not come within half a minute");
}

#[test]
#[ignore = "needs a cluster"]
fn by_helm_for_one_namespace_then_upgraded_then_taken_away() {
    let cluster = Cluster::from_env().unwrap();
    let namespace = cluster.namespace("chart-helm").unwrap();
    let scope = format!("watchNamespace={}", namespace.name);
    let chart = root().join("charts/pgconvoy");
    // A release of its own beside others; CRDs that somebody applied before are taken over.
    let name = format!("pgconvoy-{}", std::process::id());
    let run = |action: &str, more: &[&str]| {
        let head = [action, &name, chart.to_str().unwrap(), "-n", &namespace.name];
        let tail = ["--take-ownership", "--wait", "--timeout=90s", "--set", &scope];
        cluster.helm(&[&head[..], &tail[..], more].concat()).unwrap()
    };
    let notes = run("install", &[]);
    assert!(notes.contains(&format!("kubectl -n {} apply", namespace.name)), "{notes}");

    namespace.kubectl(&["create", "-f", "-"], SET).unwrap();
    let pods = eventually("pods of the set", || Some(uids(&namespace, "pods")).filter(|p| p.contains("kept-2=")));
    let claims = uids(&namespace, "pvc");

    run("upgrade", &["--set", "replicas=1", "--set", "log.level=debug"]);
    assert_eq!(uids(&namespace, "pods"), pods, "an upgrade of the operator replaced database pods");

    cluster.helm(&["uninstall", &name, "-n", &namespace.name, "--wait", "--timeout=60s"]).unwrap();
    assert_eq!(namespace.kubectl(&["get", "deployments", "-o", "name"], "").unwrap(), "");
    assert_eq!(uids(&namespace, "pods"), pods, "the set's pods did not outlive the operator");
    assert_eq!(uids(&namespace, "pvc"), claims, "the set's volumes did not outlive the operator");
    namespace.kubectl(&["get", "pgreplicaset", "kept"], "").unwrap();
}

#[test]
#[ignore = "needs a cluster"]
fn by_kubectl_for_every_namespace() {
    let cluster = Cluster::from_env().unwrap();
    cluster.install_crds().unwrap();
    let manifest = root().join("deploy/pgconvoy.yaml");
    let manifest = manifest.to_str().unwrap();
    cluster.kubectl(&["apply", "-f", manifest], "").unwrap();
    let system = ["-n", "pgconvoy-system"];
    let up = ["rollout", "status", "deployment/pgconvoy-operator", "--timeout=90s"];
    cluster.kubectl(&[&system[..], &up[..]].concat(), "").unwrap();

    // No right that it would need is missing: every kind of object of a set is made.
    let namespace = cluster.namespace("chart-kubectl").unwrap();
    namespace.kubectl(&["create", "-f", "-"], SET).unwrap();
    eventually("pods of the set", || Some(uids(&namespace, "pods")).filter(|p| p.contains("kept-2=")));
    for kind in ["pgterm", "lease", "serviceaccount", "role", "rolebinding", "configmap", "secret", "service"] {
        let made = namespace.kubectl(&["get", kind, "-o", "name"], "").unwrap();
        assert!(made.contains("/kept"), "no {kind} was made: {made}");
    }
    let status = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    eventually("a Ready condition", || {
        Some(namespace.kubectl(&["get", "pgrs", "kept", "-o", status], "").unwrap()).filter(|s| s == "False")
    });
    namespace.kubectl(&["delete", "pgrs", "kept", "--timeout=60s"], "").unwrap();
    cluster.kubectl(&["delete", "-f", manifest, "--timeout=90s"], "").unwrap();
    cluster.kubectl(&["get", "crd", "pgreplicasets.pgconvoy.dev", "pgterms.pgconvoy.dev"], "").unwrap();
}
