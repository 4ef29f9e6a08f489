//! What a person asks for once: another leader, and a leader at all when the quorum is gone for good.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Door, Namespace, eventually, with_operator};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For what takes one start of a member.
const SOON: Duration = Duration::from_secs(60);
/// For what takes several, or a copy.
const LATER: Duration = Duration::from_secs(180);

/// Makes a request; its name.
fn ask(namespace: &Namespace, spec: &Value) -> String {
    let request = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1",
        "kind": "PgRequest",
        "metadata": { "generateName": "test-" },
        "spec": spec,
    });
    let made = namespace.kubectl(&["create", "-f", "-", "-o", "name"], &request.to_string()).unwrap();
    made.trim().rsplit('/').next().unwrap().to_owned()
}

/// Waits until a request has ended; its state and message.
fn end(namespace: &Namespace, request: &str) -> (String, String) {
    let ended = eventually("the request to end", LATER, || {
        let status = namespace.get(&["pgrequest", request])?["status"].clone();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        Ok((!text("finishedAt").is_empty()).then(|| (text("state"), text("message"))))
    });
    let ended = ended.unwrap();
    println!("pgrequest {request}: {}: {}", ended.0, ended.1);
    ended
}

/// Its disk is gone, and so is its pod.
fn lose(namespace: &Namespace, member: &str) {
    namespace.kubectl(&["delete", "pvc", &format!("{member}-data"), "--wait=false"], "").unwrap();
    namespace.kubectl(&["delete", "pod", member, "--force", "--grace-period=0"], "").unwrap();
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_switchover_is_done_once_and_costs_no_write() {
    let namespace = with_operator("switch").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, leader, pods) = (set.epoch().unwrap(), set.leader().unwrap(), set.pods().unwrap());
    let to = set.followers().unwrap().remove(1);
    client.start_writing().unwrap();
    let begin = Instant::now();
    let request = ask(&namespace, &json!({ "set": "quickstart", "switchover": { "to": to } }));
    let (state, message) = end(&namespace, &request);
    let took = begin.elapsed().as_secs_f64();
    assert_eq!(state, "Complete", "{message}");
    assert_eq!(message, format!("{to} leads epoch {}, after {leader}", epoch + 1));
    eventually("the status to follow", SOON, || Ok((set.leader()? == to).then_some(()))).unwrap();

    // A second one, to nobody in particular, and one that is fulfilled already.
    let other = ask(&namespace, &json!({ "set": "quickstart", "switchover": {} }));
    assert_eq!(end(&namespace, &other).0, "Complete");
    eventually("the next epoch", SOON, || Ok((set.epoch()? == epoch + 2).then_some(()))).unwrap();
    let leads = set.leader().unwrap();
    let done = ask(&namespace, &json!({ "set": "quickstart", "switchover": { "to": leads } }));
    assert_eq!(end(&namespace, &done).1, format!("{leads} leads epoch {} already", epoch + 2));
    // Nothing of them goes on.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(set.epoch().unwrap(), epoch + 2, "a request was done twice");
    assert_eq!(set.pods().unwrap(), pods, "a pod was made anew");
    let tally = client.stop_writing().unwrap();
    println!("measured: switchover: {took:.1} s until it is complete; {tally:?}");
    assert_eq!(tally.lost, 0, "{tally:?}");
}

/// The leader's disk and one follower's are gone: the one that is left cannot know whether it has everything.
#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_set_whose_quorum_is_gone_waits_for_a_decision_and_obeys_it() {
    let namespace = with_operator("gone").unwrap();
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    client.sql(Door::Writes, "create table kept (n int); insert into kept values (1)").unwrap();
    let (leader, followers) = (set.leader().unwrap(), set.followers().unwrap());
    let left = &followers[1];
    // Otherwise they would be back before they are missed.
    lose(&namespace, &followers[0]);
    lose(&namespace, &leader);
    set.says("Ready", "False", "CopiesLost", &["kubectl pgconvoy takeover", "--accept-loss"], LATER).unwrap();
    // Meanwhile the members go on trying: what is decided holds for epochs that are opened in vain after it was read.
    let epoch = set.epoch().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    let takeover = |epoch: i64| json!({ "set": "quickstart", "takeover": { "epoch": epoch, "acceptLoss": true } });

    let request = ask(&namespace, &takeover(epoch));
    let (state, message) = end(&namespace, &request);
    assert_eq!(state, "Complete", "{message}");
    assert!(message.contains(left) && message.contains("are lost"), "{message}");
    set.ready(3, LATER).unwrap();
    assert_eq!(client.sql(Door::Writes, "insert into kept values (2); select count(*) from kept").unwrap(), "2");
    let term = namespace.get(&["pgterm", "quickstart"]).unwrap();
    assert_eq!(term["spec"]["history"].as_array().unwrap().last().unwrap()["lossy"], json!(true), "{term}");

    // It cannot be used again.
    let again = ask(&namespace, &takeover(epoch));
    let (state, message) = end(&namespace, &again);
    assert!(state == "Failed" && message.contains("it is for epoch"), "{message}");
    let (serves, number) = (set.leader().unwrap(), set.epoch().unwrap());
    let needless = ask(&namespace, &takeover(number));
    let (state, message) = end(&namespace, &needless);
    assert!(state == "Failed" && message.contains("nothing to take over"), "{message}");
    assert_eq!((set.leader().unwrap(), set.epoch().unwrap()), (serves, number));
}
