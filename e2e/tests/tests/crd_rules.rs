//! A wrong value is refused by the API server with a sentence, and a right one is taken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_crds::parameters::{limited_parameters, owned_parameters};
use pgconvoy_e2e::{Cluster, Namespace, root};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn prepared(purpose: &str) -> Namespace {
    let cluster = Cluster::from_env().unwrap();
    cluster.install_crds().unwrap();
    cluster.namespace(purpose).unwrap()
}

/// A PgReplicaSet that is right, with `changes` merged into its spec (null takes a field away).
fn set(name: &str, changes: &Value) -> Value {
    let mut spec = json!({
        "image": "docker.io/library/postgres:17",
        "members": 3,
        "storage": { "size": "1Gi" },
    });
    merge(&mut spec, changes);
    json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": name }, "spec": spec })
}

fn merge(into: &mut Value, changes: &Value) {
    for (key, change) in changes.as_object().unwrap() {
        if change.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else if change.is_object() && into[key].is_object() {
            merge(&mut into[key], change);
        } else {
            into[key] = change.clone();
        }
    }
}

fn parameters(name: &str, value: impl Into<Value>) -> Value {
    json!({ "postgresql": { "parameters": { name: value.into() } } })
}

fn hba(line: &str) -> Value {
    json!({ "postgresql": { "hba": [line] } })
}

fn image(image: &str) -> Value {
    json!({ "image": image })
}

fn initdb(options: Value) -> Value {
    json!({ "bootstrap": { "initdb": options } })
}

/// What the API server says to each of `objects` (they are not kept): by name, its causes; none if it takes the object.
fn judge(namespace: &Namespace, objects: &[Value]) -> BTreeMap<String, Vec<String>> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    // Else kubectl looks at some of it itself and does not ask the server.
    let args = ["create", "--dry-run=server", "--validate=false", "-o", "name", "-f", "-"];
    let output = namespace.try_kubectl(&args, &list.to_string()).unwrap();
    let mut verdicts = BTreeMap::new();
    for block in output.stderr.split("PgReplicaSet.pgconvoy.dev \"").skip(1) {
        let (name, rest) = block.split_once("\" is invalid: ").unwrap_or_else(|| panic!("not understood: {block}"));
        let rest = rest.split("\nError from server").next().unwrap_or_default().trim();
        // Several causes stand in brackets; each begins with the field that it is about.
        let causes = match rest.strip_prefix('[') {
            Some(several) => several.trim_end_matches(']').split(", spec").map(str::to_owned).collect(),
            None => vec![rest.to_owned()],
        };
        verdicts.insert(name.to_owned(), causes);
    }
    for line in output.stdout.lines() {
        let (_, name) = line.rsplit_once('/').unwrap();
        verdicts.insert(name.to_owned(), vec![]);
    }
    assert_eq!(verdicts.len(), objects.len(), "each object has a verdict: {}", output.stderr);
    verdicts
}

/// Each case is refused, for one cause, which says `sentence`.
fn refused(namespace: &Namespace, cases: &[(Value, &str)]) {
    let name = |i: usize| format!("bad-{i}");
    let objects: Vec<_> = cases.iter().enumerate().map(|(i, (changes, _))| set(&name(i), changes)).collect();
    let verdicts = judge(namespace, &objects);
    for (i, (changes, sentence)) in cases.iter().enumerate() {
        let causes = &verdicts[&name(i)];
        assert_eq!(causes.len(), 1, "{changes}: {causes:?}");
        assert!(causes[0].contains(sentence), "{changes}: {:?} does not say {sentence:?}", causes[0]);
    }
}

/// Each case is taken.
fn taken(namespace: &Namespace, cases: &[Value]) {
    let objects: Vec<_> = cases.iter().enumerate().map(|(i, changes)| set(&format!("good-{i}"), changes)).collect();
    let verdicts = judge(namespace, &objects);
    for (object, changes) in objects.iter().zip(cases) {
        let causes = &verdicts[object["metadata"]["name"].as_str().unwrap()];
        assert!(causes.is_empty(), "{changes}: {causes:?}");
    }
}

#[test]
#[ignore = "needs a cluster"]
fn members_durability_and_storage_are_checked() {
    let namespace = prepared("rules-spec");
    let quorum = "mode: quorum with followers needs at least 1 acknowledgement";
    let fewer = "spec.durability.acknowledgements must be less than spec.members";
    refused(
        &namespace,
        &[
            (json!({ "members": 0 }), "members may be 1 to 64: a set has at least its leader"),
            (json!({ "members": 65 }), "members may be 1 to 64"),
            (json!({ "members": "three" }), "must be of type integer"),
            (json!({ "members": null }), "Required value"),
            (json!({ "durability": { "acknowledgements": 3 } }), fewer),
            (json!({ "members": 1, "durability": { "acknowledgements": 1 } }), fewer),
            (json!({ "durability": { "acknowledgements": -1 } }), "acknowledgements cannot be less than 0"),
            (json!({ "durability": { "mode": "async", "acknowledgements": 1 } }), "with mode: async no commit waits"),
            (json!({ "durability": { "mode": "async", "whenShort": "degrade" } }), "so none can be short of them"),
            (json!({ "durability": { "mode": "quorum", "acknowledgements": 0 } }), quorum),
            (json!({ "durability": { "acknowledgements": 0 } }), quorum),
            (json!({ "durability": { "mode": "sync" } }), "Unsupported value: \"sync\""),
            (json!({ "storage": { "size": "0" } }), "storage.size is a quantity greater than 0"),
            (json!({ "storage": { "size": "-1Gi" } }), "storage.size is a quantity greater than 0"),
            (json!({ "storage": { "size": "big" } }), "storage.size is a quantity greater than 0"),
            (json!({ "storage": { "size": "20 GB" } }), "storage.size is a quantity greater than 0"),
            (json!({ "storage": { "whenDeleted": "Shred" } }), "Unsupported value: \"Shred\""),
            (json!({ "storage": null }), "Required value"),
            (json!({ "runAsUser": 0 }), "PostgreSQL refuses to run as root"),
            (json!({ "stopTimeoutSeconds": 1 }), "stopTimeoutSeconds may be 10 to 3600"),
            (json!({ "resources": { "claims": [{ "name": "gpu" }] } }), "resources.claims are not supported"),
            (json!({ "imagePullPolicy": "Sometimes" }), "Unsupported value"),
        ],
    );
    taken(
        &namespace,
        &[
            json!({}),
            json!({ "members": 1 }),
            json!({ "members": 1, "durability": { "acknowledgements": 0 } }),
            json!({ "members": 64, "durability": { "mode": "quorum", "acknowledgements": 63 } }),
            json!({ "members": 2, "durability": { "mode": "async" } }),
            json!({ "durability": { "mode": "async", "acknowledgements": 0 } }),
            json!({ "durability": { "whenShort": "degrade" } }),
            json!({ "durability": null, "storage": { "size": 1_073_741_824 } }),
            json!({ "storage": { "size": "1.5Ti", "storageClassName": "fast", "whenDeleted": "Delete" } }),
            json!({ "runAsUser": 70, "stopTimeoutSeconds": 10, "resources": { "limits": { "memory": "1Gi" } } }),
        ],
    );
}

#[test]
#[ignore = "needs a cluster"]
fn names_that_do_not_fit_are_refused() {
    let namespace = prepared("rules-name");
    let long = "a".repeat(41);
    for (name, sentence) in [
        (long.as_str(), "a replica set's name may have 40 characters"),
        ("or.ders", "a replica set's name is a letter, then letters, digits and dashes, all lower case, without dots"),
        ("1orders", "a replica set's name is a letter"),
        ("Orders", "a lowercase RFC 1123 subdomain"),
    ] {
        let output = namespace
            .try_kubectl(&["create", "--dry-run=server", "-f", "-"], &set(name, &json!({})).to_string())
            .unwrap();
        assert!(!output.ok && output.stderr.contains(sentence), "{name}: {}", output.stderr);
    }
    for name in ["a", "orders-2", &"a".repeat(40)] {
        namespace.kubectl(&["create", "--dry-run=server", "-f", "-"], &set(name, &json!({})).to_string()).unwrap();
    }
}

#[test]
#[ignore = "needs a cluster"]
fn images_of_other_majors_are_refused_where_the_tag_tells() {
    let namespace = prepared("rules-image");
    let version = "pgconvoy runs PostgreSQL 15, 16, 17 and 18; the image's tag says another version";
    let cases: Vec<_> = [
        "postgres:14",
        "postgres:9.6",
        "docker.io/library/postgres:14.2-alpine",
        "localhost:5000/postgres:19beta1",
        "registry.example/a/postgresql:13@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ]
    .into_iter()
    .map(|i| (image(i), version))
    .chain([(image("post gres:17"), "an image is a reference like"), (json!({ "image": null }), "Required value")])
    .collect();
    refused(&namespace, &cases);
    taken(
        &namespace,
        &[
            image("postgres"),
            image("postgres:latest"),
            image("postgres:15.18"),
            image("postgres:18-alpine"),
            image("localhost:5000/postgres:16"),
            image("postgres@sha256:0000000000000000000000000000000000000000000000000000000000000000"),
            image("registry.example/pgvector:0.8.1-pg17"),
            image("registry.example/mypostgres:2024.11"),
        ],
    );
}

#[test]
#[ignore = "needs a cluster"]
fn parameters_that_pgconvoy_owns_are_refused_each_with_its_sentence() {
    let namespace = prepared("rules-parameters");
    let owned: Vec<_> = owned_parameters().iter().map(|o| (parameters(o.name, "x"), o.sentence())).collect();
    assert!(owned.len() > 50, "the table has shrunk to {}", owned.len());
    let limited = limited_parameters().iter().map(|l| (parameters(l.name, "minimal"), l.sentence()));
    let owned: Vec<_> = owned.into_iter().chain(limited).collect();
    let cases: Vec<_> = owned.iter().map(|(changes, sentence)| (changes.clone(), sentence.as_str())).collect();
    refused(&namespace, &cases);

    let name = "a parameter's name is written in lower case";
    let line = "a parameter's value is one line";
    refused(
        &namespace,
        &[
            (parameters("FSYNC", "off"), name),
            (parameters("shared buffers", "1GB"), name),
            (parameters("a\nfsync", "off"), name),
            (parameters("", "1"), name),
            (parameters("a.", "1"), name),
            (parameters(&"a".repeat(64), "1"), name),
            (parameters("pgconvoy.gate", "open"), "parameters that begin with pgconvoy. are pgconvoy's own"),
            (parameters("shared_buffers", "1GB\nfsync = off"), line),
            (parameters("shared_buffers", "1GB\rfsync = off"), line),
            (parameters("work_mem", 3_000_000_000_i64), "should be less than or equal to 2147483647"),
            (parameters("synchronous_commit", "off"), "synchronous_commit may be on or remote_apply"),
            (parameters("synchronous_commit", "local"), "synchronous_commit may be on or remote_apply"),
            (parameters("synchronous_commit", "remote_write"), "synchronous_commit may be on or remote_apply"),
            (parameters("synchronous_commit", 0), "synchronous_commit may be on or remote_apply"),
            (parameters("max_wal_senders", 19), "max_wal_senders may be a whole number from 20 up"),
            (parameters("max_wal_senders", "19"), "max_wal_senders may be a whole number from 20 up"),
            (parameters("max_replication_slots", -20), "max_replication_slots may be a whole number from 20 up"),
        ],
    );
    taken(
        &namespace,
        &[
            parameters("shared_buffers", "256MB"),
            parameters("max_connections", 200),
            parameters("random_page_cost", "1.1"),
            parameters("synchronous_commit", "on"),
            parameters("synchronous_commit", "remote_apply"),
            parameters("max_wal_senders", 20),
            parameters("max_replication_slots", "32"),
            parameters("max_slot_wal_keep_size", "10GB"),
            parameters("hot_standby_feedback", "on"),
            parameters("auto_explain.log_min_duration", "1s"),
        ],
    );
}

#[test]
#[ignore = "needs a cluster"]
fn hba_lines_are_checked() {
    let namespace = prepared("rules-hba");
    let begins = "a line of hba begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc";
    let ours = "may not name the database replication nor pgconvoy's own roles";
    let file = "may not take names from a file";
    refused(
        &namespace,
        &[
            (hba(""), begins),
            (hba("# comment"), begins),
            (hba("include other.conf"), begins),
            (hba("hosts all all all trust"), begins),
            (hba("host all all all md5\nlocal all all trust"), begins),
            (hba("host all all all scram-sha-256 \\"), begins),
            (hba("host replication all all trust"), ours),
            (hba("host app,replication all all trust"), ours),
            (hba("host \"replication\" all all trust"), ours),
            (hba("hostssl all pgconvoy_replication all trust"), ours),
            (hba("hostssl all \"pgconvoy_replication\",app all trust"), ours),
            (hba("host @/etc/passwd all all trust"), file),
            (hba("host all app,@users all trust"), file),
            (hba(&format!("host all all all scram-sha-256{}", " ".repeat(1024))), "Too long"),
            (json!({ "postgresql": { "hba": vec!["host all all all reject"; 129] } }), "Too many"),
        ],
    );
    taken(
        &namespace,
        &[
            hba("hostssl all all 10.0.0.0/8 scram-sha-256"),
            hba("local\tall all scram-sha-256"),
            hba("hostnossl all all all reject"),
            hba("host replication_log replicator 10.0.0.0/8 scram-sha-256"),
            json!({ "postgresql": { "hba": [] } }),
        ],
    );
}

#[test]
#[ignore = "needs a cluster"]
fn bootstrap_and_pod_template_are_checked() {
    let namespace = prepared("rules-rest");
    let database = "the application database's name is a letter or _";
    let ours = "labels and annotations that begin with pgconvoy.dev/ are pgconvoy's own";
    let annotations = |key: &str| json!({ "services": { "rw": { "annotations": { key: "x" } } } });
    refused(
        &namespace,
        &[
            (initdb(json!({ "database": "postgres" })), database),
            (initdb(json!({ "database": "template1" })), database),
            (initdb(json!({ "database": "a b" })), database),
            (initdb(json!({ "owner": "postgres" })), "the owner's name is a letter or _"),
            (initdb(json!({ "owner": "pg_monitor" })), "the owner's name is a letter or _"),
            (initdb(json!({ "owner": "pgconvoy_replication" })), "the owner's name is a letter or _"),
            (initdb(json!({ "locale": "--no-sync" })), "initdb.locale is a locale's name"),
            (initdb(json!({ "encoding": "UTF8 -k" })), "initdb.encoding is an encoding's name"),
            (json!({ "bootstrap": {} }), "bootstrap has one of initdb, fromArchive and adopt"),
            (
                json!({ "bootstrap": { "initdb": {}, "adopt": { "systemId": "7712" } } }),
                "bootstrap has one of initdb, fromArchive and adopt",
            ),
            (
                json!({ "bootstrap": { "adopt": { "systemId": "any" } } }),
                "adopt.systemId is the number that the condition ForeignVolume shows",
            ),
            (json!({ "bootstrap": { "adopt": {} } }), "Required value"),
            (json!({ "podTemplate": { "labels": { "pgconvoy.dev/set": "x" } } }), ours),
            (json!({ "podTemplate": { "annotations": { "pgconvoy.dev/epoch": "x" } } }), ours),
            (annotations("pgconvoy.dev/epoch"), ours),
            (
                json!({ "podTemplate": { "labels": { "a b": "x" } } }),
                "podTemplate.labels has a key or a value that is no label",
            ),
            (
                json!({ "podTemplate": { "labels": { "a": "-" } } }),
                "podTemplate.labels has a key or a value that is no label",
            ),
            (
                json!({ "podTemplate": { "annotations": { "a b": "x" } } }),
                "podTemplate.annotations has a key that is none",
            ),
        ],
    );
    taken(
        &namespace,
        &[
            initdb(json!({})),
            initdb(json!({ "database": "Shop-1", "owner": "shop", "dataChecksums": false, "locale": "de_DE.UTF-8" })),
            json!({ "podTemplate": { "labels": { "example.org/team": "blue" }, "annotations": { "Note": "Any text, any." } } }),
            annotations("service.beta.kubernetes.io/aws-load-balancer-internal"),
        ],
    );
}

#[test]
#[ignore = "needs a cluster"]
fn an_unknown_field_is_refused() {
    let namespace = prepared("rules-unknown");
    let object = set("unknown", &json!({ "durability": { "acknowledgments": 1 } }));
    let output = namespace.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &object.to_string()).unwrap();
    assert!(!output.ok, "{}", output.stdout);
    assert!(output.stderr.contains("unknown field \"spec.durability.acknowledgments\""), "{}", output.stderr);
}

#[test]
#[ignore = "needs a cluster"]
fn what_cannot_change_is_refused_as_a_change() {
    let namespace = prepared("rules-change");
    let given = json!({
        "storage": { "size": "2Gi", "storageClassName": "none-such" },
        "bootstrap": { "initdb": { "database": "shop" } },
        "runAsUser": 70,
    });
    namespace.kubectl(&["create", "-f", "-"], &set("full", &given).to_string()).unwrap();
    namespace.kubectl(&["create", "-f", "-"], &set("bare", &json!({})).to_string()).unwrap();
    let patch = |name: &str, spec: &Value| {
        let patch = json!({ "spec": spec }).to_string();
        namespace
            .try_kubectl(&["patch", "pgreplicaset", name, "--type=merge", "--dry-run=server", "-p", &patch], "")
            .unwrap()
    };
    let shrink = "storage.size can grow, not shrink";
    let class = "storage.storageClassName cannot be changed";
    let bootstrap = "spec.bootstrap says how the first data came to be";
    let user = "spec.runAsUser cannot be changed";
    let major = "another major version of PostgreSQL cannot read this set's data";
    for (name, changes, sentence) in [
        ("full", json!({ "storage": { "size": "1Gi" } }), shrink),
        ("full", json!({ "storage": { "size": "2047Mi" } }), shrink),
        ("full", json!({ "storage": { "storageClassName": "other" } }), class),
        ("full", json!({ "storage": { "storageClassName": null } }), class),
        ("bare", json!({ "storage": { "storageClassName": "other" } }), class),
        ("full", initdb(json!({ "database": "other" })), bootstrap),
        ("full", initdb(json!({ "locale": "C" })), bootstrap),
        ("full", json!({ "bootstrap": null }), bootstrap),
        ("bare", initdb(json!({ "database": "app" })), bootstrap),
        ("full", json!({ "runAsUser": 999 }), user),
        ("full", json!({ "runAsUser": null }), user),
        ("bare", json!({ "runAsUser": 70 }), user),
        ("bare", image("docker.io/library/postgres:18"), major),
        ("bare", image("localhost:5000/postgres:16.1"), major),
    ] {
        let output = patch(name, &changes);
        assert!(!output.ok, "{name} {changes} was taken");
        assert!(output.stderr.contains(sentence), "{name} {changes}: {}", output.stderr);
    }
    for (name, changes) in [
        ("full", json!({ "storage": { "size": "3Gi" } })),
        ("full", json!({ "storage": { "size": "2048Mi" } })),
        ("full", json!({ "members": 5 })),
        ("bare", json!({ "runAsUser": 999 })),
        ("bare", image("docker.io/library/postgres:17.6")),
        ("bare", image("registry.example/pgvector:pg17")),
    ] {
        let output = patch(name, &changes);
        assert!(output.ok, "{name} {changes}: {}", output.stderr);
    }
    let scale =
        |replicas: &str| namespace.try_kubectl(&["scale", "pgreplicaset/bare", "--replicas", replicas], "").unwrap();
    let none = scale("0");
    assert!(!none.ok && none.stderr.contains("members may be 1 to 64"), "{}", none.stderr);
    assert!(scale("5").ok);
    assert_eq!(namespace.kubectl(&["get", "pgrs", "bare", "-o", "jsonpath={.spec.members}"], "").unwrap(), "5");
}

#[test]
#[ignore = "needs a cluster"]
fn each_agent_writes_its_own_entry_of_the_status() {
    let namespace = prepared("rules-status");
    namespace.kubectl(&["create", "-f", "-"], &set("told", &json!({})).to_string()).unwrap();
    let apply = |manager: &str, status: Value| {
        let object = json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
            "metadata": { "name": "told" }, "status": status,
        });
        let manager = format!("--field-manager={manager}");
        // --validate: an apply to a subresource holds no spec, which kubectl takes for a fault.
        let args = ["apply", "--server-side", "--subresource=status", "--validate=false", &manager, "-f", "-"];
        namespace.kubectl(&args, &object.to_string()).unwrap();
    };
    let entry = |name: &str, state: &str| json!({ "memberStates": [{ "name": name, "state": state }] });
    apply("first", entry("told-1", "Starting"));
    apply("second", entry("told-2", "Cloning"));
    apply("first", entry("told-1", "Attached"));
    apply("operator", json!({ "leader": "told-1" }));
    let path = "jsonpath={.status.leader}{range .status.memberStates[*]} {.name}={.state}{end}";
    let seen = namespace.kubectl(&["get", "pgrs", "told", "-o", path], "").unwrap();
    assert_eq!(seen, "told-1 told-1=Attached told-2=Cloning");
}

#[test]
#[ignore = "needs a cluster"]
fn a_term_only_goes_forward() {
    let namespace = prepared("rules-term");
    let epoch = |number: u32, id: &str| json!({ "number": number, "id": id });
    let (first, second) = ("aaaaaaaaaaaaa", "bbbbbbbbbbbbb");
    let term = |spec: Value| {
        json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgTerm", "metadata": { "name": "orders" }, "spec": spec,
        })
    };
    let zero = serde_json::to_value(pgconvoy_crds::PgTermSpec::zero("u-1")).unwrap();
    namespace.kubectl(&["create", "-f", "-"], &term(zero).to_string()).unwrap();
    let replace = |spec: Value, flags: &[&str]| {
        namespace.try_kubectl(&[&["replace", "-f", "-"], flags].concat(), &term(spec).to_string()).unwrap()
    };
    let at_two = json!({ "setUid": "u-1", "epoch": epoch(2, second), "phase": "Recruiting", "chain": [first, second] });
    let output = replace(at_two.clone(), &[]);
    assert!(output.ok, "{}", output.stderr);

    for (changes, sentence) in [
        (json!({ "epoch": epoch(1, second) }), "epochs only grow"),
        (json!({ "epoch": epoch(2, first) }), "an epoch keeps the id it was opened with"),
        (json!({ "epoch": { "number": 2, "id": null } }), "an epoch keeps the id it was opened with"),
        (json!({ "chain": [] }), "the chain cannot be empty once an epoch was opened"),
        (json!({ "chain": null }), "the chain cannot be empty once an epoch was opened"),
        (json!({ "setUid": "u-2" }), "setUid cannot be changed"),
        (
            json!({ "phase": null }),
            "a term at number 0 has neither an epoch's id nor a phase, and a later one has both",
        ),
        (json!({ "phase": "Done" }), "Unsupported value"),
        (json!({ "epoch": epoch(0, second) }), "epochs only grow"),
    ] {
        let mut spec = at_two.clone();
        merge(&mut spec, &changes);
        let output = replace(spec, &["--dry-run=server"]);
        assert!(!output.ok, "{changes} was taken");
        assert!(output.stderr.contains(sentence), "{changes}: {}", output.stderr);
    }
    let mut later = at_two;
    merge(&mut later, &json!({ "epoch": epoch(3, first), "phase": "Elected", "leader": "orders-1/aaaaaaaaaa" }));
    let output = replace(later, &["--dry-run=server"]);
    assert!(output.ok, "{}", output.stderr);
}

/// What the API server says to one object of another kind, which is not kept; none if it takes it.
fn said(namespace: &Namespace, kind: &str, spec: &Value) -> Option<String> {
    let object = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": kind, "metadata": { "name": "one" }, "spec": spec,
    });
    let args = ["create", "--dry-run=server", "--validate=false", "-f", "-"];
    let output = namespace.try_kubectl(&args, &object.to_string()).unwrap();
    (!output.ok).then_some(output.stderr)
}

fn is_checked(namespace: &Namespace, kind: &str, good: &[Value], bad: &[(Value, &str)]) {
    for spec in good {
        assert_eq!(said(namespace, kind, spec), None, "{kind} {spec}");
    }
    for (spec, sentence) in bad {
        let said = said(namespace, kind, spec).unwrap_or_else(|| panic!("{kind} {spec} was taken"));
        assert!(said.contains(sentence), "{kind} {spec}: {said}");
    }
}

#[test]
#[ignore = "needs a cluster"]
fn a_request_is_one_deed_that_says_what_it_gives_up_and_stays_as_it_is() {
    let namespace = prepared("rules-request");
    let switchover = |to: &str| json!({ "set": "orders", "switchover": { "to": to } });
    let takeover =
        |epoch: i64, loss: bool| json!({ "set": "orders", "takeover": { "epoch": epoch, "acceptLoss": loss } });
    let repair = |asked: Value| json!({ "set": "orders", "repair": asked });
    let one = "a request is one deed: switchover, takeover or repair";
    let member = "switchover.to is a member of the set, like orders-2 of orders";
    let mut both = takeover(7, true);
    merge(&mut both, &json!({ "switchover": {} }));
    let mut another = repair(json!({}));
    merge(&mut another, &json!({ "switchover": {} }));
    is_checked(
        &namespace,
        "PgRequest",
        &[
            switchover("orders-2"),
            json!({ "set": "orders", "switchover": {} }),
            takeover(7, true),
            takeover(7, false),
            json!({ "set": "orders", "takeover": { "epoch": 7 } }),
            repair(json!({})),
            repair(json!({ "acceptLoss": true })),
        ],
        &[
            (json!({ "set": "orders" }), one),
            (both, one),
            (another, one),
            (switchover("payments-2"), member),
            (switchover("orders-0"), member),
            (switchover("orders"), member),
            (takeover(0, true), "epoch is the number that kubectl get pgrs shows"),
            (json!({ "set": "orders", "takeover": { "acceptLoss": true } }), "Required value"),
            (json!({ "switchover": {} }), "Required value"),
        ],
    );
    let request = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgRequest", "metadata": { "name": "kept" },
        "spec": { "set": "nobody", "switchover": {} },
    });
    namespace.kubectl(&["create", "-f", "-"], &request.to_string()).unwrap();
    let patch = r#"{"spec":{"switchover":{"to":"nobody-2"}}}"#;
    let output = namespace.try_kubectl(&["patch", "pgreq", "kept", "--type=merge", "-p", patch], "").unwrap();
    assert!(!output.ok && output.stderr.contains("a request cannot be changed: make another"), "{}", output.stderr);
}

#[test]
#[ignore = "needs a cluster"]
fn an_archive_and_a_snapshot_are_checked() {
    let namespace = prepared("rules-archive");
    let archive = |changes: Value| {
        let key = |of: &str| json!({ "name": "s3", "key": of });
        let credentials = json!({ "accessKeyId": key("id"), "secretAccessKey": key("secret") });
        let mut spec = json!({ "bucket": "backups", "credentials": credentials });
        merge(&mut spec, &changes);
        spec
    };
    let lent = |credentials: Value| json!({ "bucket": "backups", "credentials": credentials });
    let bucket = "bucket is the name of a bucket";
    let prefix = "prefix is words of letters, digits";
    let endpoint = "endpoint is http:// or https://, a host and if need be a port";
    is_checked(
        &namespace,
        "PgArchive",
        &[
            archive(json!({})),
            archive(json!({ "prefix": "shop/orders", "endpoint": "https://s3.example.com:9000", "pathStyle": true })),
            archive(json!({ "endpoint": "http://[fd00::1]:7070", "region": "eu-central-1", "maxDelaySeconds": 300 })),
            lent(json!({ "webIdentity": { "roleArn": "arn:aws-cn:iam::111122223333:role/teams/backups" } })),
            lent(json!({ "podIdentity": {} })),
            lent(json!({ "instanceRole": {} })),
            archive(json!({ "snapshots": { "maxBytesPerSecond": 52_428_800 } })),
            archive(json!({ "serverSideEncryption": { "type": "SSE-S3" }, "storageClass": "STANDARD_IA" })),
            archive(json!({ "serverSideEncryption": { "type": "SSE-KMS" }, "tags": { "Kostenstelle": "Straße 7" } })),
            archive(
                json!({ "serverSideEncryption": { "type": "SSE-KMS", "kmsKeyId": "arn:aws:kms:eu-central-1:1:key/a-1" } }),
            ),
        ],
        &[
            (archive(json!({ "bucket": "s3://backups" })), bucket),
            (archive(json!({ "bucket": "Backups" })), bucket),
            (archive(json!({ "bucket": null })), "Required value"),
            (archive(json!({ "prefix": "/orders" })), prefix),
            (archive(json!({ "prefix": "a//b" })), prefix),
            (archive(json!({ "endpoint": "s3.example.com" })), endpoint),
            (archive(json!({ "endpoint": "https://s3.example.com/backups" })), endpoint),
            (archive(json!({ "region": "EU Central" })), "region is a name like eu-central-1"),
            (lent(json!({})), "credentials are one of"),
            (archive(json!({ "snapshots": { "maxBytesPerSecond": 1000 } })), "1048576 (1 MiB) at least"),
            (lent(json!({ "podIdentity": {}, "instanceRole": {} })), "credentials are one of"),
            (archive(json!({ "credentials": { "podIdentity": {} } })), "credentials are one of"),
            (archive(json!({ "credentials": { "secretAccessKey": null } })), "belong together"),
            (lent(json!({ "webIdentity": { "roleArn": "backups" } })), "roleArn is a role like arn:aws:iam"),
            (lent(json!({ "webIdentity": {} })), "Required value"),
            (archive(json!({ "maxDelaySeconds": 0 })), "maxDelaySeconds may be 1 to 300"),
            (
                archive(json!({ "serverSideEncryption": { "type": "SSE-S3", "kmsKeyId": "alias/k" } })),
                "kmsKeyId goes with type SSE-KMS only",
            ),
            (archive(json!({ "serverSideEncryption": { "type": "AES256" } })), "Unsupported value"),
            (archive(json!({ "serverSideEncryption": { "kmsKeyId": "alias/k" } })), "Required value"),
            (
                archive(json!({ "serverSideEncryption": { "type": "SSE-KMS", "kmsKeyId": "my key" } })),
                "kmsKeyId is a key's ARN",
            ),
            (archive(json!({ "storageClass": "GLACIER" })), "choose one that is read at once"),
            (archive(json!({ "storageClass": "STANDARD IA" })), "storageClass is one word of the store's"),
            (archive(json!({ "tags": { "aws:team": "shop" } })), "no key begins with aws:"),
            (archive(json!({ "tags": { "team": "a;b" } })), "tags have keys of 1 to 128"),
            (
                archive(
                    json!({ "tags": (0..11).map(|n| (format!("t{n}"), "x")).collect::<std::collections::BTreeMap<_, _>>() }),
                ),
                "Too many",
            ),
            (
                archive(json!({ "endpoint": "http://s3:7070", "ca": { "name": "ca", "key": "ca.crt" } })),
                "with an endpoint that begins with http:// there is no certificate to check",
            ),
            (archive(json!({ "credentials": null })), "Required value"),
        ],
    );
    is_checked(&namespace, "PgSnapshot", &[json!({ "set": "orders" })], &[(json!({}), "Required value")]);
    let dotted = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshot", "metadata": { "name": "a.b" }, "spec": { "set": "orders" },
    });
    let output = namespace.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &dotted.to_string()).unwrap();
    assert!(!output.ok && output.stderr.contains("a snapshot's name is at most 60"), "{}", output.stderr);
}

#[test]
#[ignore = "needs a cluster"]
fn every_example_is_taken() {
    let namespace = prepared("rules-examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            namespace.kubectl(&["create", "--dry-run=server", "-f", path.to_str().unwrap()], "").unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} examples were found");
}
