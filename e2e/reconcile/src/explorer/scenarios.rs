//! What users do.

use super::cluster::{Ground, set};
use serde_json::{Value, json};

/// One thing that a user does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Makes the set.
    Make(Value),
    /// Changes it (merge patch).
    Change(Value),
    /// Deletes it.
    Delete,
    /// Deletes another object: kind as stored, and name.
    Take(&'static str, &'static str),
    /// Changes another object (merge patch).
    Spoil(&'static str, &'static str, Value),
    /// Upgrades the operator: its agents are of this image.
    Upgrade(&'static str),
}

/// A user's story.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub ground: Ground,
    /// What happens. Each step but with disturbances of its own begins when everything rests.
    pub steps: Vec<Step>,
    /// Volumes of members that leave, or of the whole set, are to go.
    pub may_lose_volumes: bool,
    /// It comes to what was there before, but for the size of volumes.
    pub there_and_back: bool,
}

fn scenario(name: &str, ground: Ground, steps: Vec<Step>) -> Scenario {
    Scenario { name: name.to_owned(), ground, steps, may_lose_volumes: false, there_and_back: false }
}

fn spec(changes: Value) -> Step {
    Step::Change(json!({ "spec": changes }))
}

/// The same fields, taken away or as they are in the set that scenarios begin with.
fn back(changes: &Value) -> Value {
    let first = set("s", 3)["spec"].clone();
    fn of(changes: &Value, first: Option<&Value>) -> Value {
        match (changes, first) {
            (Value::Object(fields), Some(Value::Object(there))) => {
                Value::Object(fields.iter().map(|(k, v)| (k.clone(), of(v, there.get(k)))).collect())
            }
            (_, Some(first)) => first.clone(),
            (_, None) => Value::Null,
        }
    }
    of(changes, Some(&first))
}

/// Every field of the spec, with another value: bad ones, too.
fn fields() -> Vec<(&'static str, Value)> {
    let parameters = |name: &str, value: Value| json!({ "postgresql": { "parameters": { name: value } } });
    let template = |field: &str, value: Value| json!({ "podTemplate": { field: value } });
    let spread = json!([{ "maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway" }]);
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
        { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] } ] } } });
    vec![
        ("image", json!({ "image": "docker.io/library/postgres:17.7" })),
        ("image-missing", json!({ "image": "docker.io/library/missing:17" })),
        ("pull-policy", json!({ "imagePullPolicy": "Always" })),
        ("pull-secrets", json!({ "imagePullSecrets": [{ "name": "p" }] })),
        ("uid", json!({ "runAsUser": 70 })),
        ("uid-bad", json!({ "runAsUser": 0 })),
        ("members-1", json!({ "members": 1 })),
        ("members-2", json!({ "members": 2 })),
        ("members-5", json!({ "members": 5 })),
        ("size", json!({ "storage": { "size": "2Gi" } })),
        ("size-bad", json!({ "storage": { "size": "500Mi" } })),
        ("when-deleted", json!({ "storage": { "whenDeleted": "Delete" } })),
        ("async", json!({ "durability": { "mode": "async" } })),
        ("acknowledgements", json!({ "durability": { "acknowledgements": 2 } })),
        ("when-short", json!({ "durability": { "whenShort": "degrade", "acknowledgements": 2 } })),
        ("acknowledgements-bad", json!({ "durability": { "acknowledgements": 7 } })),
        ("failover", json!({ "failover": { "mode": "manual" } })),
        ("parameter", parameters("work_mem", json!("8MB"))),
        ("parameter-bad", parameters("work_mem", json!("lots"))),
        ("parameter-restart", parameters("max_connections", json!(200))),
        ("hba", json!({ "postgresql": { "hba": ["host all all all scram-sha-256"] } })),
        ("archive", json!({ "archive": { "ref": { "name": "store" } } })),
        ("archive-missing", json!({ "archive": { "ref": { "name": "none" } } })),
        ("stop-timeout", json!({ "stopTimeoutSeconds": 30 })),
        ("resources", json!({ "resources": { "requests": { "cpu": "100m" } } })),
        ("labels", template("labels", json!({ "a": "b" }))),
        ("annotations", template("annotations", json!({ "a": "b" }))),
        ("node-selector", template("nodeSelector", json!({ "disk": "ssd" }))),
        ("affinity", template("affinity", affinity)),
        ("tolerations", template("tolerations", json!([{ "operator": "Exists" }]))),
        ("spread", template("topologySpreadConstraints", spread)),
        ("priority", template("priorityClassName", json!("high"))),
        (
            "services",
            json!({ "services": { "rw": { "annotations": { "a": "b" } }, "r": { "annotations": { "e": "f" } }, "ro": { "annotations": { "c": "d" } } } }),
        ),
        ("update", json!({ "update": { "strategy": "Manual" } })),
        (
            "image-and-parameter",
            json!({ "image": "docker.io/library/postgres:17.7", "postgresql": { "parameters": { "max_connections": 200 } } }),
        ),
        ("image-by-hand", json!({ "image": "docker.io/library/postgres:17.7", "update": { "strategy": "Manual" } })),
        ("image-and-members", json!({ "image": "docker.io/library/postgres:17.7", "members": 5 })),
    ]
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    let new = |members| Step::Make(set("s", members));
    let with = |changes: Value| {
        let mut set = set("s", 3);
        for (name, value) in changes.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(fields) => fields.iter().for_each(|(k, v)| set["spec"][name][k] = v.clone()),
                None => set["spec"][name] = value.clone(),
            }
        }
        Step::Make(set)
    };
    let delete_volumes = json!({ "storage": { "whenDeleted": "Delete" } });
    let adopt = json!({ "bootstrap": { "adopt": { "systemId": crate::faked::SYSTEM_ID } } });
    let labels = |value: Value| json!({ "metadata": { "labels": { "pgconvoy.dev/set": value } } });
    // What a person took or spoilt is as it was before.
    let mended = |name, steps| Scenario { there_and_back: true, ..scenario(name, Ground::Running, steps) };
    let mut all = vec![
        scenario("create", Ground::Empty, vec![new(3)]),
        scenario("create-one", Ground::Empty, vec![new(1), spec(json!({ "members": 3 }))]),
        scenario("create-archived", Ground::Empty, vec![with(json!({ "archive": { "ref": { "name": "store" } } }))]),
        scenario(
            "create-bad",
            Ground::Empty,
            vec![
                with(json!({ "image": "docker.io/library/missing:1" })),
                spec(json!({ "image": "docker.io/library/postgres:17" })),
            ],
        ),
        scenario("again-kept", Ground::Running, vec![Step::Delete, new(3)]),
        scenario("again-adopted", Ground::Running, vec![Step::Delete, with(adopt)]),
        Scenario {
            may_lose_volumes: true,
            ..scenario("again-deleted", Ground::Running, vec![spec(delete_volumes.clone()), Step::Delete, new(3)])
        },
        Scenario {
            may_lose_volumes: true,
            ..scenario(
                "fewer-deleted",
                Ground::Running,
                vec![
                    spec(json!({ "members": 5, "storage": { "whenDeleted": "Delete" } })),
                    spec(json!({ "members": 3 })),
                    spec(json!({ "members": 4 })),
                ],
            )
        },
        scenario("upgrade", Ground::Running, vec![Step::Upgrade("agent:2"), Step::Upgrade("agent:1")]),
        scenario("upgrade-missing", Ground::Running, vec![Step::Upgrade("missing:2"), Step::Upgrade("agent:3")]),
        mended("pods-taken", vec![Step::Take("pods", "s-2"), Step::Take("pods", "s-1")]),
        mended(
            "image-and-pods-taken",
            vec![
                spec(json!({ "image": "docker.io/library/postgres:17.7" })),
                Step::Take("pods", "s-3"),
                spec(json!({ "image": "docker.io/library/postgres:17" })),
                Step::Take("pods", "s-1"),
            ],
        ),
        mended(
            "objects-taken",
            vec![
                Step::Take("services", "s-rw"),
                Step::Take("configmaps", "s-pod"),
                Step::Take("serviceaccounts", "s"),
                Step::Take("rolebindings.rbac.authorization.k8s.io", "s"),
                Step::Take("poddisruptionbudgets.policy", "s"),
            ],
        ),
        mended("secrets-taken", vec![Step::Take("secrets", "s-2-tls"), Step::Take("secrets", "s-app")]),
        scenario("authority-taken", Ground::Running, vec![Step::Take("secrets", "s-ca")]),
        mended(
            "objects-spoilt",
            vec![
                Step::Spoil("services", "s-rw", json!({ "spec": { "ports": null } })),
                Step::Spoil("configmaps", "s-pod", json!({ "data": { "passwd": "" } })),
                Step::Spoil("roles.rbac.authorization.k8s.io", "s", json!({ "rules": [] })),
                Step::Spoil("poddisruptionbudgets.policy", "s", json!({ "spec": { "minAvailable": 0 } })),
            ],
        ),
        mended("labels-spoilt", vec![Step::Spoil("services", "s-ro", labels(json!("t")))]),
        mended(
            "labels-taken",
            vec![
                Step::Spoil("pods", "s-2", labels(Value::Null)),
                Step::Spoil("persistentvolumeclaims", "s-1-data", labels(Value::Null)),
                Step::Spoil("services", "s-r", labels(Value::Null)),
            ],
        ),
        scenario(
            "image-twice",
            Ground::Running,
            vec![
                spec(json!({ "image": "docker.io/library/postgres:17.7" })),
                spec(json!({ "image": "docker.io/library/postgres:17.8" })),
            ],
        ),
    ];
    for (name, changes) in fields() {
        let steps = vec![spec(changes.clone()), spec(back(&changes))];
        all.push(Scenario { there_and_back: true, ..scenario(&format!("field-{name}"), Ground::Running, steps) });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Fields that are not changed there and back, and why. What is below them is meant, too.
    const NOT_THERE_AND_BACK: [(&str, &str); 2] = [
        ("bootstrap", "it cannot be changed, says a rule of the schema; `again-adopted` begins with one"),
        ("storage.storageClassName", "it cannot be changed, says a rule of the schema"),
    ];
    /// What is handed on as it is: of these one part stands for all.
    const HANDED_ON: [&str; 2] = ["resources", "podTemplate.affinity"];

    /// The fields of a schema that have no fields of their own.
    fn of_schema(at: &str, schema: &Value, found: &mut BTreeSet<String>) {
        match schema["properties"].as_object().filter(|_| !HANDED_ON.contains(&at)) {
            Some(fields) => fields.iter().for_each(|(name, field)| of_schema(&below(at, name), field, found)),
            None => drop(found.insert(at.to_owned())),
        }
    }

    /// Every place in a change.
    fn of_change(at: &str, change: &Value, found: &mut BTreeSet<String>) {
        found.insert(at.to_owned());
        for (name, field) in change.as_object().into_iter().flatten() {
            of_change(&below(at, name), field, found);
        }
    }

    fn below(at: &str, name: &str) -> String {
        if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
    }

    #[test]
    fn every_field_of_the_spec_goes_there_and_back() {
        let definitions = pgconvoy_crds::definitions().unwrap();
        let set = definitions.iter().find(|d| d["spec"]["names"]["kind"] == "PgReplicaSet").unwrap();
        let spec = set.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
        let (mut there, mut explored) = (BTreeSet::new(), BTreeSet::new());
        of_schema("", spec, &mut there);
        fields().iter().for_each(|(_, change)| of_change("", change, &mut explored));
        assert!(there.len() > 25, "the schema is read wrongly: {there:?}");
        let excepted = |f: &str| {
            NOT_THERE_AND_BACK.iter().any(|(e, _)| f == *e || f.strip_prefix(e).is_some_and(|r| r.starts_with('.')))
        };
        let missing: Vec<_> = there.iter().filter(|f| !explored.contains(*f) && !excepted(f)).collect();
        assert!(missing.is_empty(), "no scenario changes these fields of the spec: {missing:?}");
        for (field, _) in NOT_THERE_AND_BACK {
            assert!(there.iter().any(|f| f.starts_with(field)), "there is no field {field}");
            assert!(!explored.contains(field), "{field} is explored");
        }
    }
}
