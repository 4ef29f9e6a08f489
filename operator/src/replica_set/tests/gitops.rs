//! What others read off a set: objects as they lie in the API server, kept as a snapshot. `e2e/book/tests` shows them to Argo CD's and
//! Flux's rules.

use super::World;
use crate::kinds::Kind;
use crate::replica_set::archive::ArchiveSeen;
use pgconvoy_crds::{MemberPhase, MemberState};
use serde_json::{Value, json};

#[test]
fn the_objects_that_others_judge_are_these() {
    let mut seen = vec![];
    let mut see = |case: &str, world: &World| {
        let mut object = serde_json::to_value(&world.set).unwrap();
        match object["status"].as_object_mut() {
            Some(status) => drop(status.remove("memberStates")),
            None => drop(object.as_object_mut().unwrap().remove("status")),
        }
        seen.push(json!({ "case": case, "object": object }));
    };
    let mut world = World::new(3);
    see("just applied", &world);
    world.settle();
    see("members are being made", &world);
    world.body(Kind::Pod, "orders-1")["status"] = json!({"phase": "Pending", "containerStatuses": [{"name": "postgres", "image": "postgres:17",
        "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]});
    world.settle();
    see("the image cannot be pulled", &world);

    let mut world = World::new(3);
    world.settle();
    world.say(1, MemberPhase::Failed, |s| s.message = Some("the volume holds another system".to_owned()));
    world.settle();
    see("a member needs a person", &world);

    let mut world = World::running(3);
    see("all is well", &world);
    world.set.metadata.generation = Some(2);
    see("the spec was changed this moment", &world);
    world.set.spec.members = 5;
    world.settle();
    see("two members more", &world);

    let mut world = World::running(3);
    world.set.metadata.generation = Some(2);
    world.set.spec.image = "postgres:17.6".to_owned();
    world.settle();
    see("another image is rolled out", &world);

    let mut world = World::running(3);
    world.set.metadata.generation = Some(2);
    world.set.spec.image = "postgres:17.6".to_owned();
    world.set.spec.update = Some(serde_json::from_value(json!({ "strategy": "Manual" })).unwrap());
    world.settle();
    see("a roll-out waits for a person", &world);

    let mut world = World::running(3);
    world.archive = ArchiveSeen::Missing { reason: "NoArchive", message: "there is no PgArchive s3".into() };
    world.settle();
    see("nothing is archived", &world);

    let mut world = World::running(3);
    world.say(1, MemberPhase::Attached, |s| {
        s.epoch = Some(1);
        s.configuration_error = Some("invalid value for parameter \"work_mem\": \"lots\"".to_owned());
    });
    world.settle();
    see("PostgreSQL refuses a parameter, and goes on", &world);

    let mut world = World::running(3);
    let left = |s: &mut MemberState| {
        s.epoch = Some(1);
        s.reason = Some("WaitsForTakeover".to_owned());
        s.message = Some("kubectl pgconvoy takeover orders --epoch 1".to_owned());
    };
    world.say(2, MemberPhase::Attached, left);
    world.settle();
    see("failover is left to a person", &world);

    let mut world = World::running(3);
    for n in [2, 3] {
        world.say(n, MemberPhase::Attached, |s| {
            s.epoch = Some(1);
            s.incarnation = Some("zzzzzzzzzz".to_owned());
        });
    }
    world.settle();
    see("the quorum's copies are lost", &world);
    insta::assert_yaml_snapshot!("objects", Value::from(seen));
}
