use super::{World, member};
use crate::kinds::Kind;
use crate::replica_set::plan::Action;
use serde_json::{Value, json};

fn described(world: &World) -> Vec<String> {
    let describe = |a: &Action| match a {
        Action::Create(o) => format!("create {} {}", o.kind, o.name),
        Action::Apply(o) => format!("apply {} {}", o.kind, o.name),
        Action::Patch { kind, name, .. } => format!("patch {kind} {name}"),
        Action::Delete { kind, name, .. } => format!("delete {kind} {name}"),
        Action::Restart { member, .. } => format!("restart {member}"),
        Action::ReplaceAgent { member, .. } => format!("replace the agent of {member}"),
        Action::Remove { member, .. } => format!("remove {member}"),
        Action::Forget(member) => format!("forget {member}"),
    };
    world.planned().actions.iter().map(describe).collect()
}

#[test]
fn a_set_of_three_is_made_in_an_order_in_which_pods_find_what_they_mount() {
    let world = World::new(3);
    insta::assert_snapshot!(described(&world).join("\n"));
}

#[test]
fn a_binding_comes_after_the_role_that_it_binds() {
    let planned = World::new(3).planned();
    let stage = |wanted: Kind| {
        planned.actions.iter().find(|a| matches!(a, Action::Apply(o) if o.kind == wanted)).unwrap().stage()
    };
    // Within a stage the order does not matter, and the API server refuses to bind a role that it does not know.
    assert!(stage(Kind::Role) < stage(Kind::RoleBinding));
}

#[test]
fn the_objects_are_these() {
    let mut world = World::new(3);
    world.settle();
    // Keys, certificates and passwords differ each time.
    let shown: Vec<(&Kind, &Value)> =
        world.bodies.iter().filter(|((k, _), _)| *k != Kind::Secret).map(|((k, _), b)| (k, b)).collect();
    let text: Vec<String> =
        shown.iter().map(|(kind, body)| format!("# {kind}\n{}", serde_yaml::to_string(body).unwrap())).collect();
    insta::assert_snapshot!(text.join("---\n"));
}

#[test]
fn an_idle_set_costs_no_write() {
    let mut world = World::new(3);
    world.settle();
    assert_eq!(world.reconcile(usize::MAX), 0);
    world.lead(1, 1, &[2, 3]);
    world.settle();
    assert_eq!(world.reconcile(usize::MAX), 0);
    assert_eq!(world.condition("Ready").0, "True", "{:?}", world.condition("Ready"));
    world.later(jiff::SignedDuration::from_hours(24));
    assert_eq!(world.reconcile(usize::MAX), 0, "time alone changes nothing");
}

#[test]
fn what_a_person_changes_is_set_right_and_what_is_deleted_is_made_again() {
    let mut world = World::new(3);
    world.settle();
    world.body(Kind::Service, "orders-rw")["spec"]["ports"][0]["port"] = json!(1);
    assert_eq!(world.reconcile(usize::MAX), 1);
    assert_eq!(world.body(Kind::Service, "orders-rw")["spec"]["ports"][0]["port"], json!(5432));
    for kind in [Kind::Role, Kind::Lease, Kind::Budget] {
        world.take(kind, "orders");
        assert_eq!(world.reconcile(usize::MAX), 1, "{kind}");
    }
    world.take(Kind::Pod, "orders-2");
    world.settle();
    assert_eq!(world.names(Kind::Pod), ["orders-1", "orders-2", "orders-3"]);
}

/// Everything about a world that does not differ between two runs.
fn fixpoint(world: &World) -> Vec<(Kind, String, Value)> {
    world
        .bodies
        .iter()
        .map(|((kind, name), body)| {
            let mut body = body.clone();
            body["metadata"]["uid"] = json!("");
            if *kind == Kind::Secret {
                let keys: Vec<_> = body["data"].as_object().unwrap().keys().cloned().collect();
                body["data"] = json!(keys);
            }
            (*kind, name.clone(), body)
        })
        .collect()
}

#[test]
fn an_operator_killed_at_any_write_of_making_a_set_leaves_nothing_that_its_successor_cannot_finish() {
    let mut whole = World::new(3);
    let writes = whole.reconcile(usize::MAX);
    assert_eq!(writes, 25, "every object and the status");
    whole.settle();
    for killed_after in 0..writes {
        let mut world = World::new(3);
        assert_eq!(world.reconcile(killed_after), killed_after);
        world.restart();
        world.settle();
        assert_eq!(fixpoint(&world), fixpoint(&whole), "killed after {killed_after} writes");
    }
    // Killed after every twelfth write, again and again.
    let mut world = World::new(3);
    for _ in 0..10 {
        world.restart();
        world.reconcile(12);
    }
    world.settle();
    assert_eq!(fixpoint(&world), fixpoint(&whole));
}

#[test]
fn the_password_is_made_once() {
    let mut world = World::new(1);
    world.settle();
    let before = world.body(Kind::Secret, "orders-app").clone();
    world.set.spec.members = 3;
    world.restart();
    world.settle();
    assert_eq!(*world.body(Kind::Secret, "orders-app"), before);
}

#[test]
fn a_pod_gets_no_token_but_in_the_agents_container() {
    let mut world = World::new(1);
    world.settle();
    let pod = world.body(Kind::Pod, &member(1).to_string()).clone();
    assert_eq!(pod["spec"]["automountServiceAccountToken"], json!(false));
    let mounts = |c: &Value| c["volumeMounts"].as_array().unwrap().iter().any(|m| m["name"] == "api");
    assert!(!mounts(&pod["spec"]["containers"][0]));
    assert!(!mounts(&pod["spec"]["initContainers"][0]));
    assert!(mounts(&pod["spec"]["initContainers"][1]));
}
