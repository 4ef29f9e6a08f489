//! The operator's process is killed after some of its writes, and what the next one does comes to the same. That it is so after
//! each write, and whatever else goes wrong, `e2e/reconcile` shows in one process.
//!
//! The real program, against this API server without a kubelet: what it makes for a replica set, and what it writes after
//! that (nothing).
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

mod local;
mod serving;

use local::Local;
use pgconvoy_embedded::api::select::Selector;
use pgconvoy_embedded::api::{DeleteOptions, text};
use pgconvoy_embedded::http::{Fault, Rule};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// Without a write for so long, it is done.
const QUIET: Duration = Duration::from_millis(1200);

struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_pgconvoy-embedded")).parent().unwrap().to_path_buf()
}

fn build() {
    // Whoever has just done it need not wait for another cargo.
    if std::env::var_os("PGCONVOY_BUILT").is_some() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let arguments = ["build", "--locked", "--offline", "-p", "pgconvoy-operator"];
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).env("CARGO_TARGET_DIR", target().parent().unwrap()).current_dir(root);
    let done = cargo.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn start(local: &Local) -> Operator {
    // Who crashed gives no lease back; the next one need not wait for its end here.
    local.server.with(|a| {
        let leases = a.kind("coordination.k8s.io", "v1", "leases").unwrap();
        let _ = a.delete(&leases, "pgconvoy-system", "pgconvoy-operator", &DeleteOptions::default());
    });
    let mut command = Command::new(target().join("pgconvoy-operator"));
    command
        .args(["run", "--agent-image=agent:1", "--namespace=pgconvoy-system", "--http=127.0.0.1:0"])
        .env("KUBECONFIG", local.kubeconfig("operator"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Operator(command.spawn().unwrap())
}

/// What is there of a set, without what is different every time.
fn world(local: &Local) -> BTreeMap<String, Value> {
    local.server.with(|a| {
        let sets = a.kind("pgconvoy.dev", "v1alpha1", "pgreplicasets").unwrap();
        let uid = text(&a.get(&sets, "default", "s").unwrap(), "/metadata/uid").to_owned();
        let mut all = BTreeMap::new();
        for kind in a.kinds().to_vec() {
            if kind.kind == "Event" || !kind.namespaced {
                continue;
            }
            for object in a.list(&kind, Some("default"), &Selector::default(), 0, "").unwrap().items {
                let key = format!("{} {}", kind.qualified(), text(&object, "/metadata/name"));
                let mut rest = json!({
                    "labels": object["metadata"]["labels"],
                    "owners": object["metadata"]["ownerReferences"].as_array().map(Vec::len),
                    "spec": object["spec"],
                    "rules": object["rules"],
                });
                for data in ["data", "status"] {
                    rest[data] = object[data].as_object().map(|d| d.keys().cloned().collect::<Vec<_>>()).into();
                }
                if kind.kind == "Service" {
                    rest["spec"] = rest["spec"]["ports"].take();
                }

                all.insert(key, serde_json::from_str(&rest.to_string().replace(&uid, "<uid>")).unwrap());
            }
        }
        all
    })
}

/// The last write, of the lease of operators and events aside.
fn last_write(local: &Local) -> u64 {
    local.server.with(|a| {
        let mut last = 0;
        for kind in a.kinds().to_vec() {
            if kind.kind == "Event" {
                continue;
            }
            for o in a.list(&kind, None, &Selector::default(), 0, "").unwrap().items {
                let lease = kind.kind == "Lease" && text(&o, "/metadata/namespace") == "pgconvoy-system";
                if !lease {
                    last = last.max(text(&o, "/metadata/resourceVersion").parse().unwrap());
                }
            }
        }
        last
    })
}

fn settle(local: &Local, what: &str) {
    let begun = Instant::now();
    let (mut last, mut since) = (last_write(local), Instant::now());
    while since.elapsed() < QUIET {
        assert!(begun.elapsed() < LIMIT, "{what}: it does not come to rest");
        std::thread::sleep(Duration::from_millis(50));
        let now = last_write(local);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn make_set(local: &Local) {
    let set = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "s" },
        "spec": { "image": "postgres:17", "members": 3, "storage": { "size": "1Gi" } },
    });
    local.server.with(|a| {
        let kind = a.kind("pgconvoy.dev", "v1alpha1", "pgreplicasets").unwrap();
        a.create(&kind, "default", set, &Default::default()).unwrap();
    });
}

fn rule(skip: u32, times: Option<u32>, fault: Fault) -> Rule {
    // Neither its own lease nor events: a crash there changes nothing that is compared.
    Rule { user: "operator".into(), method: "write".into(), path: "/namespaces/default/".into(), skip, times, fault }
}

fn written(local: &Local, of: u32) -> u32 {
    of - local.server.faults()[0].skip
}

#[test]
fn a_crash_after_any_write_changes_nothing_of_what_comes_of_it() {
    build();
    const MANY: u32 = 100_000;
    let undisturbed = Local::start();
    undisturbed.server.set_faults(vec![rule(MANY, None, Fault::Lose)]);
    make_set(&undisturbed);
    let operator = start(&undisturbed);
    wait_for("three pods", || world(&undisturbed).keys().filter(|k| k.starts_with("pods ")).count() == 3);
    settle(&undisturbed, "undisturbed");
    let (fixpoint, writes) = (world(&undisturbed), written(&undisturbed, MANY));
    drop(operator);
    assert!(writes > 20 && fixpoint.len() > 15, "{writes} writes, {} objects", fixpoint.len());

    let all = std::env::var_os("PGCONVOY_LONG").is_some();
    let plans: Vec<u32> = (1..=writes).filter(|n| all || n % 12 == 1).collect();
    for n in &plans {
        let local = Local::start();
        make_set(&local);
        // The n-th write is done, its answer never comes, and nothing is heard of it again.
        local.server.set_faults(vec![rule(n - 1, Some(1), Fault::LoseAnswer), rule(0, None, Fault::Lose)]);
        let crashing = start(&local);
        wait_for(&format!("write {n}"), || local.server.faults()[0].times == Some(0));
        drop(crashing);
        local.server.set_faults(vec![]);
        let _next = start(&local);
        wait_for(&format!("after a crash at write {n}: the same"), || world(&local) == fixpoint);
        settle(&local, &format!("after a crash at write {n}"));
        assert_eq!(world(&local), fixpoint, "after a crash at write {n}");
    }
    println!(
        "measured: {} of {writes} crash plans of the operator, each to the same {} objects",
        plans.len(),
        fixpoint.len()
    );
}
