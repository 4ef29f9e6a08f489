//! One operator: its own reconcile and its own view of the cluster, without its process, its timers and its sockets.

use super::line::Line;
use futures::FutureExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher::Event;
use pgconvoy_crds::names;
use pgconvoy_e2e_store::{Change, Deed};
use pgconvoy_embedded::api::select::Selector;
use pgconvoy_embedded::api::{Api, defaults};
use pgconvoy_embedded::http::Server;
use pgconvoy_operator::kinds::Kind;
use pgconvoy_operator::metrics::Metrics;
use pgconvoy_operator::replica_set::apply::Memo;
use pgconvoy_operator::replica_set::{Context, Error, Retries, reconcile};
use pgconvoy_operator::world::{Guarded, Index, Taker, prune};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::task::JoinHandle;

const SETS: &str = "pgreplicasets.pgconvoy.dev";

/// What a kind's objects are stored as.
fn stored(kind: Kind) -> String {
    let resource = kind.resource();
    if resource.group.is_empty() { resource.plural } else { format!("{}.{}", resource.plural, resource.group) }
}

/// Whether an object of a set has lost the label by which watches select it: to them it is gone.
fn is_out_of_sight(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let owned = metadata["ownerReferences"].as_array().into_iter().flatten().any(|o| o["kind"] == "PgReplicaSet");
    let marked = !metadata["annotations"]["pgconvoy.dev/set-uid"].is_null();
    let selected = [names::LABEL_SET, names::LABEL_PULLS_FOR].into_iter().any(|l| !metadata["labels"][l].is_null());
    (owned || marked) && !selected
}

/// An operator's process.
pub(super) struct Operator {
    pub(super) line: Line,
    context: Arc<Context>,
    target: (String, String),
    takers: BTreeMap<Kind, (String, Taker)>,
    set: Option<Arc<Guarded>>,
    /// What it was told of comes after this.
    cursor: u64,
    queue: VecDeque<Change>,
    pub(super) dirty: bool,
    /// Until its first reconcile is over, nothing new is told to it.
    pub(super) behind: bool,
    /// Its last reconcile failed: it tries again later.
    pub(super) failed: Option<String>,
    running: Option<JoinHandle<Result<Action, Error>>>,
}

impl Operator {
    /// Starts one that looks after this set; it lists what is in `view`.
    pub(super) fn start(server: &Server, view: &Api, target: &(String, String), agent_image: &str) -> Self {
        let line = Line::new(server.clone());
        let client = kube::Client::new(line.clone(), "default");
        let reporter = Reporter { controller: "pgconvoy-operator".to_owned(), instance: Some("explored".to_owned()) };
        let context = Arc::new(Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            index: Arc::new(Index::default()),
            memo: Memo::default(),
            retries: Retries::default(),
            metrics: Arc::new(Metrics::default()),
            agent_image: agent_image.to_owned(),
        });
        let takers = Kind::ALL.into_iter().map(|k| (k, (stored(k), Taker::new(k)))).collect();
        let (target, set) = (target.clone(), None);
        let (cursor, queue) = (0, VecDeque::new());
        let mut operator = Self {
            line,
            context,
            target,
            takers,
            set,
            cursor,
            queue,
            dirty: true,
            behind: false,
            failed: None,
            running: None,
        };
        operator.list(view);
        operator
    }

    /// Lists everything, as its watches do at the beginning and after a 410.
    pub(super) fn list(&mut self, view: &Api) {
        for (kind, (stored, taker)) in &mut self.takers {
            let prune = |v: Value| prune::object(*kind, v).ok().flatten();
            let mut take = |event| self.dirty |= !taker.take(event, prune, &self.context.index).is_empty();
            take(Event::Init);
            let Some(resource) = view.kind_stored(stored) else { continue };
            let page = view.list(&resource, None, &Selector::default(), 0, "");
            page.map(|p| p.items)
                .unwrap_or_default()
                .into_iter()
                .filter(|o| !is_out_of_sight(o))
                .for_each(|o| take(Event::InitApply(o)));
            take(Event::InitDone);
        }
        let set = view.kind_stored(SETS).and_then(|k| view.get(&k, &self.target.0, &self.target.1).ok());
        self.set = set.and_then(guarded);
        self.dirty = true;
        self.queue.clear();
        self.cursor = view.revision();
    }

    /// What is still to be told to it.
    pub(super) fn untold(&mut self, api: &Api) -> usize {
        if self.behind {
            return 0;
        }
        let interesting =
            |c: &&Change| c.key.resource == SETS || self.takers.values().any(|(s, _)| *s == c.key.resource);
        if let Ok(changes) = api.changes(self.cursor) {
            let new: Vec<Change> = changes.filter(interesting).cloned().collect();
            self.queue.extend(new);
            self.cursor = api.revision();
        }
        self.queue.len()
    }

    /// Tells it the oldest change; of a kind that is chosen, if `kind` says which. Not at all, if it is `lost`.
    pub(super) fn tell(&mut self, api: &Api, choose: usize, lost: bool) -> Option<String> {
        // Watches of different kinds know nothing of each other: only within one is there an order.
        let mut heads: Vec<usize> = vec![];
        for (at, change) in self.queue.iter().enumerate() {
            if !heads.iter().any(|h| self.queue[*h].key.resource == change.key.resource) {
                heads.push(at);
            }
        }
        let change = self.queue.remove(*heads.get(choose % heads.len().max(1))?)?;
        let named = format!("{} {}", change.key.resource, change.key.name);
        if lost {
            return Some(named);
        }
        let mut object = (*change.object).clone();
        if let Some(kind) = api.kind_stored(&change.key.resource) {
            defaults::shown(&kind, &mut object);
        }
        if change.key.resource == SETS {
            if (&change.key.namespace, &change.key.name) == (&self.target.0, &self.target.1) {
                self.set = if change.deed == Deed::Deleted { None } else { guarded(object) };
                self.dirty = true;
            }
            return Some(named);
        }
        for (kind, (_, taker)) in self.takers.iter_mut().filter(|(_, (s, _))| *s == change.key.resource) {
            let event = match change.deed {
                // A watch is told of it as it was before.
                _ if is_out_of_sight(&object) => {
                    let mut before = object.clone();
                    before["metadata"]["labels"][names::LABEL_SET] = Value::from(self.target.1.clone());
                    Event::Delete(before)
                }
                Deed::Deleted => Event::Delete(object.clone()),
                Deed::Added | Deed::Modified => Event::Apply(object.clone()),
            };
            let marked = taker.take(event, |v| prune::object(*kind, v).ok().flatten(), &self.context.index);
            self.dirty |=
                marked.iter().any(|r| r.name == self.target.1 && r.namespace.as_ref() == Some(&self.target.0));
        }
        Some(named)
    }

    /// Whether it is reconciling.
    pub(super) fn busy(&self) -> bool {
        self.running.is_some()
    }

    /// Begins to reconcile.
    pub(super) fn begin(&mut self) {
        self.dirty = false;
        let Some(set) = self.set.clone() else {
            self.behind = false;
            return;
        };
        self.running = Some(tokio::task::spawn_local(reconcile(set, self.context.clone())));
    }

    /// Notes the end of a reconcile, if it has come.
    pub(super) fn end(&mut self) -> Option<Result<(), String>> {
        let done = self.running.take_if(|r| r.is_finished())?.now_or_never()?;
        self.behind = false;
        let result = match done {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("it panicked: {panic}")),
        };
        self.failed = result.clone().err();
        Some(result)
    }

    /// The process dies.
    pub(super) async fn crash(mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }
}

fn guarded(mut object: Value) -> Option<Arc<Guarded>> {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    serde_json::from_value(object).ok().map(Arc::new)
}
