//! The PgTerm, on which the members of a set agree, is deleted or rolled back: writes go on, it is told, and a person puts it
//! right with one command. The set's Lease can be deleted at any time. Kept volumes are gone on with when the spec says so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Door, Namespace, Set, eventually, with_operator};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For what takes one start of a member.
const SOON: Duration = Duration::from_secs(60);
/// For what takes several, or a copy.
const LATER: Duration = Duration::from_secs(180);

/// What `kubectl pgconvoy term repair` makes; waits until it has ended, and gives its state and message.
fn repair(namespace: &Namespace) -> (String, String) {
    let request = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1",
        "kind": "PgRequest",
        "metadata": { "generateName": "test-" },
        "spec": { "set": "quickstart", "repair": {} },
    });
    let made = namespace.kubectl(&["create", "-f", "-", "-o", "name"], &request.to_string()).unwrap();
    let name = made.trim().rsplit('/').next().unwrap().to_owned();
    eventually("the repair to end", LATER, || {
        let status = namespace.get(&["pgrequest", &name])?["status"].clone();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        Ok((!text("finishedAt").is_empty()).then(|| (text("state"), text("message"))))
    })
    .unwrap()
}

/// Writes go on for so long, without one that fails.
fn writes_go_on(client: &Client<'_>, seconds: u64) {
    let before = client.written().unwrap();
    std::thread::sleep(Duration::from_secs(seconds));
    let more = client.written().unwrap() - before;
    assert!(more > seconds * 2, "only {more} writes in {seconds} s");
}

/// Kills the leader's PostgreSQL; waits for writes in a later epoch.
fn fails_over(set: &Set<'_>, client: &Client<'_>) {
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let kill = "kill -9 $(head -n 1 /var/lib/pgconvoy/pgdata/postmaster.pid)";
    set.namespace.kubectl(&["exec", &leader, "-c", "postgres", "--", "sh", "-c", kill], "").unwrap();
    eventually("a later epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    let before = client.written().unwrap();
    eventually("writes in it", SOON, || Ok((client.written()? > before + 5).then_some(()))).unwrap();
}

/// The condition names the trouble and the command; then the repair is done, and everything is as it was.
fn is_repaired(set: &Set<'_>, client: &Client<'_>, reason: &str, epoch: i64) {
    set.says("Stalled", "True", reason, &["kubectl pgconvoy term repair quickstart", "runbook: The term is"], SOON)
        .unwrap();
    let begin = Instant::now();
    let (state, message) = repair(set.namespace);
    println!("repair after {reason}: {state}: {message}");
    assert_eq!(state, "Complete", "{message}");
    set.ready(3, LATER).unwrap();
    let took = begin.elapsed().as_secs_f64();
    let now = set.epoch().unwrap();
    assert!(now > epoch, "epoch {now} after {epoch}: the number went back");
    let term = set.namespace.get(&["pgterm", "quickstart"]).unwrap();
    assert_eq!(term["spec"]["history"].as_array().unwrap().last().unwrap()["lossy"], Value::Bool(false), "{term}");
    fails_over(set, client);
    set.ready(3, LATER).unwrap();
    println!("measured: PgTerm repaired after {reason}: Ready again after {took:.1} s");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_deleted_term_stops_nothing_and_is_repaired() {
    let namespace = with_operator("termgone").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    client.start_writing().unwrap();
    let (epoch, pods) = (set.epoch().unwrap(), set.pods().unwrap());
    namespace.kubectl(&["delete", "pgterm", "quickstart"], "").unwrap();
    writes_go_on(&client, 20);
    assert_eq!(set.pods().unwrap(), pods, "pods were made anew for a lost PgTerm");
    // Made again so that nobody begins anew, also where there is no data.
    let term = namespace.get(&["pgterm", "quickstart"]).unwrap();
    assert_eq!((&term["spec"]["epoch"]["number"], &term["spec"]["remade"]), (&json!(0), &json!(true)), "{term}");
    is_repaired(&set, &client, "TermLost", epoch);
    let (state, message) = repair(&namespace);
    assert!(state == "Failed" && message.contains("nothing to repair"), "{message}");
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_term_that_is_rolled_back_stops_nothing_and_is_repaired() {
    let namespace = with_operator("termback").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    client.start_writing().unwrap();
    let mut old = namespace.get(&["pgterm", "quickstart"]).unwrap();
    fails_over(&set, &client);
    set.ready(3, LATER).unwrap();
    let epoch = set.epoch().unwrap();
    // As a restored API server has it: the object of then, as if nothing had been since.
    for key in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        old["metadata"].as_object_mut().unwrap().remove(key);
    }
    namespace.kubectl(&["delete", "pgterm", "quickstart"], "").unwrap();
    // The operator is quick to make another, which no rule keeps from growing to what it was once.
    eventually("a term at number 0", SOON, || Ok(set.epoch().ok().filter(|e| *e == 0))).unwrap();
    namespace.kubectl(&["replace", "-f", "-"], &old.to_string()).unwrap();
    assert!((1..epoch).contains(&set.epoch().unwrap()));
    writes_go_on(&client, 20);
    is_repaired(&set, &client, "TermRolledBack", epoch);
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_deleted_lease_changes_nothing() {
    let namespace = with_operator("leasegone").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    client.start_writing().unwrap();
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    namespace.kubectl(&["delete", "lease", "quickstart"], "").unwrap();
    writes_go_on(&client, 15);
    assert_eq!((set.epoch().unwrap(), set.leader().unwrap()), (epoch, leader));
    eventually("the Lease again", SOON, || Ok(namespace.get(&["lease", "quickstart"]).ok())).unwrap();
    fails_over(&set, &client);
    set.ready(3, LATER).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
}

/// Deletes the set and waits until its pods are gone; its volumes are kept.
fn delete(set: &Set<'_>) {
    set.namespace.kubectl(&["delete", "pgrs", "quickstart"], "").unwrap();
    eventually("the pods to go", LATER, || Ok(set.pods()?.is_empty().then_some(()))).unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_set_made_again_over_kept_volumes_is_refused_and_then_adopts_them() {
    let namespace = with_operator("adopt").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let before = set.get().unwrap();
    let system = before["status"]["systemId"].as_str().unwrap().to_owned();
    let epoch = set.epoch().unwrap();
    {
        let client = Client::start(&set).unwrap();
        client.sql(Door::Writes, "create table kept (n int); insert into kept values (42)").unwrap();
        namespace.kubectl(&["delete", "pod", "quickstart-client", "--force", "--grace-period=0"], "").unwrap();
    }
    let claims = set.claims().unwrap();
    eventually("the claims to say whose data they hold", SOON, || {
        let claim = namespace.get(&["pvc", "quickstart-1-data"])?;
        Ok((claim["metadata"]["annotations"]["pgconvoy.dev/system-id"] == system.as_str()).then_some(()))
    })
    .unwrap();
    delete(&set);

    namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.says("Stalled", "True", "ForeignVolume", &["adopt", &system], SOON).unwrap();
    assert!(set.pods().unwrap().is_empty());
    delete(&set);

    let begin = Instant::now();
    let mut spec = before["spec"].clone();
    spec["bootstrap"] = json!({ "adopt": { "systemId": system } });
    let object = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1",
        "kind": "PgReplicaSet",
        "metadata": { "name": "quickstart" },
        "spec": spec,
    });
    namespace.kubectl(&["apply", "-f", "-"], &object.to_string()).unwrap();
    set.ready(3, LATER).unwrap();
    println!("measured: kept volumes adopted: Ready after {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(set.claims().unwrap(), claims, "another volume");
    assert!(set.epoch().unwrap() > epoch);
    let client = Client::start(&set).unwrap();
    assert_eq!(client.sql(Door::Writes, "insert into kept values (43); select sum(n) from kept").unwrap(), "85");
}
