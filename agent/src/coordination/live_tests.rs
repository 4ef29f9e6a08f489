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
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const SECOND: Duration = Duration::from_secs(1);

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

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn the_term_is_changed_by_compare_and_swap_alone() {
    let place = Place::new("term").await;
    let client = |n| TermClient::new(place.clients.coordination.clone(), &place.member(n), place.events(n));
    let (one, two) = (client(1), client(2));
    let (registers, mut seen) = mpsc::channel(4);
    let task = one.watch(registers, Metrics::default());
    let first = tokio::time::timeout(SECOND * 5, seen.recv()).await.unwrap().unwrap();
    assert_eq!(first.term, None);
    let (read, asked) = two.read().await.unwrap();
    assert_eq!(read, first);
    assert!(crate::clock::now().since(asked) < 2_000);

    let opened = won(one.swap(&first.version, &term(1)).await);
    assert_eq!(opened.term, Some(term(1)));
    assert_eq!(two.swap(&first.version, &term(1)).await, SwapOutcome::Lost, "based on what is no more");
    let start = Instant::now();
    assert_eq!(tokio::time::timeout(SECOND, seen.recv()).await.unwrap(), Some(opened.clone()));
    println!("the watch showed a change {:?} after it was made", start.elapsed());

    // Two based on the same version: one wins.
    let mut other = term(2);
    other.epoch.id = ChangeId::from_random(99);
    other.chain[1] = other.epoch.id.clone();
    let (t1, t2) = (term(2), other);
    let both = tokio::join!(one.swap(&opened.version, &t1), two.swap(&opened.version, &t2));
    let winners = [&both.0, &both.1].into_iter().filter(|o| matches!(o, SwapOutcome::Won(_))).count();
    assert_eq!(winners, 1, "{both:?}");
    let now = two.read().await.unwrap().0;

    // The server itself refuses epochs that go back, with its sentence.
    match two.swap(&now.version, &term(1)).await {
        SwapOutcome::Refused(why) => assert!(why.contains("epochs only grow"), "{why}"),
        other => panic!("{other:?}"),
    }
    let object = place.api::<PgTerm>().get("orders").await.unwrap();
    assert_eq!(object.metadata.labels.unwrap()["pgconvoy.dev/set"], "orders", "labels stay");
    assert_eq!(object.metadata.owner_references.unwrap().len(), 1, "owners stay");

    // Somebody deletes it.
    place.api::<PgTerm>().delete("orders", &DeleteParams::default()).await.unwrap();
    let warned = place.event("TermMissing").await;
    assert_eq!(warned.involved_object.kind.as_deref(), Some("PgReplicaSet"));
    assert!(matches!(two.read().await, Err(ApiError::Missing { .. })));
    assert!(matches!(two.swap(&now.version, &term(3)).await, SwapOutcome::Refused(_)));
    // Made anew for another set of the name: not obeyed.
    let _: PgTerm = place
        .create(json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgTerm", "metadata": { "name": "orders" },
            "spec": { "setUid": "another", "epoch": { "number": 0 } },
        }))
        .await;
    place.event("TermUnreadable").await;
    assert!(matches!(two.read().await, Err(ApiError::Unreadable { .. })));
    while let Ok(register) = seen.try_recv() {
        assert!(register.term.is_some(), "the other set's term was passed on");
    }
    assert!(!task.is_finished());
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn the_lease_goes_from_hand_to_hand() {
    let place = Place::new("lease").await;
    let candidate = |n| {
        let (want, wanted) = watch::channel(false);
        let (say, held) = watch::channel(false);
        let client = place.clients.coordination.clone();
        let task = keep_lease(client, &place.member(n), wanted, say, Metrics::default());
        (want, held, task)
    };
    let (mut one, mut two) = (candidate(1), candidate(2));
    tokio::time::sleep(SECOND).await;
    let start = Instant::now();
    one.0.send(true).unwrap();
    until(&mut one.1, SECOND, |h| *h).await;
    println!("a free Lease was taken in {:?}", start.elapsed());
    two.0.send(true).unwrap();
    tokio::time::sleep(SECOND * 7).await;
    assert!(*one.1.borrow() && !*two.1.borrow());
    let lease = place.api::<Lease>().get("orders").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some("orders-1/pod-1"));
    assert!(lease.renew_time.unwrap().0 > lease.acquire_time.unwrap().0, "it was renewed");

    let start = Instant::now();
    one.0.send(false).unwrap();
    until(&mut two.1, SECOND * 3, |h| *h).await;
    println!("a released Lease was taken in {:?}", start.elapsed());
    assert!(!*one.1.borrow());

    // The holder's process ends without a word; a restarted one of the same pod has it back at once.
    two.2.abort();
    let mut again = candidate(2);
    again.0.send(true).unwrap();
    until(&mut again.1, SECOND * 2, |h| *h).await;

    again.2.abort();
    one.0.send(true).unwrap();
    let start = Instant::now();
    until(&mut one.1, SECOND * 20, |h| *h).await;
    println!("the Lease of a silent holder was taken in {:?}", start.elapsed());
    assert!(start.elapsed() > SECOND * 9, "{:?}", start.elapsed());

    // Deleted: no longer held; made again: held again.
    place.api::<Lease>().delete("orders", &DeleteParams::default()).await.unwrap();
    until(&mut one.1, SECOND * 7, |h| !*h).await;
    let _: Lease = place.create(json!({ "metadata": { "name": "orders" } })).await;
    until(&mut one.1, SECOND * 5, |h| *h).await;
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn the_services_lead_where_the_latest_epoch_says() {
    let place = Place::new("endpoints").await;
    let pods: Pods = (1..=3)
        .map(|n| {
            (
                name(n),
                Pod {
                    ips: vec![format!("10.1.1.{n}").parse().unwrap()],
                    uid: Some(format!("u{n}")),
                    node: Some("n1".into()),
                },
            )
        })
        .collect();
    let publisher = |n, pods: Pods| {
        let (say, publication) = watch::channel(None);
        let (keep, pods) = watch::channel(pods);
        let task = publish(place.client(), &place.member(n), publication, pods, place.events(n), Metrics::default());
        (say, keep, task)
    };
    let (one, two) = (publisher(1, pods.clone()), publisher(2, pods));
    let led_by = |leader: u32, number| Publication {
        epoch: epoch(number),
        leader: Some(name(leader)),
        followers: (1..=3).filter(|n| *n != leader).map(name).collect(),
    };
    let slice = async |service: &str| place.api::<EndpointSlice>().get(&format!("orders-{service}")).await.unwrap();
    let targets = |s: &EndpointSlice| -> BTreeSet<String> {
        s.endpoints.iter().map(|e| e.target_ref.clone().unwrap().name.unwrap()).collect()
    };
    let leads_to = async |service: &str, wanted: &[u32]| {
        let wanted: BTreeSet<String> = wanted.iter().map(|n| name(*n).to_string()).collect();
        eventually(&format!("{service} to {wanted:?}"), async || {
            let s = slice(service).await;
            (targets(&s) == wanted).then_some(s)
        })
        .await
    };
    let start = Instant::now();
    one.0.send(Some(led_by(1, 4))).unwrap();
    let rw = leads_to("rw", &[1]).await;
    println!("the Service led to the leader after {:?}", start.elapsed());
    leads_to("ro", &[2, 3]).await;
    leads_to("r", &[1, 2, 3]).await;
    assert_eq!(rw.metadata.labels.unwrap()["kubernetes.io/service-name"], "orders-rw");
    assert_eq!(rw.metadata.annotations.unwrap()[ANNOTATION_EPOCH], epoch(4).to_string());
    two.0.send(Some(led_by(2, 5))).unwrap();
    leads_to("rw", &[2]).await;
    // The old leader learns late, and says its word once more.
    one.0.send(Some(led_by(3, 4))).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(targets(&slice("rw").await), BTreeSet::from(["orders-2".to_owned()]));
    // Nothing is written while nothing changes.
    let version = slice("rw").await.metadata.resource_version;
    two.0.send(Some(led_by(2, 5))).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(slice("rw").await.metadata.resource_version, version);
    two.0.send(Some(Publication { leader: None, ..led_by(2, 5) })).unwrap();
    leads_to("rw", &[]).await;
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn each_member_writes_its_own_entry_and_no_other() {
    let place = Place::new("status").await;
    let reporter = |n| {
        let (say, state) = watch::channel(MemberState::default());
        let task = report(place.client(), &place.member(n), state, place.events(n), Metrics::default());
        (say, task)
    };
    let (one, two) = (reporter(1), reporter(2));
    let leading = MemberState {
        role: Some(MemberRole::Leader),
        state: Some(MemberPhase::Attached),
        epoch: Some(4),
        ..MemberState::default()
    };
    one.0.send(leading.clone()).unwrap();
    two.0.send(MemberState { state: Some(MemberPhase::Cloning), ..MemberState::default() }).unwrap();
    let set = async || place.api::<PgReplicaSet>().get("orders").await.unwrap();
    let entry = async |n: u32, wanted: MemberPhase| {
        eventually(&format!("{wanted:?} of {n}"), async || {
            let states = set().await.status.unwrap_or_default().member_states;
            states.into_iter().find(|s| s.name == name(n).to_string() && s.state == Some(wanted))
        })
        .await
    };
    let first = entry(1, MemberPhase::Attached).await;
    assert_eq!((first.pod_uid.as_deref(), first.node.as_deref(), first.epoch), (Some("pod-1"), Some("n1"), Some(4)));
    let since = first.since.unwrap();
    entry(2, MemberPhase::Cloning).await;
    let version = set().await.metadata.resource_version;
    // The same again, and an agent that restarts: no write.
    one.0.send(leading.clone()).unwrap();
    one.1.abort();
    let again = reporter(1);
    again.0.send(leading.clone()).unwrap();
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(set().await.metadata.resource_version, version);
    // Another message is no other state; of many changes the last one counts.
    for i in 0..50 {
        again.0.send(MemberState { message: Some(format!("{i} left")), ..leading.clone() }).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("the last message", async || {
        let e = entry(1, MemberPhase::Attached).await;
        (e.message.as_deref() == Some("49 left") && e.since.as_ref() == Some(&since)).then_some(())
    })
    .await;
    again.0.send(MemberState { role: None, state: Some(MemberPhase::Fenced), ..leading }).unwrap();
    let fenced = entry(1, MemberPhase::Fenced).await;
    assert_eq!(fenced.role, None, "what is no longer said is gone");
    assert_ne!(fenced.since, Some(since));
    entry(2, MemberPhase::Cloning).await;
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn spec_and_pods_are_followed() {
    let place = Place::new("watch").await;
    let me = place.member(1);
    let (say, mut watched) = watch::channel(None);
    let _spec = watch_spec(place.client(), &me, say, place.events(1), Metrics::default());
    let (addresses, mut known) = watch::channel(Addresses::new());
    let (pods, all) = watch::channel(Pods::new());
    let _pods = watch_pods(place.client(), &me, addresses, pods, Metrics::default());
    until(&mut watched, SECOND * 5, Option::is_some).await;
    let first = watched.borrow_and_update().clone().unwrap();
    assert!(first.spec.roster.is_empty());
    assert_eq!((first.spec.acknowledgements, first.settings.memory_limit), (1, Some(1 << 30)));
    let api: Api<DynamicObject> = super::watching::untyped::<PgReplicaSet>(place.admin.clone(), &place.namespace);
    let status = json!({ "status": { "roster": ["orders-1", "orders-2"] } });
    api.patch_status("orders", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    until(&mut watched, SECOND * 5, |w| w.as_ref().is_some_and(|w| w.spec.roster.len() == 2)).await;
    // What others write into the status is nothing new for us.
    watched.borrow_and_update();
    let status = json!({ "status": { "ready": "1/3" } });
    api.patch_status("orders", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(!watched.has_changed().unwrap());

    assert_eq!(known.borrow_and_update().clone(), Addresses::from([(name(1), me.pod_ip)]));
    let _: CorePod = place
        .create(json!({
            "metadata": { "name": "orders-2", "labels": { "pgconvoy.dev/set": "orders" } },
            "spec": { "nodeName": "nowhere", "automountServiceAccountToken": false,
                      "containers": [{ "name": "c", "image": "none" }] },
        }))
        .await;
    let ip = json!({ "status": { "podIP": "10.7.7.2", "podIPs": [{ "ip": "10.7.7.2" }] } });
    place.api::<CorePod>().patch_status("orders-2", &PatchParams::default(), &Patch::Merge(&ip)).await.unwrap();
    until(&mut known, SECOND * 5, |a| a.get(&name(2)) == Some(&"10.7.7.2".parse().unwrap())).await;
    assert_eq!(all.borrow()[&name(2)].node.as_deref(), Some("nowhere"));
    place.api::<CorePod>().delete("orders-2", &DeleteParams::default().grace_period(0)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(known.borrow().contains_key(&name(2)), "the last known address stays");
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn events_reach_the_pod_and_the_set() {
    let place = Place::new("events").await;
    let events = place.events(1);
    events.tell(About::Pod, "CloneStarted", "orders-1 copies the data of orders-2");
    for _ in 0..5 {
        events.warn(About::Set, "NoQuorum", &format!("two of three are gone {}", "é".repeat(2_000)));
    }
    let told = place.event("CloneStarted").await;
    assert_eq!((told.type_.as_deref(), told.involved_object.kind.as_deref()), (Some("Normal"), Some("Pod")));
    assert_eq!(told.involved_object.uid.as_deref(), Some("pod-1"));
    let warned = place.event("NoQuorum").await;
    assert_eq!(warned.type_.as_deref(), Some("Warning"));
    let all = place.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 2, "the same words are said once");
    place.end().await;
}
