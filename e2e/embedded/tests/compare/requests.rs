//! What is asked, in this order.

use serde::Deserialize as _;
use serde_json::{Value, json};
use std::path::Path;

/// A request.
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

/// What kind of a request.
pub(crate) enum Kind {
    /// One answer; with this type of content.
    Send(&'static str),
    /// So many lines of a watch.
    Watch(usize),
    /// Forget what was.
    Compact,
    /// Let controllers do their work.
    Settle,
    /// Ask until it is gone: Kubernetes' controllers come to know a new kind within half a minute.
    Gone,
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCH: &str = "application/json-patch+json";

const CORE: &str = "/api/v1/namespaces/default";
const SETS: &str = "/apis/pgconvoy.dev/v1alpha1/namespaces/default/pgreplicasets";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

struct List(Vec<Request>);

impl List {
    fn send(&mut self, name: &str, method: &'static str, path: &str, content: &'static str, body: Value) {
        let body = Some(body).filter(|b| !b.is_null());
        self.0.push(Request { name: name.into(), kind: Kind::Send(content), method, path: path.into(), body });
    }

    fn get(&mut self, name: &str, path: &str) {
        self.send(name, "GET", path, "", Value::Null);
    }

    fn apply(&mut self, name: &str, path: &str, manager: &str, body: Value) {
        self.send(name, "PATCH", &format!("{path}?fieldManager={manager}"), APPLY, body);
    }

    fn special(&mut self, name: &str, kind: Kind, path: &str) {
        self.0.push(Request { name: name.into(), kind, method: "GET", path: path.into(), body: None });
    }
}

fn set(spec: Value) -> Value {
    json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "s" }, "spec": spec })
}

fn map(name: &str, data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

fn definitions() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    ["pgreplicasets", "pgterms"]
        .iter()
        .map(|name| {
            let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
            Value::deserialize(serde_yaml::Deserializer::from_str(&text)).unwrap()
        })
        .collect()
}

/// All requests.
pub(crate) fn all() -> Vec<Request> {
    let mut l = List(vec![]);
    for (i, definition) in definitions().into_iter().enumerate() {
        l.send(
            &format!("define {i}"),
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            JSON,
            definition,
        );
    }
    l.special("definitions are served", Kind::Settle, "");
    config_maps(&mut l);
    sets(&mut l);
    applies(&mut l);
    others(&mut l);
    deletions(&mut l);
    watches(&mut l);
    l.0
}

fn config_maps(l: &mut List) {
    let one = format!("{CORE}/configmaps/a");
    let all = format!("{CORE}/configmaps");
    l.send("create", "POST", &all, JSON, map("a", json!({ "x": "1" })));
    l.send("create twice", "POST", &all, JSON, map("a", json!({})));
    l.send(
        "create with a revision",
        "POST",
        &all,
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "b", "resourceVersion": "1" } }),
    );
    l.send(
        "create without a name",
        "POST",
        &all,
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {} }),
    );
    l.send("create with a bad name", "POST", &all, JSON, map("A_b", json!({})));
    l.send(
        "create of another kind",
        "POST",
        &all,
        JSON,
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "b" } }),
    );
    l.send(
        "create of another version",
        "POST",
        &all,
        JSON,
        json!({ "apiVersion": "v2", "kind": "ConfigMap", "metadata": { "name": "b" } }),
    );
    l.send(
        "create in another namespace",
        "POST",
        &all,
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "b", "namespace": "kube-system" } }),
    );
    l.send(
        "create where there is no namespace",
        "POST",
        "/api/v1/namespaces/nowhere/configmaps",
        JSON,
        map("a", json!({})),
    );
    l.send("create nonsense", "POST", &all, JSON, json!("nonsense"));
    l.send("dry run", "POST", &format!("{all}?dryRun=All"), JSON, map("dry", json!({ "x": "1" })));
    l.get("dry run made nothing", &format!("{all}/dry"));
    l.get("get", &one);
    l.get("get what is not there", &format!("{CORE}/configmaps/none"));
    l.get("get of no kind", &format!("{CORE}/nonsense/none"));
    l.get("get of no group", "/apis/nonsense.dev/v1/nonsense");
    let stale = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "resourceVersion": "$(create/metadata/resourceVersion)" },
        "data": { "x": "2" } });
    l.send("update", "PUT", &one, JSON, stale.clone());
    l.send(
        "update of an old revision",
        "PUT",
        &one,
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "a", "resourceVersion": "$(create/metadata/resourceVersion)" }, "data": { "x": "3" } }),
    );
    l.send("update without a revision", "PUT", &one, JSON, map("a", json!({ "x": "3" })));
    l.send("update that changes nothing", "PUT", &one, JSON, map("a", json!({ "x": "3" })));
    l.send(
        "update of another uid",
        "PUT",
        &one,
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "a", "uid": "11111111-2222-4333-8444-555555555555" } }),
    );
    l.send("update of another name", "PUT", &one, JSON, map("b", json!({})));
    l.send("update of what is not there", "PUT", &format!("{CORE}/configmaps/none"), JSON, map("none", json!({})));
    l.send(
        "merge patch",
        "PATCH",
        &one,
        MERGE,
        json!({ "data": { "x": null, "y": "4" }, "metadata": { "labels": { "l": "1" } } }),
    );
    l.send(
        "merge patch of an old revision",
        "PATCH",
        &one,
        MERGE,
        json!({ "metadata": { "resourceVersion": "$(create/metadata/resourceVersion)" }, "data": { "y": "5" } }),
    );
    l.send("merge patch of nothing", "PATCH", &one, MERGE, json!({}));
    l.send("merge patch of what is not there", "PATCH", &format!("{CORE}/configmaps/none"), MERGE, json!({}));
    l.send(
        "json patch",
        "PATCH",
        &one,
        PATCH,
        json!([{ "op": "test", "path": "/data/y", "value": "4" }, { "op": "add", "path": "/data/z", "value": "5" }]),
    );
    l.send(
        "json patch whose test fails",
        "PATCH",
        &one,
        PATCH,
        json!([{ "op": "test", "path": "/data/y", "value": "no" }]),
    );
    l.send(
        "strategic patch",
        "PATCH",
        &one,
        STRATEGIC,
        json!({ "data": { "z": null, "w": "6" }, "metadata": { "finalizers": ["e.dev/f"] } }),
    );
    l.send("patch of an unknown type", "PATCH", &one, "application/nonsense", json!({}));
    l.send("create for a list", "POST", &all, JSON, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "labels": { "l": "1", "m": "2" } } }));
    l.get("list by label", &format!("{all}?labelSelector=l%3D1"));
    l.get("list by labels", &format!("{all}?labelSelector=l%20in%20(1%2C2)%2C%21m"));
    l.get("list by name", &format!("{all}?fieldSelector=metadata.name%3Dc"));
    l.get("list with a bad selector", &format!("{all}?labelSelector=l%3D1%3D2%20x"));
    l.get("first page", &format!("{all}?labelSelector=l&limit=1"));
    l.get("second page", &format!("{all}?labelSelector=l&limit=1&continue=$(first page/metadata/continue)"));
    l.get("a page after nonsense", &format!("{all}?limit=1&continue=nonsense"));
}

fn sets(l: &mut List) {
    let one = format!("{SETS}/s");
    let good = json!({ "image": "docker.io/library/postgres:17", "storage": { "size": "1Gi" }, "members": 1 });
    l.send("create a set", "POST", &format!("{SETS}?fieldManager=me"), JSON, set(good.clone()));
    l.send(
        "a set without storage",
        "POST",
        SETS,
        JSON,
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
        "metadata": { "name": "t" }, "spec": { "image": "x" } }),
    );
    l.send(
        "a set of wrong types",
        "POST",
        SETS,
        JSON,
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
        "metadata": { "name": "t" }, "spec": { "image": 5, "members": "three", "storage": { "size": "1Gi" } } }),
    );
    let unknown = json!({ "image": "x", "storage": { "size": "1Gi", "colour": "red" }, "members": 1, "nonsense": 1 });
    let mut odd = set(unknown);
    odd["metadata"]["name"] = json!("odd");
    l.send("unknown fields are pruned", "POST", SETS, JSON, odd.clone());
    odd["metadata"]["name"] = json!("odder");
    l.send("unknown fields are refused", "POST", &format!("{SETS}?fieldValidation=Strict"), JSON, odd);
    l.send("update a set without a revision", "PUT", &one, JSON, set(good.clone()));
    let mut more = set(json!({ "image": "docker.io/library/postgres:17", "storage": { "size": "2Gi" }, "members": 3 }));
    let few = json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
        "metadata": { "name": "t" }, "spec": { "image": "x", "storage": { "size": "1Gi" } } });
    l.send("a set without members", "POST", SETS, JSON, few);
    more["metadata"]["resourceVersion"] = json!("$(create a set/metadata/resourceVersion)");
    more["status"] = json!({ "leader": "s-9" });
    l.send("update a set; its status stays", "PUT", &one, JSON, more);
    l.send(
        "status by merge patch",
        "PATCH",
        &format!("{one}/status"),
        MERGE,
        json!({ "status": { "leader": "s-1", "members": 1, "selector": "a=b" }, "spec": { "members": 5 } }),
    );
    l.get("status", &format!("{one}/status"));
    l.get("scale", &format!("{one}/scale"));
    l.send("scale by merge patch", "PATCH", &format!("{one}/scale"), MERGE, json!({ "spec": { "replicas": 4 } }));
    l.send(
        "scale by update",
        "PUT",
        &format!("{one}/scale"),
        JSON,
        json!({ "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": { "name": "s", "namespace": "default" }, "spec": { "replicas": 2 } }),
    );
    l.send("scale of an old revision", "PUT", &format!("{one}/scale"), JSON, json!({ "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": { "name": "s", "namespace": "default", "resourceVersion": "$(create a set/metadata/resourceVersion)" }, "spec": { "replicas": 1 } }));
    l.send("no subresource", "GET", &format!("{one}/nonsense"), "", Value::Null);
    l.send("strategic patch of a set", "PATCH", &one, STRATEGIC, json!({ "spec": { "members": 3 } }));
    l.get("a set as a table", &format!("{SETS}#table"));
    l.get("sets", SETS);
}

fn applies(l: &mut List) {
    let one = format!("{SETS}/s");
    l.apply(
        "apply",
        &one,
        "a",
        set(json!({ "image": "docker.io/library/postgres:17", "storage": { "size": "2Gi" }, "members": 2 })),
    );
    l.apply(
        "apply the same again",
        &one,
        "a",
        set(json!({ "image": "docker.io/library/postgres:17", "storage": { "size": "2Gi" }, "members": 2 })),
    );
    l.apply("apply in conflict", &one, "b", set(json!({ "members": 5, "image": "another" })));
    l.send("apply by force", "PATCH", &format!("{one}?fieldManager=b&force=true"), APPLY, set(json!({ "members": 5 })));
    l.apply("apply without a field", &one, "b", set(json!({})));
    l.send("apply without a manager", "PATCH", &one, APPLY, set(json!({})));
    l.apply(
        "apply with managed fields",
        &one,
        "b",
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
        "metadata": { "name": "s", "managedFields": [] } }),
    );
    l.apply(
        "apply of another name",
        &one,
        "b",
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "t" } }),
    );
    let status = format!("{one}/status");
    let of = |member: &str, state: &str| {
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "s" },
            "status": { "memberStates": [{ "name": member, "state": state }] } })
    };
    l.apply("status of one member", &status, "agent-1", of("s-1", "Attached"));
    l.apply("status of another", &status, "agent-2", of("s-2", "CatchingUp"));
    l.apply("status of one in conflict", &status, "agent-2", of("s-1", "CatchingUp"));
    l.apply(
        "a member's status is given up",
        &status,
        "agent-2",
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "s" } }),
    );
    l.apply(
        "the last member's status is given up",
        &status,
        "agent-1",
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "s" } }),
    );
    let other_uid = json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
        "metadata": { "name": "s", "uid": "11111111-2222-4333-8444-555555555555" }, "status": { "leader": "x" } });
    l.apply("apply to another uid", &status, "agent-1", other_uid.clone());
    l.apply("apply of the whole to another uid", &one, "agent-1", other_uid.clone());
    let other = "11111111-2222-4333-8444-555555555555";
    let by_merge = json!({ "metadata": { "uid": other }, "status": { "leader": "y" } });
    l.send("status by merge patch of another uid", "PATCH", &status, MERGE, by_merge);
    let by_merge = json!({ "metadata": { "uid": other }, "spec": { "members": 2 } });
    l.send("merge patch of another uid", "PATCH", &one, MERGE, by_merge);
    l.get("after all applies", &one);
    l.apply(
        "status of what is not there",
        &format!("{SETS}/none/status"),
        "agent-1",
        json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "none" } }),
    );
    let service = |ports: Value| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "v", "labels": { "a": "1" } },
        "spec": { "clusterIP": "None", "ports": ports } })
    };
    let at = format!("{CORE}/services/v");
    l.apply("apply makes it", &at, "a", service(json!([{ "name": "p", "port": 1 }])));
    l.apply(
        "another port",
        &at,
        "b",
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "v", "labels": { "b": "2" } },
        "spec": { "ports": [{ "name": "q", "port": 2, "protocol": "TCP" }] } }),
    );
    l.apply("a port goes", &at, "a", service(json!([{ "name": "r", "port": 3 }])));
    l.send(
        "update takes over",
        "PATCH",
        &format!("{at}?fieldManager=u"),
        MERGE,
        json!({ "metadata": { "labels": { "a": "9" } } }),
    );
    l.apply("apply against the update", &at, "a", service(json!([{ "name": "r", "port": 3 }])));
}

fn others(l: &mut List) {
    l.send(
        "a lease",
        "POST",
        LEASES,
        JSON,
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "l" }, "spec": {} }),
    );
    l.send(
        "lease taken",
        "PUT",
        &format!("{LEASES}/l"),
        JSON,
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "l", "resourceVersion": "$(a lease/metadata/resourceVersion)" },
        "spec": { "holderIdentity": "me", "leaseDurationSeconds": 6, "renewTime": "2026-01-01T00:00:00.000000Z" } }),
    );
    l.send("lease taken too late", "PUT", &format!("{LEASES}/l"), JSON, json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "l", "resourceVersion": "$(a lease/metadata/resourceVersion)" }, "spec": { "holderIdentity": "you" } }));
    l.send(
        "a slice",
        "POST",
        SLICES,
        JSON,
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": "e" },
        "addressType": "IPv4", "endpoints": [], "ports": [{ "name": "postgres", "port": 5432, "protocol": "TCP" }] }),
    );
    l.send("slice filled", "PUT", &format!("{SLICES}/e"), JSON, json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "e", "resourceVersion": "$(a slice/metadata/resourceVersion)" }, "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.1.2.3"], "conditions": { "ready": true } }], "ports": [{ "name": "postgres", "port": 5432, "protocol": "TCP" }] }));
    l.send(
        "a secret",
        "POST",
        &format!("{CORE}/secrets"),
        JSON,
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "k" },
        "data": { "a": "YQ==" }, "stringData": { "b": "b" } }),
    );
    l.send("a claim", "POST", &format!("{CORE}/persistentvolumeclaims"), JSON, json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "p" }, "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": { "requests": { "storage": "1Gi" } } } }));
    l.send("an event", "POST", "/apis/events.k8s.io/v1/namespaces/default/events", JSON, json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": { "name": "ev" }, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c.dev/x", "reportingInstance": "i", "action": "A",
        "reason": "R", "type": "Normal", "note": "n", "regarding": { "kind": "ConfigMap", "namespace": "default", "name": "a" } }));
    l.get("the event as the core shows it", &format!("{CORE}/events/ev"));
    l.send("a role", "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", JSON, json!({ "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role", "metadata": { "name": "r" }, "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }] }));
    l.send("a binding", "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", JSON, json!({ "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding", "metadata": { "name": "r" }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r" },
        "subjects": [{ "kind": "ServiceAccount", "name": "x", "namespace": "default" }] }));
    l.send(
        "a binding to another role",
        "PATCH",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/r",
        MERGE,
        json!({ "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "q" } }),
    );
    l.send("a budget", "POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", JSON, json!({ "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget", "metadata": { "name": "b" }, "spec": { "minAvailable": 2, "selector": { "matchLabels": { "a": "b" } } } }));
    l.send(
        "a pod",
        "POST",
        &format!("{CORE}/pods"),
        JSON,
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "pod" },
        "spec": { "containers": [{ "name": "c", "image": "i:1", "command": ["x"], "ports": [{ "containerPort": 5 }],
            "readinessProbe": { "httpGet": { "path": "/x", "port": 8 } } }],
          "automountServiceAccountToken": false, "volumes": [{ "name": "v", "secret": { "secretName": "s" } }] } }),
    );
    l.send(
        "another image in place",
        "PATCH",
        &format!("{CORE}/pods/pod"),
        STRATEGIC,
        json!({ "spec": { "containers": [{ "name": "c", "image": "i:2" }] } }),
    );
    l.send(
        "another command",
        "PATCH",
        &format!("{CORE}/pods/pod"),
        STRATEGIC,
        json!({ "spec": { "containers": [{ "name": "c", "command": ["y"] }] } }),
    );
    l.send(
        "a pod's status",
        "PATCH",
        &format!("{CORE}/pods/pod/status"),
        MERGE,
        json!({ "status": { "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }] } }),
    );
    l.send("an account", "POST", &format!("{CORE}/serviceaccounts"), JSON, json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "x" }, "automountServiceAccountToken": false }));
}

fn deletions(l: &mut List) {
    let at = |name: &str| format!("{CORE}/configmaps/{name}");
    l.send(
        "delete of another uid",
        "DELETE",
        &at("c"),
        JSON,
        json!({ "preconditions": { "uid": "11111111-2222-4333-8444-555555555555" } }),
    );
    l.send(
        "delete of an old revision",
        "DELETE",
        &at("c"),
        JSON,
        json!({ "preconditions": { "resourceVersion": "1" } }),
    );
    l.send(
        "delete",
        "DELETE",
        &at("c"),
        JSON,
        json!({ "preconditions": { "uid": "$(create for a list/metadata/uid)" } }),
    );
    l.send("delete again", "DELETE", &at("c"), "", Value::Null);
    l.send("delete what a finalizer holds", "DELETE", &at("a"), "", Value::Null);
    l.get("it is still there", &at("a"));
    l.send("the finalizer goes", "PATCH", &at("a"), MERGE, json!({ "metadata": { "finalizers": null } }));
    l.get("now it is gone", &at("a"));
    l.send("delete a claim", "DELETE", &format!("{CORE}/persistentvolumeclaims/p"), "", Value::Null);
    l.send("delete an unscheduled pod", "DELETE", &format!("{CORE}/pods/pod"), "", Value::Null);
    let owned = |name: &str, blocks: bool| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": [{
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "name": "s", "uid": "$(create a set/metadata/uid)", "controller": true, "blockOwnerDeletion": blocks }] } })
    };
    l.send("owned", "POST", &format!("{CORE}/configmaps"), JSON, owned("owned", true));
    l.send(
        "owned without a uid",
        "POST",
        &format!("{CORE}/configmaps"),
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "o",
        "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "a" }] } }),
    );
    l.send("owned by nobody", "POST", &format!("{CORE}/configmaps"), JSON, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "orphan",
        "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "11111111-2222-4333-8444-555555555555" }] } }));
    l.send("delete the owner", "DELETE", &format!("{SETS}/s"), JSON, json!({ "propagationPolicy": "Background" }));
    l.special("collect", Kind::Settle, "");
    for name in ["owned", "orphan"] {
        l.special(&format!("{name} is gone"), Kind::Gone, &at(name));
    }
    l.special("the claim is gone", Kind::Gone, &format!("{CORE}/persistentvolumeclaims/p"));
    l.send(
        "delete a collection",
        "DELETE",
        &format!("{CORE}/secrets?fieldSelector=metadata.name%3Dk"),
        "",
        Value::Null,
    );
    l.get("nothing of it is left", &format!("{CORE}/secrets?fieldSelector=metadata.name%3Dk"));
}

fn watches(l: &mut List) {
    let all = format!("{CORE}/configmaps");
    l.send(
        "before",
        "POST",
        &all,
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "w", "labels": { "w": "1" } } }),
    );
    l.send("changed", "PATCH", &format!("{all}/w"), MERGE, json!({ "data": { "a": "b" } }));
    l.send("no longer meant", "PATCH", &format!("{all}/w"), MERGE, json!({ "metadata": { "labels": { "w": "2" } } }));
    l.send("meant again", "PATCH", &format!("{all}/w"), MERGE, json!({ "metadata": { "labels": { "w": "1" } } }));
    l.send("deleted", "DELETE", &format!("{all}/w"), "", Value::Null);
    let from = "$(before/metadata/resourceVersion)";
    l.special("watch", Kind::Watch(4), &format!("{all}?watch=1&labelSelector=w%3D1&resourceVersion={from}"));
    l.special(
        "watch to its end",
        Kind::Watch(9),
        &format!("{all}?watch=1&labelSelector=w%3D1&resourceVersion={from}&timeoutSeconds=2"),
    );
    l.send(
        "there at the start",
        "POST",
        &all,
        JSON,
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x", "labels": { "w": "3" } } }),
    );
    l.special("watch from nothing", Kind::Watch(1), &format!("{all}?watch=1&labelSelector=w%3D3"));
    l.special("initial events", Kind::Watch(2), &format!("{all}?watch=1&labelSelector=w%3D3&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"));
    l.special(
        "watch a table's revision of nonsense",
        Kind::Watch(1),
        &format!("{all}?watch=1&resourceVersion=nonsense"),
    );
    l.special("forget", Kind::Compact, "");
    l.special("watch from what is forgotten", Kind::Watch(1), &format!("{SETS}?watch=1&resourceVersion=1"));
}
