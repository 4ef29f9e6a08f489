//! Watches.

use super::Server;
use super::answer::Answer;
use crate::api::kinds::Kind;
use crate::api::refusal::Refusal;
use crate::api::select::Selector;
use crate::api::{WatchEvent, table, text};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

/// Between two bookmarks of a watch that has nothing to tell.
const BOOKMARK: Duration = Duration::from_secs(20);

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    Table,
    /// Metadata only.
    Partial,
}

impl Form {
    /// As the header `Accept` asks for.
    pub(super) fn of(accept: &str) -> Form {
        if accept.contains("as=Table") {
            Form::Table
        } else if accept.contains("as=PartialObjectMetadata") {
            Form::Partial
        } else {
            Form::Whole
        }
    }
}

/// Metadata of an object, in the form of its own kind.
pub(super) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

/// What is watched.
pub(super) struct Watch {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
    pub(super) revision: String,
    pub(super) bookmarks: bool,
    pub(super) initial: bool,
    pub(super) limit: Duration,
    pub(super) form: Form,
}

struct Running {
    server: Server,
    watch: Watch,
    changes: Receiver<u64>,
    cut: Receiver<u64>,
    revision: u64,
    lines: VecDeque<Bytes>,
    /// The last thing was said.
    over: bool,
    end: Instant,
    quiet: Instant,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn start(self, server: &Server) -> Result<Answer, Refusal> {
        let changes = server.changes();
        let cut = server.shared.cut.subscribe();
        let mut lines = VecDeque::new();
        let any = matches!(self.revision.as_str(), "" | "0");
        let asked = self.revision.parse::<u64>();
        let revision = if any || self.initial {
            // From nothing: everything that is there comes first.
            let page = server.with(|a| a.list(&self.kind, self.namespace.as_deref(), &self.selector, 0, ""))?;
            for object in &page.items {
                lines.push_back(self.line("ADDED", object));
            }
            if self.initial {
                lines.push_back(self.bookmark(page.revision, true));
            }
            page.revision
        } else {
            asked.map_err(|_| {
                let why = "strconv.ParseUint: parsing";
                let given = &self.revision;
                Refusal::internal(&format!(
                    "resourceVersion: Invalid value: {given:?}: {why} {given:?}: invalid syntax"
                ))
            })?
        };
        let end = Instant::now() + self.limit;
        let running = Running {
            server: server.clone(),
            watch: self,
            changes,
            cut,
            revision,
            lines,
            over: false,
            end,
            quiet: Instant::now(),
        };
        let stream = futures::stream::unfold(running, |mut r| async move { Some((r.next().await?, r)) });
        Ok(Answer::Stream(Box::pin(stream), "application/json"))
    }

    fn line(&self, what: &str, object: &Value) -> Bytes {
        let object = match self.form {
            Form::Whole => object.clone(),
            Form::Partial => partial(object),
            Form::Table => {
                let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                table::table(&self.kind, std::slice::from_ref(object), &metadata, crate::clock::age)
            }
        };
        Bytes::from(format!("{}\n", json!({ "type": what, "object": object })))
    }

    fn bookmark(&self, revision: u64, initial: bool) -> Bytes {
        let (version, kind) = match self.form {
            Form::Whole => (self.kind.api_version(), self.kind.kind.as_str()),
            Form::Partial => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
            Form::Table => ("meta.k8s.io/v1".to_owned(), "Table"),
        };
        let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({ "kind": kind, "apiVersion": version, "metadata": metadata });
        Bytes::from(format!("{}\n", json!({ "type": "BOOKMARK", "object": object })))
    }

    fn error(refusal: &Refusal) -> Bytes {
        Bytes::from(format!("{}\n", json!({ "type": "ERROR", "object": refusal.to_value() })))
    }
}

impl Running {
    /// The next line; nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                self.quiet = Instant::now();
                return Some(line);
            }
            if self.over {
                return None;
            }
            self.changes.borrow_and_update();
            let watch = &self.watch;
            let told =
                self.server.with(|a| a.since(&watch.kind, watch.namespace.as_deref(), &watch.selector, self.revision));
            match told {
                Ok((events, revision)) => {
                    self.revision = revision.max(self.revision);
                    let line = |e: &WatchEvent| self.watch.line(e.what, &e.object);
                    self.lines = events.iter().map(line).collect();
                    if !self.lines.is_empty() {
                        continue;
                    }
                }
                Err(refusal) => {
                    self.over = true;
                    return Some(Watch::error(&refusal));
                }
            }
            let bookmark = self.quiet + BOOKMARK;
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() { return None },
                _ = self.cut.changed() => return None,
                () = tokio::time::sleep_until(self.end) => {
                    self.over = true;
                    // The last bookmark lets the client go on from here.
                    if self.watch.bookmarks {
                        return Some(self.watch.bookmark(self.revision, false));
                    }
                }
                () = tokio::time::sleep_until(bookmark), if self.watch.bookmarks => {
                    self.quiet = Instant::now();
                    return Some(self.watch.bookmark(self.revision, false));
                }
            }
        }
    }
}

/// Whether a name is asked for by a field selector alone, as `kubectl get NAME --watch` does.
pub(super) fn selector_of(query: &std::collections::HashMap<String, String>) -> Result<Selector, Refusal> {
    let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    Selector::parse(text("labelSelector"), text("fieldSelector"))
}

/// The list that a page is, in the form that was asked for.
pub(super) fn list(kind: &Kind, page: &crate::api::Page, form: Form) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(next) = &page.next {
        metadata["continue"] = json!(next);
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
    } else if kind.custom() && form == Form::Whole {
        metadata["continue"] = json!("");
    }
    match form {
        Form::Table => table::table(kind, &page.items, &metadata, crate::clock::age),
        Form::Partial => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "items": page.items.iter().map(partial).collect::<Vec<_>>(),
        }),
        Form::Whole => {
            let mut items = page.items.clone();
            if !kind.custom() {
                // Lists of Kubernetes' own kinds do not repeat it with every item.
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    item.remove("kind");
                    item.remove("apiVersion");
                }
            }
            json!({
                "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
                "metadata": metadata, "items": items,
            })
        }
    }
}

/// One object, in the form that was asked for.
pub(super) fn one(kind: &Kind, object: Value, form: Form) -> Value {
    match form {
        Form::Whole => object,
        Form::Partial => partial(&object),
        Form::Table => {
            let metadata = json!({ "resourceVersion": text(&object, "/metadata/resourceVersion") });
            table::table(kind, std::slice::from_ref(&object), &metadata, crate::clock::age)
        }
    }
}
