//! What Argo CD and Flux make of the objects that the operator writes: Argo CD's rules are run by Lua 5.1 with the libraries that Argo CD
//! gives them, Flux's by an interpreter of CEL and by kstatus' rules, written down here. The objects are the operator's own snapshots.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use mlua::serde::SerializeOptions;
use mlua::{Lua, LuaOptions, LuaSerdeExt as _, StdLib};
use pgconvoy_book::{root, yaml};
use serde_json::Value;

const SETS: &str =
    "operator/src/replica_set/tests/snapshots/pgconvoy_operator__replica_set__tests__gitops__objects.snap";
const SCHEDULES: &str = "operator/src/schedules/snapshots/pgconvoy_operator__schedules__tests__objects.snap";

/// What is said of each case: of Argo CD's rules, of kstatus alone, of Flux with its expressions.
const EXPECTED_SETS: [(&str, &str, &str, &str); 13] = [
    // kstatus takes what has no status yet for finished: that is what the expressions are for.
    ("just applied", "Progressing", "Current", "InProgress"),
    ("members are being made", "Progressing", "InProgress", "InProgress"),
    ("the image cannot be pulled", "Progressing", "InProgress", "InProgress"),
    ("a member needs a person", "Degraded", "Failed", "Failed"),
    ("all is well", "Healthy", "Current", "Current"),
    ("the spec was changed this moment", "Progressing", "InProgress", "InProgress"),
    ("two members more", "Progressing", "InProgress", "InProgress"),
    ("another image is rolled out", "Progressing", "InProgress", "InProgress"),
    ("a roll-out waits for a person", "Healthy", "Current", "Current"),
    ("nothing is archived", "Healthy", "Current", "Current"),
    ("PostgreSQL refuses a parameter, and goes on", "Degraded", "Current", "Failed"),
    ("failover is left to a person", "Degraded", "Failed", "Failed"),
    ("the quorum's copies are lost", "Degraded", "Failed", "Failed"),
];
const EXPECTED_SCHEDULES: [(&str, &str, &str, &str); 6] = [
    ("nothing was due yet", "Healthy", "Current", "Current"),
    ("the last one is complete", "Healthy", "Current", "Current"),
    ("the last one failed", "Degraded", "InProgress", "Current"),
    ("there is no such set", "Degraded", "InProgress", "InProgress"),
    ("suspended", "Suspended", "InProgress", "Current"),
    ("the expression is none", "Degraded", "InProgress", "Failed"),
];

/// The cases of a snapshot of the operator: what it is, and the object.
fn cases(path: &str) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let body = text.splitn(3, "---\n").nth(2).unwrap();
    let mut documents = yaml::documents(body).unwrap();
    let Value::Array(list) = documents.remove(0) else { panic!("{path} holds no list") };
    list.into_iter().map(|c| (c["case"].as_str().unwrap().to_owned(), c["object"].clone())).collect()
}

fn example(file: &str) -> Vec<Value> {
    yaml::documents(&std::fs::read_to_string(root().join("examples/gitops").join(file)).unwrap()).unwrap()
}

/// As Argo CD runs it: `obj` is the object; of Lua's libraries there are the basic one and `table`.
fn argo(script: &str, object: &Value) -> (String, String) {
    let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default()).unwrap();
    let options = SerializeOptions::new().serialize_none_to_null(false).serialize_unit_to_null(false);
    lua.globals().set("obj", lua.to_value_with(object, options).unwrap()).unwrap();
    let health: Value = lua.from_value(lua.load(script).eval().unwrap()).unwrap();
    let status = health["status"].as_str().unwrap().to_owned();
    let known = ["Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"];
    assert!(known.contains(&status.as_str()), "Argo CD knows no health {status}");
    (status, health["message"].as_str().unwrap().to_owned())
}

fn conditions(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    let list = object["status"]["conditions"].as_array();
    list.into_iter().flatten().map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
}

fn unseen(object: &Value) -> bool {
    let observed = &object["status"]["observedGeneration"];
    !observed.is_null() && *observed != object["metadata"]["generation"]
}

/// What kstatus (`sigs.k8s.io/cli-utils/pkg/kstatus`) says of any custom resource.
fn kstatus(object: &Value) -> &'static str {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating";
    }
    if unseen(object) {
        return "InProgress";
    }
    for condition in conditions(object) {
        match condition {
            ("Reconciling", "True") => return "InProgress",
            ("Stalled", "True") => return "Failed",
            _ => {}
        }
    }
    match conditions(object).find(|(type_, _)| *type_ == "Ready") {
        Some((_, "True")) | None => "Current",
        Some(_) => "InProgress",
    }
}

/// What Flux says with these `healthCheckExprs`: first the generation, then `inProgress`, `failed`, `current`. An expression that names
/// what is not there makes it wait, as what is in progress does.
fn flux(expressions: &Value, object: &Value) -> &'static str {
    if unseen(object) {
        return "InProgress";
    }
    for (field, status) in [("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")] {
        let Some(expression) = expressions[field].as_str() else { continue };
        let program = cel::Program::compile(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
        let mut context = cel::Context::default();
        for (name, value) in object.as_object().unwrap() {
            context.add_variable(name.as_str(), value).unwrap();
        }
        match program.execute(&context) {
            Ok(cel::Value::Bool(true)) => return status,
            Ok(cel::Value::Bool(false)) => {}
            Ok(other) => panic!("{expression} is {other:?} of {object}"),
            Err(_) => return "InProgress",
        }
    }
    "InProgress"
}

#[test]
fn what_argo_cd_and_flux_make_of_every_state_is_this() {
    let map = &example("argocd-cm.yaml")[0]["data"];
    let flux_rules = example("flux.yaml").into_iter().find(|d| d["kind"] == "Kustomization").unwrap();
    let expected = [
        ("PgReplicaSet", SETS, EXPECTED_SETS.as_slice()),
        ("PgSnapshotSchedule", SCHEDULES, EXPECTED_SCHEDULES.as_slice()),
    ];
    for (kind, file, expected) in expected {
        let script = map[format!("resource.customizations.health.pgconvoy.dev_{kind}")].as_str().unwrap();
        let rules = flux_rules["spec"]["healthCheckExprs"].as_array().unwrap();
        let rules = rules.iter().find(|r| r["kind"] == kind).unwrap();
        assert_eq!(rules["apiVersion"], "pgconvoy.dev/v1alpha1");
        let seen: Vec<(String, String, &str, &str)> = cases(file)
            .into_iter()
            .map(|(case, object)| {
                assert_eq!(object["kind"], kind);
                (case, argo(script, &object).0, kstatus(&object), flux(rules, &object))
            })
            .collect();
        let seen: Vec<_> = seen.iter().map(|(case, a, k, f)| (case.as_str(), a.as_str(), *k, *f)).collect();
        assert_eq!(seen, expected, "{kind}: case, Argo CD, kstatus, Flux");
    }
}

#[test]
fn what_holds_no_deployment_up_is_told_all_the_same() {
    let map = &example("argocd-cm.yaml")[0]["data"];
    let script = map["resource.customizations.health.pgconvoy.dev_PgReplicaSet"].as_str().unwrap();
    let said = |case: &str| argo(script, &cases(SETS).into_iter().find(|(c, _)| c == case).unwrap().1).1;
    assert!(said("nothing is archived").ends_with("; not archived, NoArchive: there is no PgArchive s3"));
    assert!(said("a roll-out waits for a person").contains("; RolloutPending: the pods of orders-1"));
    assert!(said("the quorum's copies are lost").starts_with("CopiesLost: writes wait: "));
    assert!(said("PostgreSQL refuses a parameter, and goes on").contains("work_mem"));
}

/// The chart and the folder that the manifests name are there.
#[test]
fn argo_cd_and_flux_take_the_chart_of_this_repository() {
    let argo = &example("argocd-applications.yaml")[0]["spec"]["source"];
    assert!(root().join(argo["path"].as_str().unwrap()).join("Chart.yaml").exists(), "{argo}");
    let release = example("flux.yaml").into_iter().find(|d| d["kind"] == "HelmRelease").unwrap();
    let chart = release["spec"]["chart"]["spec"]["chart"].as_str().unwrap();
    assert!(root().join(chart).join("Chart.yaml").exists(), "{chart}");
    let values = std::fs::read_to_string(root().join("charts/pgconvoy/values.yaml")).unwrap();
    let known = &yaml::documents(&values).unwrap()[0];
    for given in [&argo["helm"]["valuesObject"], &release["spec"]["values"]] {
        for name in given.as_object().unwrap().keys() {
            assert!(!known[name].is_null(), "the chart has no value {name}");
        }
    }
}
