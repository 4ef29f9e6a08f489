//! Another agent's image: it is brought to the nodes first, then agents are replaced in place.

use super::World;
use crate::kinds::Kind;
use pgconvoy_crds::{MemberPhase, Update, UpdateStrategy};
use serde_json::json;

const PULLERS: [&str; 3] = ["orders-1-pull", "orders-2-pull", "orders-3-pull"];

/// A set whose agents run on three nodes, and an operator that brings the next ones.
fn upgraded() -> World {
    let mut world = World::running(3);
    for n in 1..=3 {
        world.body(Kind::Pod, &format!("orders-{n}"))["spec"]["nodeName"] = json!(format!("node-{n}"));
        starts(&mut world, n, "first");
    }
    world.agent_image = "agent:2".to_owned();
    world
}

/// This agent's container runs.
fn starts(world: &mut World, n: u32, container: &str) {
    let name = format!("orders-{n}");
    let status = json!([{"name": "agent", "ready": true, "containerID": container, "image": "", "imageID": "", "restartCount": 0}]);
    world.body(Kind::Pod, &name)["status"]["initContainerStatuses"] = status;
}

fn pulled(world: &mut World) {
    for name in PULLERS {
        world.body(Kind::Puller, name)["status"] = json!({"phase": "Succeeded"});
    }
}

fn image(world: &mut World, n: u32) -> String {
    world.body(Kind::Pod, &format!("orders-{n}"))["spec"]["initContainers"][1]["image"].as_str().unwrap().to_owned()
}

#[test]
fn the_image_comes_first_then_the_followers_then_the_leader_and_no_pod_goes() {
    let mut world = upgraded();
    world.settle();
    assert_eq!(world.names(Kind::Puller), PULLERS);
    assert_eq!(world.body(Kind::Puller, "orders-2-pull")["spec"]["nodeName"], json!("node-2"));
    assert!(world.replaced.is_empty());
    let (status, reason, message) = world.condition("Configured");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RollingOut"));
    assert!(message.contains("until node node-1 has the image agent:2"), "{message}");
    pulled(&mut world);
    world.settle();
    assert_eq!(world.replaced, ["orders-2"], "one at a time");
    starts(&mut world, 2, "second");
    world.settle();
    starts(&mut world, 3, "second");
    world.settle();
    assert_eq!(world.replaced, ["orders-2", "orders-3", "orders-1"]);
    starts(&mut world, 1, "second");
    world.settle();
    assert_eq!((1..=3).map(|n| image(&mut world, n)).collect::<Vec<_>>(), ["agent:2"; 3]);
    assert!(world.names(Kind::Puller).is_empty(), "{:?}", world.names(Kind::Puller));
    assert!(world.restarts.is_empty());
    assert_eq!(world.condition("Configured").0, "True");
}

#[test]
fn an_image_that_is_not_to_be_had_disturbs_nobody() {
    let mut world = upgraded();
    world.settle();
    pulled(&mut world);
    let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "no such host"}});
    let status =
        json!([{"name": "pull", "ready": false, "image": "", "imageID": "", "restartCount": 0, "state": waiting}]);
    world.body(Kind::Puller, "orders-3-pull")["status"] = json!({"phase": "Pending", "containerStatuses": status});
    world.settle();
    assert!(world.replaced.is_empty());
    let message = world.condition("Configured").2;
    assert!(message.contains("node node-3 has the image agent:2 (ErrImagePull: no such host)"), "{message}");
    world.agent_image = "agent:1".to_owned();
    world.settle();
    assert!(world.names(Kind::Puller).is_empty());
    assert_eq!(world.condition("Configured").0, "True");
}

#[test]
fn an_agent_that_does_not_settle_stops_it_and_the_last_image_brings_it_back() {
    let mut world = upgraded();
    world.settle();
    pulled(&mut world);
    world.settle();
    world.body(Kind::Pod, "orders-2")["status"]["initContainerStatuses"][0]["ready"] = json!(false);
    world.settle();
    assert_eq!(world.replaced, ["orders-2"]);
    assert!(world.condition("Configured").2.contains("the agent of orders-2"), "{}", world.condition("Configured").2);
    world.agent_image = "agent:1".to_owned();
    world.settle();
    world.body(Kind::Puller, "orders-2-pull")["status"] = json!({"phase": "Succeeded"});
    world.settle();
    assert_eq!(world.replaced, ["orders-2", "orders-2"]);
    assert_eq!(image(&mut world, 2), "agent:1");
}

#[test]
fn a_member_that_moved_has_the_image_brought_to_its_new_node() {
    let mut world = upgraded();
    world.settle();
    pulled(&mut world);
    world.say(3, MemberPhase::CatchingUp, |_| {});
    world.body(Kind::Pod, "orders-3")["spec"]["nodeName"] = json!("node-4");
    world.settle();
    assert_eq!(world.body(Kind::Puller, "orders-3-pull")["spec"]["nodeName"], json!("node-4"));
    assert!(world.replaced.is_empty());
}

#[test]
fn pods_that_must_go_anyway_go_first_and_by_hand_is_by_hand() {
    let mut world = upgraded();
    world.set.spec.image = "postgres:17.6".to_owned();
    world.settle();
    assert_eq!((world.restarts.len(), world.names(Kind::Puller).len()), (1, 0));
    let mut manual = upgraded();
    manual.set.spec.update = Some(Update { strategy: Some(UpdateStrategy::Manual) });
    manual.settle();
    assert_eq!(manual.condition("Configured").1, "RolloutPending");
    assert!(manual.names(Kind::Puller).is_empty() && manual.replaced.is_empty());
}

/// Where each confirms every commit, no pod may go, but agents may: PostgreSQL runs on.
#[test]
fn agents_are_replaced_also_where_no_member_may_be_away() {
    let mut world = World::running(2);
    for n in 1..=2 {
        world.body(Kind::Pod, &format!("orders-{n}"))["spec"]["nodeName"] = json!("node");
        starts(&mut world, n, "first");
    }
    world.agent_image = "agent:2".to_owned();
    world.settle();
    for name in ["orders-1-pull", "orders-2-pull"] {
        world.body(Kind::Puller, name)["status"] = json!({"phase": "Succeeded"});
    }
    world.settle();
    assert_eq!(world.replaced, ["orders-2"]);
}
