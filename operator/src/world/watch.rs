//! One watch per kind, into the index.

use super::index::{Index, Place};
use super::{Dirty, Guarded, SetRef, prune};
use crate::kinds::Kind;
use crate::replica_set::observed::Thing;
use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::core::{DeserializeGuard, DynamicObject, Resource};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::ObjectRef};
use kube::{Api, Client};
use pgconvoy_crds::{PgArchive, PgTerm, names};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// How many objects a page of a list holds: the memory at the peak, against round trips at the start.
const PAGE: u32 = 100;
/// Seconds until a quiet watch is opened anew. Too short: load. Too long: a watch that died unnoticed is missed longer.
const WATCH_SECONDS: u32 = 240;

/// Where to look for replica sets.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Everywhere.
    All,
    /// In this namespace.
    Namespace(String),
}

impl Scope {
    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Scope::All => Api::all(client.clone()),
            Scope::Namespace(n) => Api::namespaced(client.clone(), n),
        }
    }

    /// Watches a kind, into a store.
    pub fn stream<K>(
        &self,
        client: &Client,
        writer: reflector::store::Writer<K>,
    ) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + use<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let stream = watcher(self.api::<K>(client), everything()).backoff(backoff());
        reflector::reflector(writer, stream.modify(|k| k.meta_mut().managed_fields = None))
    }

    fn dynamic(&self, client: &Client, kind: Kind) -> Api<DynamicObject> {
        match self {
            Scope::All => Api::all_with(client.clone(), &kind.resource()),
            Scope::Namespace(n) => Api::namespaced_with(client.clone(), n, &kind.resource()),
        }
    }
}

/// How many watches have not listed everything yet.
#[derive(Debug, Default)]
pub struct Synced {
    missing: AtomicUsize,
}

impl Synced {
    /// Whether every watch has listed everything once.
    pub fn all(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }
}

/// Watches everything, for ever; a task that ends is a defect. The store holds the replica sets themselves.
pub fn watch_all(
    client: &Client,
    scope: &Scope,
    index: &Arc<Index>,
    dirty: &Arc<Dirty>,
    synced: &Arc<Synced>,
    tasks: &mut JoinSet<&'static str>,
) -> Store<Guarded> {
    let (store, writer) = reflector::store::<Guarded>();
    let stream = reflector::reflector(
        writer,
        watcher(scope.api::<Guarded>(client), everything())
            .backoff(backoff())
            .modify(|s| s.meta_mut().managed_fields = None),
    );
    synced.missing.fetch_add(1, Ordering::AcqRel);
    let (d, s) = (dirty.clone(), synced.clone());
    tasks.spawn(async move {
        follow_sets(stream, &d, &s).await;
        "PgReplicaSet"
    });
    let archives = watcher(scope.api::<DeserializeGuard<PgArchive>>(client), everything()).backoff(backoff());
    let (d, sets) = (dirty.clone(), store.clone());
    tasks.spawn(async move {
        follow_archives(archives, &d, &sets).await;
        "PgArchive"
    });
    let w = Watching { client, scope, index, dirty, synced };
    w.start(Kind::Term, scope.api::<DeserializeGuard<PgTerm>>(client), everything(), prune::term, tasks);
    w.start(Kind::Pod, scope.api::<Pod>(client), ours(), prune::pod, tasks);
    w.start(Kind::Puller, scope.api::<Pod>(client), everything().labels(names::LABEL_PULLS_FOR), prune::puller, tasks);
    w.start(Kind::Claim, scope.api::<PersistentVolumeClaim>(client), ours(), prune::claim, tasks);
    w.start(Kind::Secret, scope.api::<Secret>(client), ours(), prune::secret, tasks);
    for kind in [Kind::Lease, Kind::EndpointSlice] {
        w.start_dynamic(kind, prune::other, tasks);
    }
    for kind in [Kind::ServiceAccount, Kind::Role, Kind::RoleBinding, Kind::ConfigMap, Kind::Service, Kind::Budget] {
        w.start_dynamic(kind, prune::kept, tasks);
    }
    store
}

/// Between two attempts to open a watch again: jittered, so that the watches do not all come at once after an outage of
/// the API server; short, because the world is not seen meanwhile.
fn backoff() -> watcher::ExponentialBackoff {
    let builder = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(400))
        .with_max_delay(Duration::from_secs(8))
        .with_factor(2.0)
        .without_max_times()
        .with_jitter();
    builder.into()
}

fn everything() -> watcher::Config {
    watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS)
}

fn ours() -> watcher::Config {
    everything().labels(names::LABEL_SET)
}

async fn follow_sets(
    stream: impl Stream<Item = Result<Event<Guarded>, watcher::Error>>,
    dirty: &Dirty,
    synced: &Synced,
) {
    let mut stream = std::pin::pin!(stream);
    let mut first = true;
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(set) | Event::InitApply(set) | Event::Delete(set)) => dirty.mark(ObjectRef::from_obj(&set)),
            Ok(Event::InitDone) if std::mem::take(&mut first) => {
                synced.missing.fetch_sub(1, Ordering::AcqRel);
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                tracing::warn!(kind = "PgReplicaSet", %error, "the watch was interrupted; it is opened again")
            }
        }
    }
}

/// Whoever archives there is looked at again. Nothing is kept of the archives themselves: they are few, and read when needed.
async fn follow_archives(
    stream: impl Stream<Item = Result<Event<DeserializeGuard<PgArchive>>, watcher::Error>>,
    dirty: &Dirty,
    sets: &Store<Guarded>,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(archive) | Event::InitApply(archive) | Event::Delete(archive)) => {
                let (name, namespace) = (&archive.meta().name, &archive.meta().namespace);
                let uses = |set: &Guarded| {
                    let asked = set.0.as_ref().ok().and_then(|s| s.spec.archive.as_ref());
                    asked.map(|a| &a.reference.name) == name.as_ref() && set.meta().namespace == *namespace
                };
                sets.state().iter().filter(|s| uses(s)).for_each(|s| dirty.mark(ObjectRef::from_obj(&**s)));
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::warn!(kind = "PgArchive", %error, "the watch was interrupted; it is opened again"),
        }
    }
}

struct Watching<'a> {
    client: &'a Client,
    scope: &'a Scope,
    index: &'a Arc<Index>,
    dirty: &'a Arc<Dirty>,
    synced: &'a Arc<Synced>,
}

impl Watching<'_> {
    fn start<K>(
        &self,
        kind: Kind,
        api: Api<K>,
        config: watcher::Config,
        prune: fn(K) -> Option<(Place, Thing)>,
        tasks: &mut JoinSet<&'static str>,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (index, dirty, synced) = (self.index.clone(), self.dirty.clone(), self.synced.clone());
        synced.missing.fetch_add(1, Ordering::AcqRel);
        tasks.spawn(async move {
            let stream = watcher(api, config).backoff(backoff());
            follow(kind, stream, prune, &index, &dirty, &synced).await;
            kind.as_str()
        });
    }

    fn start_dynamic(
        &self,
        kind: Kind,
        prune: fn(DynamicObject) -> Option<(Place, Thing)>,
        tasks: &mut JoinSet<&'static str>,
    ) {
        let (index, dirty, synced) = (self.index.clone(), self.dirty.clone(), self.synced.clone());
        let api = self.scope.dynamic(self.client, kind);
        synced.missing.fetch_add(1, Ordering::AcqRel);
        tasks.spawn(async move {
            let stream = watcher(api, ours()).backoff(backoff());
            follow(kind, stream, prune, &index, &dirty, &synced).await;
            kind.as_str()
        });
    }
}

async fn follow<K>(
    kind: Kind,
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    prune: fn(K) -> Option<(Place, Thing)>,
    index: &Index,
    dirty: &Dirty,
    synced: &Synced,
) {
    let mut stream = std::pin::pin!(stream);
    let mut taker = Taker::new(kind);
    let mut first = true;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let listed = matches!(event, Event::InitDone);
                taker.take(event, prune, index).into_iter().for_each(|set| dirty.mark(set));
                if listed && std::mem::take(&mut first) {
                    synced.missing.fetch_sub(1, Ordering::AcqRel);
                }
            }
            Err(error) => tracing::warn!(%kind, %error, "the watch was interrupted; it is opened again"),
        }
    }
}

/// Takes what the watch of one kind tells into the index.
#[derive(Debug)]
pub struct Taker {
    kind: Kind,
    listed: HashSet<Place>,
}

impl Taker {
    /// For this kind.
    pub fn new(kind: Kind) -> Self {
        Self { kind, listed: HashSet::new() }
    }

    /// Takes one event. Returns the sets that must be looked at because of it.
    pub fn take<K>(
        &mut self,
        event: Event<K>,
        prune: impl Fn(K) -> Option<(Place, Thing)>,
        index: &Index,
    ) -> Vec<SetRef> {
        let put = |(place, thing): (Place, Thing)| (index.put(self.kind, &place, thing), place);
        match event {
            Event::Init => {
                self.listed.clear();
                vec![]
            }
            Event::Apply(object) => prune(object).map(put).map(|(changed, _)| changed).unwrap_or_default(),
            Event::InitApply(object) => {
                let Some((changed, place)) = prune(object).map(put) else { return vec![] };
                self.listed.insert(place);
                changed
            }
            Event::Delete(object) => {
                let gone = prune(object).filter(|(place, _)| index.remove(self.kind, place));
                gone.map(|(place, _)| place.set_ref()).into_iter().collect()
            }
            Event::InitDone => index.retain(self.kind, &std::mem::take(&mut self.listed)),
        }
    }
}
