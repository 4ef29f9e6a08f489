use super::World;
use crate::kinds::Kind;
use crate::replica_set::events::transitions;
use pgconvoy_crds::MemberPhase;
use serde_json::json;

fn ready(world: &World) -> (String, String) {
    let (_, reason, message) = world.condition("Ready");
    (reason, message)
}

fn starting() -> World {
    let mut world = World::new(3);
    world.settle();
    world
}

#[test]
fn a_pod_that_cannot_be_scheduled_is_named_with_kubernetes_own_words() {
    let mut world = starting();
    world.body(Kind::Pod, "orders-2")["status"] = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]});
    world.settle();
    let (reason, message) = ready(&world);
    assert_eq!(reason, "Unschedulable");
    assert!(message.contains("waiting for orders-2: cannot be scheduled: 0/3 nodes are available"), "{message}");
    assert!(message.ends_with("and for 2 more"), "{message}");
}

#[test]
fn a_storage_class_that_is_not_there_is_named() {
    let mut world = starting();
    world.set.spec.storage.storage_class_name = Some("none-such".to_owned());
    for n in 1..=3 {
        world.body(Kind::Claim, &format!("orders-{n}-data"))["spec"]["storageClassName"] = json!("none-such");
        world.body(Kind::Claim, &format!("orders-{n}-data"))["status"] = json!({"phase": "Pending"});
    }
    assert_eq!(world.observed().awaited_class(), None, "no pod waits for it yet");
    world.body(Kind::Pod, "orders-1")["status"] = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "unbound immediate PersistentVolumeClaims"}]});
    assert_eq!(world.observed().awaited_class(), Some("none-such"));
    world.settle();
    assert!(ready(&world).1.contains("no volume for its claim orders-1-data of storage class none-such yet"));
    world.no_such_class = Some("none-such".to_owned());
    world.settle();
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "NoStorageClass"));
    assert!(message.starts_with("orders-1: there is no storage class none-such"), "{message}");
}

#[test]
fn a_failing_pull_reads_the_same_in_both_of_its_wrappings() {
    let mut world = starting();
    let waiting = |reason: &str, message: &str| {
        json!({"phase": "Pending", "containerStatuses": [{"name": "postgres", "image": "postgres:17", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]})
    };
    world.body(Kind::Pod, "orders-1")["status"] = waiting("ErrImagePull", "not found");
    world.settle();
    let first = ready(&world);
    assert_eq!(first.0, "ImageUnusable");
    assert!(first.1.contains("the PostgreSQL image postgres:17 cannot be pulled: not found"), "{}", first.1);
    let told = transitions(&Default::default(), world.set.status.as_ref().unwrap());
    let notes: Vec<_> = told.iter().filter(|e| e.reason == "ImageUnusable").filter_map(|e| e.note.as_ref()).collect();
    assert!(matches!(notes[..], [note] if note.contains("cannot be pulled: not found")), "{notes:?}");
    world.body(Kind::Pod, "orders-1")["status"] =
        waiting("ImagePullBackOff", "Back-off pulling image \"postgres:17\": ErrImagePull: not found");
    assert_eq!(world.reconcile(usize::MAX), 0, "{:?}", ready(&world));
}

#[test]
fn a_member_that_failed_stalls_the_set_with_its_own_words() {
    let mut world = starting();
    world.say(3, MemberPhase::Failed, |s| s.message = Some("the volume holds another system".to_owned()));
    world.settle();
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "MemberFailed"));
    assert!(message.contains("orders-3: it needs a person: the volume holds another system"), "{message}");
    assert_eq!(world.condition("Reconciling").0, "False");
}

#[test]
fn what_a_person_can_mend_is_told_by_the_agents_own_word() {
    let mut world = starting();
    world.lead(1, 1, &[2, 3]);
    world.settle();
    let before = world.set.status.clone().unwrap();
    world.say(2, MemberPhase::Starting, |s| {
        s.reason = Some("VolumeFull".to_owned());
        s.message = Some("the volume is full".to_owned());
    });
    world.settle();
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!(
        (status.as_str(), reason.as_str(), message.as_str()),
        ("True", "VolumeFull", "orders-2: the volume is full")
    );
    assert_eq!(ready(&world).0, "VolumeFull");
    let told: Vec<_> = transitions(&before, world.set.status.as_ref().unwrap()).into_iter().map(|e| e.reason).collect();
    assert_eq!(told, ["VolumeFull"], "once, though two conditions say it");
    // A word of a later version: what it says is told all the same.
    world.say(2, MemberPhase::Starting, |s| {
        s.reason = Some("Unheard".to_owned());
        s.message = Some("it is odd".to_owned());
    });
    world.settle();
    assert_eq!(ready(&world).0, "MembersStarting");
    assert!(ready(&world).1.contains("it is odd"));
}

#[test]
fn whose_flush_a_commit_waits_for_is_told_as_it_is() {
    let durability = |world: &World| world.set.status.clone().unwrap().durability;
    let mut world = starting();
    assert_eq!(durability(&world), None, "nobody leads");
    world.lead(1, 1, &[]);
    world.settle();
    assert_eq!(durability(&world).as_deref(), Some("leader only"), "its followers are still to come");
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(durability(&world).as_deref(), Some("quorum 1/2"));
    let asynchronous = json!({ "mode": "async" });
    world.set.spec.durability = Some(serde_json::from_value(asynchronous).unwrap());
    world.settle();
    assert_eq!(durability(&world).as_deref(), Some("quorum 1/2"), "the rule in force is still the other one");
    world.lead(2, 1, &[]);
    world.settle();
    assert_eq!(durability(&world).as_deref(), Some("async"));
}

#[test]
fn a_leader_that_acknowledges_alone_is_told_of_while_it_does() {
    let mut world = starting();
    world.set.spec.durability = Some(serde_json::from_value(json!({ "whenShort": "degrade" })).unwrap());
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(world.set.status.as_ref().unwrap().durability.as_deref(), Some("quorum 1/2"));
    assert_ne!(ready(&world).0, "Degraded");
    world.lead(1, 1, &[]);
    world.settle();
    assert_ne!(ready(&world).0, "Degraded", "no client is let in yet");
    let serves = json!([{"name": "agent", "ready": true, "image": "", "imageID": "", "restartCount": 0}]);
    world.body(Kind::Pod, "orders-1")["status"]["initContainerStatuses"] = serves;
    world.settle();
    assert_eq!(world.set.status.as_ref().unwrap().durability.as_deref(), Some("degraded: leader only"));
    let (reason, message) = ready(&world);
    assert_eq!(reason, "Degraded");
    assert!(message.starts_with("orders-1 acknowledges commits alone: if it is lost now, so are they."), "{message}");
    let before = world.set.status.clone().unwrap();
    world.lead(1, 1, &[2]);
    world.settle();
    assert_ne!(ready(&world).0, "Degraded");
    let told: Vec<_> = transitions(&before, world.set.status.as_ref().unwrap()).into_iter().map(|e| e.reason).collect();
    assert!(!told.contains(&"Degraded".to_owned()), "{told:?}");
}

#[test]
fn copies_that_a_rule_cannot_do_without_are_missed() {
    let mut world = starting();
    world.lead(1, 1, &[2, 3]);
    let other = |s: &mut pgconvoy_crds::MemberState| {
        s.epoch = Some(1);
        s.incarnation = Some("zzzzzzzzzz".to_owned());
    };
    world.say(2, MemberPhase::Attached, other);
    world.settle();
    assert_eq!(world.condition("Stalled").0, "False", "the copy of orders-3 is there, and one is enough");
    world.say(3, MemberPhase::Attached, other);
    world.settle();
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "CopiesLost"));
    assert!(
        message.contains("orders-1 still has every commit")
            && message.contains("takeover orders --epoch 1 --accept-loss"),
        "{message}"
    );
    assert_eq!(ready(&world).0, "CopiesLost");
}

#[test]
fn what_members_leave_to_a_person_is_told_as_the_first_of_them_says_it() {
    let mut world = World::running(3);
    world.settle();
    assert_eq!(world.condition("Stalled").0, "False");
    for (n, text) in [(3, "another"), (2, "kubectl pgconvoy takeover orders --epoch 1")] {
        let says = |s: &mut pgconvoy_crds::MemberState| {
            s.epoch = Some(1);
            s.reason = Some("WaitsForTakeover".to_owned());
            s.message = Some(text.to_owned());
        };
        world.say(n, MemberPhase::Attached, says);
    }
    world.settle();
    let expected = |status: &str| {
        (status.to_owned(), "WaitsForTakeover".to_owned(), "kubectl pgconvoy takeover orders --epoch 1".to_owned())
    };
    assert_eq!(world.condition("Stalled"), expected("True"));
    assert_eq!(world.condition("Ready"), expected("False"));
}

#[test]
fn a_set_that_lost_its_leaders_data_and_a_followers_is_told_to_be_taken_over() {
    let mut world = starting();
    world.lead(4, 1, &[2, 3]);
    let empty = |s: &mut pgconvoy_crds::MemberState| s.incarnation = None;
    world.say(1, MemberPhase::Failed, empty);
    world.settle();
    assert_ne!(world.condition("Stalled").1, "CopiesLost", "two followers are enough");
    world.say(2, MemberPhase::CatchingUp, empty);
    world.settle();
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "CopiesLost"));
    assert!(message.contains("orders-1, orders-2 had is gone, the others cannot know"), "{message}");
    assert!(message.contains("takeover orders --epoch 4 --accept-loss"), "{message}");
}

#[test]
fn a_claim_that_was_deleted_under_its_member_is_told_while_the_pod_runs() {
    let mut world = World::running(3);
    world.settle();
    assert!(!world.condition("Ready").2.contains("claim"));
    world.body(Kind::Claim, "orders-2-data")["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.settle();
    let (status, _, message) = world.condition("Ready");
    assert!(status == "True" && message.contains("the volume claim of orders-2 was deleted"), "{message}");
}

#[test]
fn only_what_the_present_pod_says_in_the_present_epoch_counts() {
    let mut world = starting();
    world.lead(1, 1, &[2, 3]);
    world.settle();
    let status = world.set.status.clone().unwrap();
    assert_eq!(
        (status.ready.as_deref(), status.members, status.leader.as_deref()),
        (Some("3/3"), Some(3), Some("orders-1"))
    );
    assert_eq!((status.epoch, status.durability.as_deref()), (Some(1), Some("quorum 1/2")));
    // An entry of an earlier pod, and one of an earlier epoch.
    world.say(2, MemberPhase::Attached, |s| {
        s.epoch = Some(1);
        s.pod_uid = Some("earlier".to_owned());
    });
    world.say(3, MemberPhase::Attached, |s| s.epoch = Some(0));
    world.settle();
    assert_eq!(world.set.status.clone().unwrap().ready.as_deref(), Some("1/3"));
}

#[test]
fn a_refused_configuration_is_told_while_the_set_serves_on() {
    let mut world = starting();
    world.lead(1, 1, &[2, 3]);
    world.say(1, MemberPhase::Attached, |s| {
        s.epoch = Some(1);
        s.configuration_error = Some("invalid value for parameter \"work_mem\": \"lots\"".to_owned());
    });
    world.settle();
    assert_eq!(world.condition("Ready").0, "True");
    let (status, reason, message) = world.condition("Configured");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ConfigurationRefused"));
    assert!(message.contains("it goes on with the last good one") && message.contains("work_mem"), "{message}");
}

#[test]
fn members_that_want_a_restart_are_named_in_their_order() {
    let mut world = starting();
    world.lead(1, 1, &[2, 3]);
    world.set.spec.update = Some(serde_json::from_value(json!({ "strategy": "Manual" })).unwrap());
    for n in [3, 1, 2] {
        world.say(n, MemberPhase::Attached, |s| {
            s.epoch = Some(1);
            s.pending_restart = vec!["max_connections".to_owned()];
        });
    }
    world.settle();
    let (_, reason, message) = world.condition("Configured");
    assert_eq!(reason, "RestartRequired");
    assert!(message.contains("max_connections to take effect in orders-1, orders-2, orders-3"), "{message}");
}

#[test]
fn a_new_set_whose_configuration_is_refused_waits_for_a_person() {
    let mut world = starting();
    assert_eq!(world.condition("Configured").0, "False", "nothing runs yet");
    let before = world.set.status.clone().unwrap();
    world.say(1, MemberPhase::Initializing, |s| {
        s.configuration_error = Some("unrecognized configuration parameter \"wrok_mem\"".to_owned());
    });
    world.settle();
    let sentence = "PostgreSQL refuses the configuration";
    for (type_, status) in [("Ready", "False"), ("Stalled", "True"), ("Configured", "False")] {
        let (is, reason, message) = world.condition(type_);
        assert_eq!((is.as_str(), reason.as_str()), (status, "ConfigurationRefused"), "{type_}");
        assert!(message.contains(sentence) && message.contains("wrok_mem"), "{type_}: {message}");
        assert!(!message.contains("goes on"), "{message}");
    }
    let told = transitions(&before, world.set.status.as_ref().unwrap());
    assert_eq!(told.iter().map(|e| e.reason.as_str()).collect::<Vec<_>>(), ["ConfigurationRefused"]);
}

#[test]
fn a_condition_keeps_its_time_while_it_stays() {
    let mut world = starting();
    let time = |w: &World| w.set.status.clone().unwrap().conditions[0].last_transition_time.0;
    let before = time(&world);
    world.later(jiff::SignedDuration::from_secs(60));
    world.say(1, MemberPhase::Initializing, |_| {});
    world.settle();
    assert!(ready(&world).1.contains("making the first database"), "the message moved on");
    assert_eq!(time(&world), before, "the status did not");
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(time(&world), world.now);
}

#[test]
fn events_tell_transitions_once() {
    let mut world = starting();
    let before = world.set.status.clone().unwrap();
    world.lead(1, 1, &[2, 3]);
    world.settle();
    let after = world.set.status.clone().unwrap();
    let reasons: Vec<String> = transitions(&before, &after).into_iter().map(|e| e.reason).collect();
    assert_eq!(reasons, ["AllMembersAttached", "LeaderActive"]);
    assert!(transitions(&after, &after).is_empty());
}

#[test]
fn a_wrong_spec_is_answered_with_sentences() {
    let mut world = starting();
    world.set.spec.members = 0;
    world.set.spec.storage.size.0 = "big".to_owned();
    let wrong = crate::replica_set::validate::validate(&world.set, "agent:1").unwrap_err();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].contains("spec.members is 0") && wrong[1].contains("give a size, like 20Gi"));
}

#[test]
fn the_last_change_of_the_leader_is_kept() {
    let mut world = World::new(3);
    world.settle();
    world.lead(1, 1, &[2, 3]);
    world.settle();
    let last = |w: &World| w.set.status.clone().unwrap().last_failover;
    assert_eq!(last(&world), None, "the first leader follows nobody");
    world.lead_after(2, 3, &[1, 2], 1);
    world.settle();
    let seen = last(&world).unwrap();
    assert_eq!((seen.epoch, seen.from.as_str(), seen.to.as_str()), (2, "orders-1", "orders-3"));
    let at = seen.at.clone();
    world.later(jiff::SignedDuration::from_secs(100));
    world.settle();
    assert_eq!(last(&world).unwrap().at, at, "it does not change by itself");
    world.lead_after(3, 3, &[1, 2], 3);
    world.settle();
    assert_eq!(last(&world).unwrap().epoch, 2, "the same member leads again");
}
