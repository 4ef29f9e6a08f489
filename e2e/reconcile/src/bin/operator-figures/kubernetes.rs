//! A real API server on which no scheduler, no controller and no kubelet runs: pods are bound and their status is written from
//! here.

use crate::bed::{Bed, Rest, SETS};
use crate::mirror::{Mirror, Place};
use anyhow::Context as _;
use futures::StreamExt as _;
use hyper::Request;
use kube::Client;
use kube::api::{Api as Resources, ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use pgconvoy_e2e_reconcile::explorer::Counted;
use pgconvoy_e2e_reconcile::faked::{Faked, Objects};
use pgconvoy_embedded::api::kinds::Kind;
use pgconvoy_embedded::api::{Api, PatchKind, WriteOptions, text};
use pgconvoy_embedded::cluster::apply;
use pgconvoy_embedded::http::Server;
use pgconvoy_operator::election::LEASE;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How many sets kubelets and agents are faked for at once.
const AT_ONCE: usize = 8;
const LEASES: &str = "leases.coordination.k8s.io";
/// What the mirror holds.
const MIRRORED: [&str; 5] = ["pods", "persistentvolumeclaims", "pgterms.pgconvoy.dev", SETS, "services"];

/// The API server and what was last heard from it.
pub(crate) struct Kubernetes {
    remote: Remote,
    kinds: Vec<Arc<Kind>>,
    kubeconfig: PathBuf,
    namespaces: Mutex<BTreeSet<String>>,
}

impl Kubernetes {
    /// Connects, and begins to fake kubelets and agents.
    pub(crate) fn new(kubeconfig: &Path, crds: &Path) -> anyhow::Result<Self> {
        let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?);
        let config = runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
        })?;
        let client = runtime.block_on(async { pgconvoy_operator::client::client(&config) })?;
        // Only for what kinds there are: nothing is stored in it.
        let known = Server::new(Api::new(Box::new(Counted(0)), 1), PathBuf::new());
        for file in crate::yaml_files(crds)? {
            apply(&known, &file)?;
        }
        let mut kinds = known.with(|a| a.kinds().to_vec());
        kinds.retain(|k| k.stored == k.qualified());
        let remote = Remote { client, runtime, mirror: Arc::default(), refused: false };
        let kubernetes = Self { remote, kinds, kubeconfig: kubeconfig.to_owned(), namespaces: Mutex::default() };
        for stored in MIRRORED {
            kubernetes.follow(kubernetes.kind(stored)?);
        }
        for _ in 0..AT_ONCE {
            let faked = known.with(|a| Faked::new(a)).context("the custom resources are not known")?;
            let remote = kubernetes.remote.clone();
            std::thread::spawn(move || remote.live(&faked));
        }
        Ok(kubernetes)
    }

    fn kind(&self, stored: &str) -> anyhow::Result<Arc<Kind>> {
        self.kinds.iter().find(|k| k.stored == stored).cloned().with_context(|| format!("{stored} is not served"))
    }

    /// Mirrors a kind, for ever.
    fn follow(&self, kind: Arc<Kind>) {
        let resource = ApiResource {
            group: kind.group.clone(),
            version: kind.version.clone(),
            api_version: kind.api_version(),
            kind: kind.kind.clone(),
            plural: kind.plural.clone(),
        };
        let resources: Resources<DynamicObject> = Resources::all_with(self.remote.client.clone(), &resource);
        let mirror = self.remote.mirror.clone();
        self.remote.runtime.spawn(async move {
            let mut events = std::pin::pin!(watcher(resources, watcher::Config::default()).default_backoff());
            let mut listed = BTreeSet::new();
            let whole = |object: &DynamicObject| {
                let mut object = json!(object);
                // Items of a list do not say what they are.
                object["apiVersion"] = json!(kind.api_version());
                object["kind"] = json!(kind.kind);
                object
            };
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init) => listed.clear(),
                    Ok(Event::InitApply(object)) => {
                        let name = object.metadata.name.clone().unwrap_or_default();
                        listed.insert((object.metadata.namespace.clone().unwrap_or_default(), name));
                        mirror.put(&kind, whole(&object));
                    }
                    Ok(Event::InitDone) => mirror.keep(&kind, &listed),
                    Ok(Event::Apply(object)) => mirror.put(&kind, whole(&object)),
                    Ok(Event::Delete(object)) => mirror.remove(&kind, &whole(&object)),
                    Err(error) => eprintln!("the watch of {} fails: {error}", kind.plural),
                }
            }
        });
    }

    /// Every object of our namespaces but Leases, with its revision.
    fn versions(&self) -> anyhow::Result<BTreeMap<(String, Place), String>> {
        let own = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = BTreeMap::new();
        for kind in self.kinds.iter().filter(|k| k.namespaced && k.stored != LEASES) {
            let list = self.remote.ask("GET", &path(kind, "", "", ""), "", None)?;
            for object in list["items"].as_array().into_iter().flatten() {
                let namespace = text(object, "/metadata/namespace");
                if own.contains(namespace) {
                    let place = (namespace.to_owned(), text(object, "/metadata/name").to_owned());
                    let revision = text(object, "/metadata/resourceVersion").to_owned();
                    all.insert((kind.stored.clone(), place), revision);
                }
            }
        }
        Ok(all)
    }

    /// How many requests have ended, and how many watches are open, of everybody.
    fn traffic(&self) -> anyhow::Result<(f64, f64)> {
        let request = Request::get("/metrics").body(vec![])?;
        let metrics = self.remote.runtime.block_on(self.remote.client.request_text(request))?;
        let sum = |name: &str, holding: &str| -> f64 {
            let lines = metrics.lines().filter(|l| l.starts_with(name) && l.contains(holding));
            lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        Ok((sum("apiserver_request_total{", ""), sum("apiserver_longrunning_requests{", r#"verb="WATCH""#)))
    }
}

impl Bed for Kubernetes {
    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn create(&self, stored: &str, namespace: &str, mut object: Value) -> anyhow::Result<()> {
        let kind = self.kind(stored)?;
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        if stored == "namespaces" {
            let mut own = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            own.insert(text(&object, "/metadata/name").to_owned());
        }
        self.remote.ask("POST", &path(&kind, namespace, "", ""), "application/json", Some(&object))?;
        Ok(())
    }

    fn change(&self, namespace: &str, set: &str, spec: Value) -> anyhow::Result<()> {
        let (kind, body) = (self.kind(SETS)?, json!({ "spec": spec }));
        let done = self.remote.ask("PATCH", &path(&kind, namespace, set, ""), MERGE, Some(&body))?;
        // Whoever asks next knows of it.
        self.remote.mirror.put(&kind, done);
        Ok(())
    }

    fn get(&self, stored: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.remote.mirror.get(stored, namespace, name)
    }

    fn pods(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.remote.mirror.all("pods", namespace)
    }

    fn rest(&self, time: Duration) -> anyhow::Result<Rest> {
        let before = self.versions()?;
        let ((requests, _), begun) = (self.traffic()?, Instant::now());
        std::thread::sleep(time);
        let (after, watches) = self.traffic()?;
        let requests = (after - requests) / begun.elapsed().as_secs_f64();
        let now = self.versions()?;
        let gone = before.keys().filter(|k| !now.contains_key(*k)).count();
        let written = gone + now.iter().filter(|(k, v)| before.get(*k) != Some(*v)).count();
        Ok(Rest { requests, watches, written })
    }

    fn has_others(&self) -> bool {
        true
    }

    fn free_lease(&self) -> anyhow::Result<()> {
        let kind = self.kind(LEASES)?;
        let lease = path(&kind, crate::OPERATOR_NAMESPACE, LEASE, "");
        self.remote.ask("DELETE", &lease, "application/json", Some(&json!({})))?;
        Ok(())
    }
}

const MERGE: &str = "application/merge-patch+json";

fn path(kind: &Kind, namespace: &str, name: &str, subresource: &str) -> String {
    let mut path = if kind.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", kind.group) };
    path.push_str(&kind.version);
    if kind.namespaced && !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    for step in [&kind.plural, name, subresource] {
        if !step.is_empty() {
            path.push('/');
            path.push_str(step);
        }
    }
    path
}

/// The API server, as faked kubelets and agents see it: they read the mirror, and write what is true.
#[derive(Clone)]
struct Remote {
    client: Client,
    runtime: Arc<Runtime>,
    mirror: Arc<Mirror>,
    /// The last write was refused.
    refused: bool,
}

impl Remote {
    fn ask(&self, method: &str, path: &str, content: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        loop {
            let request = Request::builder().method(method).uri(path).header("content-type", content);
            let answer = self.runtime.block_on(self.client.request::<Value>(request.body(body.clone())?));
            // A custom resource that nobody has asked for yet: it says when to ask again.
            let later = match &answer {
                Err(kube::Error::Api(s)) if s.code == 429 => s.details.as_ref().map(|d| d.retry_after_seconds),
                _ => None,
            };
            let Some(seconds) = later else { return answer.with_context(|| format!("{method} {path}")) };
            std::thread::sleep(Duration::from_secs(seconds.into()));
        }
    }

    /// Writes, and notes what came of it.
    fn write(&mut self, method: &str, kind: &Kind, path: &str, content: &str, body: &Value) -> bool {
        match self.ask(method, path, content, Some(body)) {
            Ok(object) => {
                // Answers to a binding are a Status, and what is deleted is not there any more.
                if method != "DELETE" && object["kind"] == kind.kind {
                    self.mirror.put(kind, object);
                }
                true
            }
            Err(error) => {
                // Who was overtaken looks again.
                let overtaken =
                    matches!(error.downcast_ref(), Some(kube::Error::Api(s)) if [404, 409].contains(&s.code));
                if !overtaken {
                    eprintln!("{error:#}");
                }
                self.refused = true;
                false
            }
        }
    }

    /// The kubelets and agents of whatever set there is something to do for, for ever.
    fn live(mut self, faked: &Faked) {
        loop {
            let (namespace, set) = self.mirror.next();
            self.refused = false;
            while faked.step(&mut self, &namespace, &set) {}
            if self.refused {
                std::thread::sleep(Duration::from_millis(100));
            }
            let mirror = self.mirror.clone();
            mirror.done((namespace, set), self.refused);
        }
    }
}

impl Objects for Remote {
    fn object(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Value> {
        self.mirror.get(&kind.stored, namespace, name).map(|o| (*o).clone())
    }

    fn objects(&self, kind: &Kind, namespace: &str) -> Vec<Arc<Value>> {
        self.mirror.all(&kind.stored, namespace)
    }

    fn bind(&mut self, pods: &Kind, namespace: &str, name: &str, node: &str) -> bool {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name, "namespace": namespace },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        // What the pod is like now, the watch tells: until then there is nothing to do for it.
        let _ = self.write("POST", pods, &path(pods, namespace, name, "binding"), "application/json", &body);
        false
    }

    fn status(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        (how, patch): (PatchKind, &Value),
        options: &WriteOptions,
    ) -> bool {
        let at = path(kind, namespace, name, "status");
        if how == PatchKind::Apply {
            let at = format!("{at}?force=true&fieldManager={}", options.manager);
            return self.write("PATCH", kind, &at, "application/apply-patch+yaml", patch);
        }
        self.write("PATCH", kind, &at, MERGE, patch)
    }

    fn replace(&mut self, kind: &Kind, namespace: &str, name: &str, object: Value, _: &WriteOptions) -> bool {
        self.write("PUT", kind, &path(kind, namespace, name, ""), "application/json", &object)
    }

    fn end(&mut self, pods: &Kind, namespace: &str, name: &str) -> bool {
        let now = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 });
        // That it is gone, the watch tells.
        let _ = self.write("DELETE", pods, &path(pods, namespace, name, ""), "application/json", &now);
        false
    }
}
