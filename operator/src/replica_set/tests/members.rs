use super::{UID, World};
use crate::kinds::Kind;
use pgconvoy_crds::{MemberPhase, WhenDeleted};
use serde_json::json;

fn roster(world: &World) -> Vec<String> {
    world.set.status.clone().unwrap().roster
}

#[test]
fn a_set_grows_by_the_lowest_free_ordinals() {
    let mut world = World::running(3);
    world.set.spec.members = 5;
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-2", "orders-3", "orders-4", "orders-5"]);
    assert_eq!(roster(&world).len(), 5);
    assert_eq!(world.body(Kind::Budget, "orders")["spec"]["minAvailable"], json!(4));
}

#[test]
fn a_member_leaves_the_roster_then_the_rule_and_only_then_its_pod_goes() {
    let mut world = World::running(5);
    world.set.spec.members = 3;
    world.settle();
    assert_eq!(roster(&world), ["orders-1", "orders-2", "orders-3"]);
    assert_eq!(world.names(Kind::Pod).len(), 5, "the rule still counts them");
    assert_eq!(world.condition("Reconciling").1, "ScalingDown");
    world.lead(1, 1, &[2, 3, 5]);
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-2", "orders-3", "orders-5"]);
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-2", "orders-3"]);
    assert_eq!(world.names(Kind::Claim).len(), 5, "volumes are kept unless told");
    assert_eq!(world.condition("Reconciling").0, "False");
    assert_eq!(world.set.status.clone().unwrap().member_states.len(), 3, "what they said of themselves goes with them");
}

#[test]
fn certificates_go_too_when_the_operator_died_between_them_and_the_pod() {
    for volume_gone in [false, true] {
        let mut world = World::running(4);
        world.set.spec.members = 3;
        world.lead(1, 1, &[2, 3]);
        world.reconcile(usize::MAX);
        world.take(Kind::Pod, "orders-4");
        if volume_gone {
            world.take(Kind::Claim, "orders-4-data");
        }
        assert!(world.names(Kind::Secret).contains(&"orders-4-tls"));
        world.settle();
        assert!(!world.names(Kind::Secret).contains(&"orders-4-tls"));
    }
}

#[test]
fn nothing_is_taken_away_before_the_shorter_roster_was_published() {
    let mut world = World::running(3);
    world.set.spec.members = 2;
    // The rule is ahead of the status: an agent that died and came back, say.
    world.lead(1, 1, &[2]);
    assert!(!world.planned().actions.iter().any(|a| matches!(a, super::Action::Remove { .. })));
    world.reconcile(usize::MAX);
    assert!(world.planned().actions.iter().any(|a| matches!(a, super::Action::Remove { .. })));
}

#[test]
fn the_leader_stays_when_the_set_shrinks_whatever_its_ordinal() {
    let mut world = World::running(5);
    world.lead(2, 5, &[1, 2, 3, 4]);
    world.set.spec.members = 3;
    world.settle();
    assert_eq!(roster(&world), ["orders-1", "orders-2", "orders-5"]);
    world.lead(2, 5, &[1, 2]);
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-2", "orders-5"]);
    world.lead(3, 1, &[2, 5]);
    world.settle();
    assert_eq!(roster(&world), ["orders-1", "orders-2", "orders-5"], "members that are there stay");
}

#[test]
fn without_a_leader_nobody_is_thrown_out() {
    let mut world = World::running(5);
    let term = world.body(Kind::Term, "orders");
    term["spec"]["phase"] = json!("Recruiting");
    term["spec"].as_object_mut().unwrap().remove("leader");
    world.set.spec.members = 3;
    world.settle();
    assert_eq!(roster(&world).len(), 5);
    assert_eq!(world.names(Kind::Pod).len(), 5);
}

#[test]
fn a_lost_status_does_not_move_the_set() {
    let mut world = World::running(5);
    world.lead(2, 5, &[1, 2, 3, 4]);
    world.set.spec.members = 3;
    world.settle();
    world.lead(2, 5, &[1, 2]);
    world.settle();
    world.set.status = None;
    world.settle();
    assert_eq!(roster(&world), ["orders-1", "orders-2", "orders-5"]);
}

#[test]
fn volumes_go_with_their_members_only_when_told_and_while_copies_are_enough() {
    let mut world = World::running(3);
    world.set.spec.storage.when_deleted = Some(WhenDeleted::Delete);
    world.settle();
    assert_eq!(world.body(Kind::Claim, "orders-3-data")["metadata"]["ownerReferences"][0]["uid"], json!(UID));
    world.set.spec.members = 2;
    world.settle();
    world.lead(1, 1, &[2]);
    world.say(2, MemberPhase::CatchingUp, |_| {});
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-2"]);
    assert_eq!(world.names(Kind::Claim).len(), 3, "one attached member is not W + 1 copies");
    world.lead(1, 1, &[2]);
    world.settle();
    assert_eq!(world.names(Kind::Claim), ["orders-1-data", "orders-2-data"]);
    world.set.spec.storage.when_deleted = Some(WhenDeleted::Keep);
    world.settle();
    assert_eq!(world.body(Kind::Claim, "orders-1-data")["metadata"]["ownerReferences"], json!([]));
}

#[test]
fn a_failed_pod_is_made_again_on_the_same_volume() {
    let mut world = World::running(3);
    let claim = world.body(Kind::Claim, "orders-2-data").clone();
    let before = world.body(Kind::Pod, "orders-2")["metadata"]["uid"].clone();
    world.body(Kind::Pod, "orders-2")["status"] =
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
    world.reconcile(usize::MAX);
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-3"]);
    world.settle();
    assert_ne!(world.body(Kind::Pod, "orders-2")["metadata"]["uid"], before);
    assert_eq!(*world.body(Kind::Claim, "orders-2-data"), claim);
    assert_eq!(world.condition("Ready").0, "False", "the new pod has not attached yet");
}

#[test]
fn a_pod_that_is_still_going_is_waited_for() {
    let mut world = World::running(3);
    world.body(Kind::Pod, "orders-2")["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.say(2, MemberPhase::Stopping, |_| {});
    world.settle();
    assert!(world.body(Kind::Pod, "orders-2")["metadata"]["deletionTimestamp"].is_string());
    assert!(world.condition("Ready").2.contains("waiting for orders-2: its pod is stopping"));
}

#[test]
fn a_kept_volume_of_an_earlier_set_stops_its_member_and_says_what_to_do() {
    let mut world = World::new(3);
    world.settle();
    world.body(Kind::Claim, "orders-2-data")["metadata"]["annotations"]["pgconvoy.dev/set-uid"] = json!("another");
    world.take(Kind::Pod, "orders-2");
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-3"]);
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "ForeignVolume"));
    assert!(message.contains("the volume claims orders-2-data hold data of an earlier replica set"), "{message}");
    world.take(Kind::Claim, "orders-2-data");
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-2", "orders-3"]);
    assert_eq!(world.condition("Stalled").0, "False");
}

/// Kept volumes say whose data they hold, so that a set that is made again can be told to go on with it.
#[test]
fn kept_volumes_are_adopted_by_their_system_identifier() {
    let mut world = World::running(1);
    world.say(1, MemberPhase::Attached, |s| s.system_id = Some("7712".to_owned()));
    world.settle();
    let claim = |w: &mut World| w.body(Kind::Claim, "orders-1-data")["metadata"]["annotations"].clone();
    assert_eq!(claim(&mut world)["pgconvoy.dev/system-id"], json!("7712"));

    let mut again = World::new(1);
    again.bodies.insert((Kind::Claim, "orders-1-data".to_owned()), world.body(Kind::Claim, "orders-1-data").clone());
    again.body(Kind::Claim, "orders-1-data")["metadata"]["annotations"]["pgconvoy.dev/set-uid"] = json!("earlier");
    again.settle();
    let (_, reason, message) = again.condition("Stalled");
    assert_eq!(reason, "ForeignVolume");
    assert!(message.contains("spec.bootstrap: {adopt: {systemId: \"7712\"}}"), "{message}");
    assert!(again.names(Kind::Pod).is_empty());

    let adopt = |id: &str| serde_json::from_value(json!({"adopt": {"systemId": id}})).unwrap();
    again.set.spec.bootstrap = Some(adopt("7713"));
    again.settle();
    assert_eq!(again.condition("Stalled").1, "ForeignVolume", "other data was taken");
    again.set.spec.bootstrap = Some(adopt("7712"));
    again.take(Kind::Term, "orders");
    again.settle();
    assert_eq!(claim(&mut again)["pgconvoy.dev/set-uid"], json!(UID));
    assert_eq!(again.names(Kind::Pod), ["orders-1"]);
    assert_eq!(again.body(Kind::Term, "orders")["spec"]["remade"], json!(true), "it could begin anew beside the data");
    let pod = again.body(Kind::Pod, "orders-1").to_string();
    assert!(pod.contains(r#"{"name":"PGCONVOY_ADOPT","value":"7712"}"#), "{pod}");
}

#[test]
fn a_term_of_another_set_stops_everything_that_could_write() {
    let mut world = World::new(3);
    world.settle();
    world.body(Kind::Term, "orders")["spec"]["setUid"] = json!("another");
    world.take(Kind::Pod, "orders-2");
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-3"]);
    assert_eq!(world.condition("Stalled").1, "ForeignTerm");
}

#[test]
fn a_lost_term_is_made_anew_so_that_nobody_begins_beside_data() {
    let mut world = World::running(3);
    world.take(Kind::Term, "orders");
    world.settle();
    let spec = world.body(Kind::Term, "orders")["spec"].clone();
    assert_eq!((&spec["epoch"]["number"], &spec["remade"]), (&json!(0), &json!(true)));
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "TermLost"));
    assert!(message.contains("kubectl pgconvoy term repair orders"), "{message}");
    let status = world.set.status.clone().unwrap();
    assert_eq!(
        (status.leader.as_deref(), status.ready.as_deref()),
        (Some("orders-1"), Some("3/3")),
        "what runs goes on"
    );
    assert!(world.body(Kind::Pod, "orders-1")["metadata"]["labels"]["pgconvoy.dev/role"] == "leader");
    assert_eq!(world.set.status.clone().unwrap().epoch, Some(1), "and the set does not forget its epoch");
}

/// The watch of the PgTerm and the members' words do not come at one time: only a member knows for certain.
#[test]
fn a_term_that_was_set_back_is_told_in_a_members_words() {
    let mut world = World::running(3);
    assert_eq!(world.condition("Stalled").0, "False");
    let states = &mut world.set.status.as_mut().unwrap().member_states;
    states[1].reason = Some("TermRolledBack".to_owned());
    states[1].message = Some("the PgTerm is older; type this".to_owned());
    world.settle();
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "TermRolledBack"));
    assert_eq!(message, "the PgTerm is older; type this (runbook: The term is lost or rolled back)");
}

#[test]
fn objects_of_an_earlier_set_that_kubernetes_still_removes_are_waited_for() {
    let mut world = World::new(1);
    world.settle();
    for (kind, name) in [(Kind::Secret, "orders-1-tls"), (Kind::Service, "orders-rw"), (Kind::Pod, "orders-1")] {
        world.body(kind, name)["metadata"]["ownerReferences"][0]["uid"] = json!("another");
    }
    world.settle();
    assert_eq!(world.condition("Reconciling").1, "WaitingForDeletion");
    assert_eq!(world.condition("Stalled").0, "False", "it passes by itself");
    for (kind, name) in [(Kind::Secret, "orders-1-tls"), (Kind::Service, "orders-rw"), (Kind::Pod, "orders-1")] {
        world.take(kind, name);
    }
    world.settle();
    assert_eq!(world.body(Kind::Pod, "orders-1")["metadata"]["ownerReferences"][0]["uid"], json!(UID));
}

#[test]
fn a_volume_grows_and_does_not_shrink() {
    let mut world = World::running(1);
    world.set.spec.storage.size.0 = "30Gi".to_owned();
    world.settle();
    let size = |w: &mut World| w.body(Kind::Claim, "orders-1-data")["spec"]["resources"]["requests"]["storage"].clone();
    assert_eq!(size(&mut world), json!("30Gi"));
    world.set.spec.storage.size.0 = "10Gi".to_owned();
    world.settle();
    assert_eq!(size(&mut world), json!("30Gi"));
    assert!(world.condition("Configured").2.contains("volumes cannot shrink"));
    assert_eq!(world.condition("Ready").0, "True", "the set serves on");
}

#[test]
fn a_pod_in_which_postgresql_never_ran_is_made_again_when_the_spec_is_mended() {
    let mut world = World::new(3);
    world.set.spec.image = "postgers:17".to_owned();
    world.settle();
    for n in 1..=3 {
        world.body(Kind::Pod, &format!("orders-{n}"))["status"] = json!({"phase": "Pending"});
    }
    // The second one's image could be started, and holds no PostgreSQL; the third is a good one of old.
    world.body(Kind::Pod, "orders-2")["status"] = json!({"phase": "Running"});
    world.say(2, MemberPhase::Starting, |s| s.reason = Some("ImageUnusable".to_owned()));
    world.body(Kind::Pod, "orders-3")["status"] = json!({"phase": "Running"});
    world.say(3, MemberPhase::CatchingUp, |_| {});
    let old = ["orders-1", "orders-2", "orders-3"].map(|n| world.body(Kind::Pod, n)["metadata"]["uid"].clone());
    world.settle();
    assert_eq!(world.names(Kind::Pod).len(), 3, "nothing is deleted while the spec stays");
    world.set.spec.image = "postgres:17".to_owned();
    world.settle();
    let new = ["orders-1", "orders-2", "orders-3"].map(|n| world.body(Kind::Pod, n)["metadata"]["uid"].clone());
    assert!(old[0] != new[0] && old[1] != new[1], "{old:?} {new:?}");
    assert_eq!(old[2], new[2]);
    assert_eq!(world.body(Kind::Pod, "orders-1")["spec"]["containers"][0]["image"], "postgres:17");
}

#[test]
fn a_single_member_has_no_budget_so_that_its_node_can_be_drained() {
    let mut world = World::running(1);
    assert!(world.names(Kind::Budget).is_empty());
    world.set.spec.members = 2;
    world.settle();
    assert_eq!(world.body(Kind::Budget, "orders")["spec"]["minAvailable"], json!(1));
    world.set.spec.members = 1;
    world.settle();
    assert!(world.names(Kind::Budget).is_empty());
}

#[test]
fn labels_tell_people_who_leads() {
    let mut world = World::running(3);
    let role = |w: &mut World, n: &str| w.body(Kind::Pod, n)["metadata"]["labels"]["pgconvoy.dev/role"].clone();
    assert_eq!(role(&mut world, "orders-1"), json!("leader"));
    assert_eq!(role(&mut world, "orders-3"), json!("follower"));
    world.lead(2, 3, &[1, 2]);
    world.settle();
    assert_eq!(role(&mut world, "orders-1"), json!("follower"));
    assert_eq!(role(&mut world, "orders-3"), json!("leader"));
}
