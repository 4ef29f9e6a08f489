//! Against a real API server: what only it can say about our requests. Ignored unless asked for:
//!
//! `KUBECONFIG=… cargo test -p pgconvoy-agent --lib -- --ignored live_tests`, with pgconvoy's CRDs applied and no
//! operator running. Each test makes a namespace of its own and deletes it. What is tested runs with the permissions that
//! an agent has.

use super::*;
use crate::settings::{Addresses, Identity, Paths};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod as CorePod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client};
use pgconvoy_crds::names::ANNOTATION_EPOCH;
use pgconvoy_crds::{MemberPhase, MemberRole, MemberState, PgReplicaSet, PgTerm};
use pgconvoy_ha::{Publication, Register, SwapOutcome};
use pgconvoy_terms::{ChangeId, Epoch, MemberName, Phase, Term};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const SECOND: Duration = Duration::from_secs(1);
const WANTED: LeaseWish = LeaseWish { wanted: true, orders: false };

mod agreeing;
mod faults;
mod reporting;

/// A namespace with what the operator makes for a set named `orders`.
struct Place {
    /// An administrator.
    admin: Client,
    /// What an agent may.
    clients: Clients,
    namespace: String,
    set_uid: String,
    volumes: tempfile::TempDir,
}

impl Place {
    async fn new(test: &str) -> Self {
        let admin = Clients::connect().await.unwrap().general;
        let namespace = format!("live-{test}-{:08x}", rand::random::<u32>());
        let mut config = kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await.unwrap();
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:orders"));
        let clients = Clients::with(config).unwrap();
        let place = Self { admin, clients, namespace, set_uid: String::new(), volumes: tempfile::tempdir().unwrap() };
        let namespaces: Api<Namespace> = Api::all(place.admin.clone());
        let body = json!({ "metadata": { "name": place.namespace } });
        namespaces.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap();
        place.permit().await;
        let set: PgReplicaSet = place
            .create(json!({
                "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "orders" },
                "spec": { "image": "postgres:17", "members": 3, "storage": { "size": "1Gi" },
                          "resources": { "limits": { "memory": "1Gi" } } },
            }))
            .await;
        let uid = set.metadata.uid.unwrap();
        let owner =
            json!([{ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "name": "orders", "uid": uid }]);
        let _: PgTerm = place
            .create(json!({
                "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgTerm",
                "metadata": { "name": "orders", "labels": { "pgconvoy.dev/set": "orders" }, "ownerReferences": owner },
                "spec": { "setUid": uid, "epoch": { "number": 0 } },
            }))
            .await;
        let _: Lease = place.create(json!({ "metadata": { "name": "orders" }, "spec": {} })).await;
        for service in ["rw", "ro", "r"] {
            let name = format!("orders-{service}");
            let _: EndpointSlice = place
                .create(json!({
                    "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
                    "addressType": "IPv4", "endpoints": [],
                }))
                .await;
        }
        Self { set_uid: uid, ..place }
    }

    fn client(&self) -> Client {
        self.clients.general.clone()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// The Role of a set's agents, as the operator makes it.
    async fn permit(&self) {
        let rule = |group: &str, resource: &str, names: &[&str], verbs: &[&str]| {
            let mut rule = json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        };
        let _: Role = self
            .create(json!({ "metadata": { "name": "orders" }, "rules": [
                rule("pgconvoy.dev", "pgterms", &["orders"], &["get", "list", "watch", "update"]),
                rule("coordination.k8s.io", "leases", &["orders"], &["get", "list", "watch", "update"]),
                rule("discovery.k8s.io", "endpointslices", &["orders-rw", "orders-ro", "orders-r"], &["get", "update"]),
                rule("pgconvoy.dev", "pgreplicasets", &["orders"], &["get", "list", "watch"]),
                rule("pgconvoy.dev", "pgreplicasets/status", &["orders"], &["patch"]),
                rule("", "pods", &[], &["get", "list", "watch"]),
                rule("events.k8s.io", "events", &[], &["create", "patch"]),
            ] }))
            .await;
        let _: RoleBinding = self
            .create(json!({
                "metadata": { "name": "orders" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "orders" },
                "subjects": [{ "kind": "ServiceAccount", "name": "orders", "namespace": self.namespace }],
            }))
            .await;
    }

    async fn create<K>(&self, body: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: serde::Serialize + DeserializeOwned + Clone + Debug,
    {
        self.api().create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap()
    }

    fn member(&self, n: u32) -> Identity {
        Identity {
            member: name(n),
            namespace: self.namespace.clone(),
            set_uid: self.set_uid.clone(),
            adopt: None,
            pod_uid: format!("pod-{n}"),
            pod_ip: format!("10.9.9.{n}").parse().unwrap(),
            node: "n1".into(),
            paths: Paths { state: self.volumes.path().join(format!("state-{n}")), ..Paths::default() },
            postgres_port: 5432,
            peers_port: 8443,
            http_port: 8080,
        }
    }

    fn events(&self, n: u32) -> Events {
        Events::start(self.client(), &self.member(n), Metrics::default()).0
    }

    async fn event(&self, reason: &str) -> Event {
        eventually(&format!("an Event {reason}"), async || {
            let all = self.api::<Event>().list(&ListParams::default()).await.unwrap();
            all.items.into_iter().find(|e| e.reason.as_deref() == Some(reason))
        })
        .await
    }

    async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

/// An agent that never stands still.
fn awake() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(u64::MAX))
}

fn name(n: u32) -> MemberName {
    MemberName::new("orders", n)
}

fn epoch(number: u32) -> Epoch {
    Epoch { number, id: ChangeId::from_random(number.into()) }
}

fn term(number: u32) -> Term {
    Term {
        epoch: epoch(number),
        phase: Phase::Recruiting,
        leader: None,
        rules: vec![],
        lossy: false,
        history: vec![],
        chain: (1..=number).map(|n| epoch(n).id).collect(),
    }
}

async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + 10 * SECOND;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come within 10 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until<T>(receiver: &mut watch::Receiver<T>, within: Duration, wanted: impl FnMut(&T) -> bool) {
    tokio::time::timeout(within, receiver.wait_for(wanted)).await.expect("it came in time").unwrap();
}

fn won(outcome: SwapOutcome) -> Register {
    match outcome {
        SwapOutcome::Won(register) => register,
        other => panic!("{other:?}"),
    }
}
