//! Awkward states, and what the screen says about them.

use super::model::report;
use super::{lag, text};
use crate::objects::Objects;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use pgconvoy_crds::{PgReplicaSet, PgTerm};
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_yaml::from_str(yaml).unwrap()
}

fn set(members: u32, status: &str) -> PgReplicaSet {
    read(&format!(
        "
apiVersion: pgconvoy.dev/v1alpha1
kind: PgReplicaSet
metadata: {{ name: orders, namespace: shop, uid: u-set, generation: 2 }}
spec: {{ image: 'docker.io/library/postgres:17', members: {members}, storage: {{ size: 1Gi }} }}
status: {status}
"
    ))
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> String {
    format!(
        "{{type: {type_}, status: '{status}', reason: {reason}, message: '{message}', \
         lastTransitionTime: '2026-11-26T12:00:00Z'}}"
    )
}

fn status(ready: &str, roster: &str, conditions: &[String], states: &[String]) -> String {
    format!(
        "{{observedGeneration: 2, ready: {ready}, roster: {roster}, systemId: '7712', conditions: [{}], \
         memberStates: [{}]}}",
        conditions.join(", "),
        states.join(", ")
    )
}

fn well() -> Vec<String> {
    vec![
        condition("Ready", "True", "AllMembersAttached", "all 3 members are attached in epoch 1; orders-1 leads"),
        condition("Reconciling", "False", "AsExpected", "the set is as its spec asks"),
        condition("Stalled", "False", "AsExpected", "nothing needs a person"),
        condition("Configured", "True", "InForce", "the whole spec is in force"),
    ]
}

/// Base32 has no 1.
fn incarnation(n: u32) -> String {
    if n == 1 { "dataofmaaa".to_owned() } else { format!("dataofm{n}aa") }
}

fn attached(n: u32, role: &str) -> String {
    format!(
        "{{name: orders-{n}, role: {role}, state: Attached, epoch: 1, incarnation: {data}, node: n{n}, \
         podUid: u-{n}, version: '17.12', since: '2026-11-26T11:00:00Z'}}",
        data = incarnation(n),
    )
}

fn pod(n: u32) -> Pod {
    pod_with(n, "{ running: {} }", true)
}

fn pod_with(n: u32, state: &str, ready: bool) -> Pod {
    read(&format!(
        "
metadata: {{ name: orders-{n}, namespace: shop, uid: u-{n}, labels: {{ pgconvoy.dev/set: orders, pgconvoy.dev/member: orders-{n} }} }}
spec:
  nodeName: n{n}
  initContainers: [ {{ name: place }}, {{ name: agent, restartPolicy: Always }} ]
  containers: [ {{ name: postgres }} ]
status:
  phase: Running
  initContainerStatuses:
  - {{ name: place, ready: true, restartCount: 0, image: a, imageID: a, state: {{ terminated: {{ exitCode: 0 }} }} }}
  - {{ name: agent, ready: {ready}, restartCount: {restarts}, image: a, imageID: a, state: {{ running: {{}} }} }}
  containerStatuses:
  - name: postgres
    ready: {ready}
    restartCount: 0
    image: p
    imageID: p
    state: {state}
    lastState: {{ terminated: {{ exitCode: 1, reason: Error }} }}
",
        restarts = n - 1,
    ))
}

fn term(spec: &str) -> PgTerm {
    read(&format!(
        "{{apiVersion: pgconvoy.dev/v1alpha1, kind: PgTerm, metadata: {{name: orders, namespace: shop}}, spec: {spec}}}"
    ))
}

const E1: &str = "{number: 1, id: clwngb37qybni}";
const E2: &str = "{number: 2, id: p3bvgfikymuqt}";

fn rule(w: u32, followers: &[u32]) -> String {
    let followers: Vec<_> = followers.iter().map(|n| format!("orders-{n}/{}", incarnation(*n))).collect();
    format!(
        "{{epoch: {E1}, leader: orders-1/dataofmaaa, acknowledgements: {w}, followers: [{}]}}",
        followers.join(", ")
    )
}

fn active(rules: &[String]) -> PgTerm {
    term(&format!(
        "{{setUid: u-set, epoch: {E1}, phase: Active, leader: orders-1/dataofmaaa, configs: [{}], \
         history: [{{epoch: {E1}, leader: orders-1/dataofmaaa}}], chain: [clwngb37qybni]}}",
        rules.join(", ")
    ))
}

const THREE: &str = "[orders-1, orders-2, orders-3]";

/// Three members, all well.
pub(crate) fn running() -> Objects {
    let states = [attached(1, "Leader"), attached(3, "Follower"), attached(2, "Follower")];
    Objects {
        set: set(3, &status("3/3", THREE, &well(), &states)),
        term: Some(active(&[rule(1, &[2, 3])])),
        pods: vec![pod(3), pod(1), pod(2)],
    }
}

/// The leader's pod is gone, the next epoch is being opened.
pub(crate) fn no_leader() -> Objects {
    let message = "2 of 3 members are attached; waiting for orders-1: its pod is being made";
    let conditions =
        [condition("Ready", "False", "NoLeader", message), condition("Reconciling", "True", "NoLeader", message)];
    let states = [attached(1, "Leader"), attached(2, "Follower"), attached(3, "Follower")];
    let spec = format!(
        "{{setUid: u-set, epoch: {E2}, phase: Recruiting, configs: [{}], chain: [clwngb37qybni, p3bvgfikymuqt]}}",
        rule(1, &[2, 3])
    );
    Objects {
        set: set(3, &status("2/3", THREE, &conditions, &states)),
        term: Some(term(&spec)),
        pods: vec![pod(2), pod(3)],
    }
}

/// Applied a moment ago; or no operator is there.
pub(crate) fn no_status() -> Objects {
    Objects { set: set(3, "null"), term: None, pods: vec![] }
}

/// One member cannot go on, one crashes.
pub(crate) fn failed_member() -> Objects {
    let message =
        "1 of 3 members are attached; waiting for orders-2: its volume holds data of another set, and for 1 more";
    let conditions = [
        condition("Ready", "False", "MemberFailed", message),
        condition("Reconciling", "False", "MemberFailed", "a person is needed, see Stalled"),
        condition("Stalled", "True", "MemberFailed", "orders-2: its volume holds data of another set"),
        condition(
            "Configured",
            "False",
            "RestartRequired",
            "shared_buffers take effect only after a restart of orders-1",
        ),
    ];
    let failed = "{name: orders-2, state: Failed, podUid: u-2, node: n2, since: '2026-11-26T11:59:50Z', \
                  message: \"its volume holds data of another set\\x1b[2J\"}";
    let leader = attached(1, "Leader").replace("epoch: 1,", "epoch: 1, pendingRestart: [shared_buffers],");
    let crashes = "{ waiting: { reason: CrashLoopBackOff, message: back-off 40s restarting failed container } }";
    Objects {
        set: set(3, &status("1/3", THREE, &conditions, &[leader, failed.to_owned()])),
        term: Some(active(&[rule(0, &[])])),
        pods: vec![pod(1), pod(2), pod_with(3, crashes, false)],
    }
}

fn shown(objects: &Objects) -> String {
    screen(&report(objects))
}

fn screen(report: &super::Report) -> String {
    text::screen(report, Timestamp::from_second(1_795_694_400).unwrap())
}

#[test]
fn all_is_well() {
    let mut report = report(&running());
    lag::tests::answered(
        &mut report,
        "m2.dataofm2aa.e1.clwn\t0\t0\nm3.dataofm3aa.e1.clwn\t1572864\t2.34\nsomeone\t5\t0\n",
    );
    assert!(report.ready);
    insta::assert_snapshot!(screen(&report));
}

#[test]
fn how_archiving_stands_is_told() {
    let archiving = |status: &str, reason: &str| {
        let mut objects = running();
        let set = objects.set.status.as_mut().unwrap();
        set.conditions.push(
            serde_json::from_value(serde_json::json!({
                "type": "Archiving", "status": status, "reason": reason, "message": "no connection",
                "lastTransitionTime": "2026-11-26T00:00:00Z", "observedGeneration": objects.set.metadata.generation,
            }))
            .unwrap(),
        );
        set.member_states[0].archive = Some(pgconvoy_crds::MemberArchive {
            archived: Some("0/3000148".into()),
            reason: reason.into(),
            ..Default::default()
        });
        shown(&objects)
    };
    let well = archiving("True", "Archiving");
    assert!(well.contains("Archive     Archiving, up to 0/3000148 when it was last told"), "{well}");
    let away = archiving("False", "StoreUnreachable");
    assert!(away.contains("not Archiving (StoreUnreachable): no connection"), "{away}");
}

#[test]
fn a_follower_that_does_not_stream_is_seen() {
    let mut report = report(&running());
    // Under its name, but in another epoch: it counts for nothing.
    lag::tests::answered(&mut report, "m2.dataofm2aa.e1.clwn\t0\t0\nm3.dataofm3aa.e9.clwn\t0\t0\n");
    assert!(screen(&report).contains("no stream"));
}

#[test]
fn no_leader_yet() {
    insta::assert_snapshot!(shown(&no_leader()));
}

#[test]
fn nothing_has_happened_yet() {
    insta::assert_snapshot!(shown(&no_status()));
}

#[test]
fn a_member_failed_and_another_crashes() {
    insta::assert_snapshot!(shown(&failed_member()));
}

#[test]
fn a_change_of_the_rule_is_pending_and_the_spec_is_newer() {
    let mut objects = running();
    objects.term = Some(active(&[rule(1, &[2]), rule(1, &[2, 3])]));
    objects.set.metadata.generation = Some(3);
    assert!(!report(&objects).ready, "Ready was told about an earlier spec");
    insta::assert_snapshot!(shown(&objects));
}

#[test]
fn one_member() {
    let conditions = [condition("Ready", "True", "AllMembersAttached", "orders-1 serves clients in epoch 1")];
    let objects = Objects {
        set: set(1, &status("1/1", "[orders-1]", &conditions, &[attached(1, "Leader")])),
        term: Some(active(&[rule(0, &[])])),
        pods: vec![pod(1)],
    };
    insta::assert_snapshot!(shown(&objects));
}

#[test]
fn scaling_down_and_an_operator_that_is_behind() {
    let mut objects = running();
    objects.set = set(
        2,
        &status(
            "0/2",
            "[orders-1, orders-2]",
            &[condition("Ready", "False", "MembersStarting", "0 of 2 members are attached")],
            &[attached(1, "Leader"), attached(2, "Follower"), attached(3, "Follower")],
        ),
    );
    insta::assert_snapshot!(shown(&objects));
}

#[test]
fn a_leader_that_is_chosen_and_one_that_is_past() {
    let mut objects = running();
    objects.term = Some(term(&format!(
        "{{setUid: u-set, epoch: {E2}, phase: Elected, leader: orders-2/dataofm2aa, configs: [{}], \
         chain: [clwngb37qybni, p3bvgfikymuqt]}}",
        rule(1, &[2, 3])
    )));
    objects.pods[0].metadata.uid = Some("u-another".to_owned());
    assert!(!report(&objects).ready, "nobody serves writes, and the operator has not said so yet");
    insta::assert_snapshot!(shown(&objects));
}

#[test]
fn a_leader_without_a_pod_and_a_term_of_another_set() {
    let mut objects = running();
    objects.pods.retain(|p| p.metadata.name.as_deref() != Some("orders-1"));
    assert!(!report(&objects).ready);
    assert!(shown(&objects).contains("orders-1 leads epoch 1, but has no pod: writes are not served"));
    objects.set.metadata.uid = Some("u-new".to_owned());
    let report = report(&objects);
    assert_eq!((report.leader.as_ref(), report.rule.as_ref()), (None, None));
    assert_eq!(
        report.notes,
        ["nobody obeys the PgTerm of this set: the PgTerm belongs to an earlier set of this name"]
    );
}

#[test]
fn commits_that_may_be_lost_are_told_forever() {
    let mut objects = running();
    objects.term.as_mut().unwrap().spec.history[0].lossy = true;
    assert!(shown(&objects).contains("acknowledged commits may have been lost when epoch 1 began"));
}

#[test]
fn a_line_for_each_set() {
    let mut other = running();
    other.set.metadata.name = Some("billing".to_owned());
    other.set.metadata.namespace = Some("office".to_owned());
    let reports: Vec<_> = [other, no_leader(), no_status(), failed_member()].iter().map(report).collect();
    let none = text::summary(&[], Some("shop"));
    insta::assert_snapshot!(
        [text::summary(&reports, None), text::summary(&reports[1..], Some("shop")), none].join("\n")
    );
}

#[test]
fn programs_get_the_same() {
    let mut report = report(&running());
    lag::tests::answered(&mut report, "m2.dataofm2aa.e1.clwn\t0\t0\n");
    insta::assert_snapshot!(super::json(&report).unwrap());
}
