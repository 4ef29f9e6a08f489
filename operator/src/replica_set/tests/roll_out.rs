//! Another image: who is made anew, when, and what is said meanwhile.

use super::World;
use crate::kinds::Kind;
use pgconvoy_crds::{MemberPhase, Update, UpdateStrategy};

fn running(members: i32, image: &str) -> World {
    let mut world = World::running(members);
    world.set.spec.image = image.to_owned();
    world
}

fn image(world: &mut World, name: &str) -> String {
    world.body(Kind::Pod, name)["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

#[test]
fn followers_first_the_leader_last_one_at_a_time() {
    let mut world = running(3, "postgres:17.6");
    world.settle();
    assert_eq!(world.restarts, ["orders-2"]);
    let (status, reason, message) = world.condition("Configured");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RollingOut"));
    assert!(message.contains("it waits until orders-2 is attached"), "{message}");
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(world.restarts, ["orders-2", "orders-3"]);
    world.settle();
    assert_eq!(world.restarts.len(), 2, "one is away");
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(world.restarts, ["orders-2", "orders-3", "orders-1"]);
    world.lead(2, 2, &[1, 3]);
    world.settle();
    assert_eq!(world.restarts.len(), 3);
    for n in ["orders-1", "orders-2", "orders-3"] {
        assert_eq!(image(&mut world, n), "postgres:17.6");
    }
    assert_eq!(world.condition("Configured").0, "True");
    assert_eq!(world.condition("Reconciling").0, "False");
}

#[test]
fn a_member_that_does_not_come_back_stops_it_and_the_old_image_brings_it_back() {
    let mut world = running(3, "postgres:typo");
    world.settle();
    world.body(Kind::Pod, "orders-2")["status"] = serde_json::json!({"phase": "Pending"});
    world.settle();
    assert_eq!(world.restarts, ["orders-2"]);
    assert!(world.condition("Configured").2.contains("orders-2"), "{:?}", world.condition("Configured"));
    world.set.spec.image = "postgres:17".to_owned();
    world.settle();
    assert_eq!(image(&mut world, "orders-2"), "postgres:17");
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(world.restarts, ["orders-2"], "the others run by this spec");
    assert_eq!(world.condition("Configured").0, "True");
}

#[test]
fn whoever_takes_no_part_is_made_anew_first() {
    let mut world = running(3, "postgres:17.6");
    world.say(3, MemberPhase::CatchingUp, |_| {});
    world.settle();
    assert_eq!(world.restarts, ["orders-3"]);
}

#[test]
fn parameters_that_need_a_restart_get_one() {
    let mut world = running(3, "postgres:17");
    world.say(3, MemberPhase::Attached, |s| {
        s.epoch = Some(1);
        s.pending_restart = vec!["shared_buffers".to_owned()];
    });
    world.settle();
    assert_eq!(world.restarts, ["orders-3"]);
    assert!(world.condition("Configured").1 != "RestartRequired");
}

/// It started with the parameters that were on its volume, and takes the new ones before it takes part.
#[test]
fn a_member_that_starts_is_not_started_again() {
    let mut world = running(3, "postgres:17");
    world.say(3, MemberPhase::Starting, |s| s.pending_restart = vec!["max_connections".to_owned()]);
    world.settle();
    assert!(world.restarts.is_empty(), "{:?}", world.restarts);
}

#[test]
fn what_would_stop_writes_and_what_is_to_be_done_by_hand_waits_for_a_person() {
    let mut two = running(2, "postgres:17.6");
    two.settle();
    let (_, reason, message) = two.condition("Configured");
    assert_eq!((two.restarts.len(), reason.as_str()), (0, "RolloutPending"));
    assert!(message.contains("writes stop while one of 2 members is away"), "{message}");
    assert!(message.contains("delete these pods one at a time"), "{message}");
    let mut manual = running(3, "postgres:17.6");
    manual.set.spec.update = Some(Update { strategy: Some(UpdateStrategy::Manual) });
    manual.settle();
    let (_, reason, message) = manual.condition("Configured");
    assert_eq!((manual.restarts.len(), reason.as_str()), (0, "RolloutPending"));
    assert!(message.contains("update.strategy is Manual"), "{message}");
    let mut one = running(1, "postgres:17.6");
    one.settle();
    assert_eq!(one.restarts, ["orders-1"], "nobody else can lead meanwhile, whoever does it");
}

#[test]
fn without_a_leader_nothing_is_taken_away() {
    let mut world = running(3, "postgres:17.6");
    let term = world.body(Kind::Term, "orders");
    term["spec"]["phase"] = serde_json::json!("Recruiting");
    term["spec"].as_object_mut().unwrap().remove("leader");
    world.settle();
    assert!(world.restarts.is_empty());
}
