//! An operator that is killed while it makes sets leaves nothing behind that its successor cannot finish: they end up as
//! one that was made undisturbed. (That this holds after any single write, the operator's own tests show.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Cluster, Namespace, OPERATOR_NAMESPACE, Set, eventually, with_operator};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);

/// What the operator makes of a set, besides its term and Lease, which the agents go on writing.
const KINDS: &str = "pods,pvc,services,endpointslices,serviceaccounts,roles,rolebindings,pdb,configmaps,secrets";

/// After how many milliseconds of `kubectl apply` the operator is killed, set by set.
const AFTER: [u64; 6] = [150, 250, 350, 450, 600, 800];

/// The main process of the operator that works.
struct Working {
    pod: String,
    process: u32,
}

fn working(cluster: &Cluster) -> Working {
    eventually("an operator that works", SOON, || {
        let lease = cluster.get(&["-n", OPERATOR_NAMESPACE, "lease", "pgconvoy-operator"])?;
        let pod = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        let Ok(process) = cluster.process(OPERATOR_NAMESPACE, &pod, None) else { return Ok(None) };
        // A process id must not be taken for another.
        let name = std::fs::read_to_string(format!("/proc/{process}/comm"))?;
        Ok("pgconvoy-operator".starts_with(name.trim()).then_some(Working { pod, process }))
    })
    .unwrap()
}

/// Kills it without a word, and makes its absence short: its Lease is given up for it, and its pod made anew, so that the
/// kubelet's growing pauses between restarts do not add up.
fn kill(cluster: &Cluster, operator: &Working) {
    let killed = std::process::Command::new("kill").args(["-9", &operator.process.to_string()]).status().unwrap();
    assert!(killed.success(), "cannot kill process {}", operator.process);
    let system = ["-n", OPERATOR_NAMESPACE];
    let empty = json!({ "spec": { "holderIdentity": "" } }).to_string();
    let lease = ["patch", "lease", "pgconvoy-operator", "--type=merge", "-p", &empty];
    cluster.kubectl(&[&system[..], &lease].concat(), "").unwrap();
    let pod = ["delete", "pod", &operator.pod, "--wait=false", "--grace-period=0", "--force"];
    cluster.kubectl(&[&system[..], &pod].concat(), "").unwrap();
}

/// What is there of a set, without what differs from set to set and what others write: a line for each object.
fn made(namespace: &Namespace, set: &Set<'_>) -> Vec<String> {
    let objects = namespace.get(&[KINDS, "-l", &format!("pgconvoy.dev/set={}", set.name)]).unwrap();
    let uid = set.get().unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let plain = |value: Value| value.to_string().replace(&uid, "UID").replace(&set.name, "SET");
    let keys = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut lines: Vec<_> = objects["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let meta = &object["metadata"];
            let mut spec = object["spec"].clone();
            for theirs in ["clusterIP", "clusterIPs", "volumeName", "nodeName"] {
                if let Some(spec) = spec.as_object_mut() {
                    spec.remove(theirs);
                }
            }
            let owners = meta["ownerReferences"].as_array().into_iter().flatten().map(|o| o["uid"].clone());
            let mut labels = meta["labels"].clone();
            if let Some(labels) = labels.as_object_mut() {
                // Who leads, and where the scheduler put it.
                labels.retain(|name, _| name != "pgconvoy.dev/role" && !name.starts_with("topology.kubernetes.io/"));
            }
            plain(json!([
                object["kind"],
                meta["name"],
                labels,
                keys(&meta["annotations"]),
                owners.collect::<Vec<_>>(),
                spec,
                object["rules"],
                object["subjects"],
                keys(&object["data"]),
            ]))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn an_operator_killed_while_it_makes_sets_leaves_them_as_if_undisturbed() {
    let namespace = with_operator("killed").unwrap();
    let cluster = namespace.cluster();
    let two = json!({ "members": 2 });
    let calm = namespace.apply("calm", &two).unwrap();
    calm.ready(2, LATER).unwrap();
    let wanted = made(&namespace, &calm);
    assert!(wanted.len() > 15, "{wanted:#?}");

    let mut counts = vec![];
    for (n, after) in AFTER.into_iter().enumerate() {
        let operator = working(cluster);
        let name = format!("killed{n}");
        std::thread::scope(|threads| {
            let applied = threads.spawn(|| namespace.apply(&name, &two).map(drop));
            std::thread::sleep(Duration::from_millis(after));
            kill(cluster, &operator);
            applied.join().unwrap().unwrap();
        });
        let objects = namespace.get(&[KINDS, "-l", &format!("pgconvoy.dev/set={name}")]).unwrap();
        counts.push(objects["items"].as_array().map_or(0, Vec::len));
    }
    println!("objects of each set right after the operator was killed: {counts:?} of {}", wanted.len());

    let sets: Vec<_> = (0..AFTER.len()).map(|n| Set { namespace: &namespace, name: format!("killed{n}") }).collect();
    for set in &sets {
        set.ready(2, LATER).unwrap();
        let made = made(&namespace, set);
        let odd: Vec<_> = made.iter().filter(|line| !wanted.contains(line)).collect();
        let missing: Vec<_> = wanted.iter().filter(|line| !made.contains(line)).collect();
        assert_eq!((odd, missing), (vec![], vec![]), "{} is not as it would have been undisturbed", set.name);
    }
    // The password in each Secret is the one that its database has.
    let client = Client::start(&calm).unwrap();
    for set in &sets {
        let path = "go-template={{.data.uri | base64decode}}";
        let uri = namespace.kubectl(&["get", "secret", &format!("{}-app", set.name), "-o", path], "").unwrap();
        let login = client.shell(r#"psql "$1" -XAtqc "select 1""#, &[&uri], "").unwrap();
        assert_eq!((login.ok, login.stdout.trim()), (true, "1"), "{}: {}", set.name, login.stderr);
    }
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn an_operator_that_is_told_to_end_does_so_within_a_second_and_the_other_goes_on() {
    let namespace = with_operator("told").unwrap();
    let cluster = namespace.cluster();
    let set = namespace.example("single.yaml", "single").unwrap();
    set.ready(1, LATER).unwrap();
    let operator = working(cluster);
    let begin = Instant::now();
    let told = std::process::Command::new("kill").args(["-TERM", &operator.process.to_string()]).status().unwrap();
    assert!(told.success());
    let there = format!("/proc/{}", operator.process);
    while std::path::Path::new(&there).exists() && begin.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begin.elapsed();
    println!("measured: SIGTERM until the operator has ended: {:.2} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(1), "{took:?}");
    // It gave its Lease back, so the other need not wait until it is over.
    let next = working(cluster);
    println!("measured: SIGTERM until the other operator works: {:.2} s", begin.elapsed().as_secs_f64());
    assert_ne!((&next.pod, next.process), (&operator.pod, operator.process));
    set.patch(&json!({ "postgresql": { "parameters": { "work_mem": "5MB" } } })).unwrap();
    set.says("Configured", "True", "InForce", &[], SOON).unwrap();
}
