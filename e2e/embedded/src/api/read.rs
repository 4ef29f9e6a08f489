//! Reading: one object, lists, and what has happened since.

use super::Api;
use super::defaults;
use super::kinds::Kind;
use super::refusal::Refusal;
use super::select::Selector;
use pgconvoy_e2e_store::Deed;
use serde_json::{Value, json};
use std::sync::Arc;

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// The revision to watch from.
    pub revision: u64,
    /// The objects.
    pub items: Vec<Value>,
    /// How to ask for the rest, if there is one.
    pub next: Option<String>,
    /// How many there are in it, if that is known.
    pub remaining: Option<usize>,
}

/// Something that a watch tells.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub what: &'static str,
    /// The object.
    pub object: Value,
    /// The write's number.
    pub revision: u64,
}

impl Api {
    /// One object.
    ///
    /// # Errors
    /// When it is not there.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value, Refusal> {
        let mut object = (*self.there(kind, namespace, name)?.object).clone();
        defaults::shown(kind, &mut object);
        Ok(object)
    }

    /// The numbers at `kind`'s scale subresource.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn get_scale(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value, Refusal> {
        Ok(scale_of(kind, &self.get(kind, namespace, name)?))
    }

    /// Objects of a kind, at most `limit` if that is not 0. `next`: what the page before said.
    ///
    /// # Errors
    /// When `next` is of no page.
    pub fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &Selector,
        limit: usize,
        next: &str,
    ) -> Result<Page, Refusal> {
        // A later page is of the present, but told with the first one's revision: whoever watches from there hears of
        // what changed in between once more, and misses nothing.
        let (revision, after) = match next.split_once('|') {
            None if next.is_empty() => (self.revision(), None),
            Some((revision, after)) => (revision.parse().ok(), Some(after)).into_page()?,
            None => return Err(bad_continue()),
        };
        let namespace = namespace.filter(|_| kind.namespaced);
        let all = self.store.list(&kind.stored, namespace).filter(|(_, s)| selector.matches(&s.object));
        let place = |k: &pgconvoy_e2e_store::Key| format!("{}/{}", k.namespace, k.name);
        let rest: Vec<_> = all.skip_while(|(k, _)| after.is_some_and(|a| *place(k) <= *a)).collect();
        let shown = if limit == 0 { rest.len() } else { limit.min(rest.len()) };
        let next = (shown < rest.len()).then(|| format!("{revision}|{}", place(rest[shown - 1].0)));
        let show = |object: &Value| {
            let mut object = object.clone();
            defaults::shown(kind, &mut object);
            object
        };
        // With a selector it would take too long to count.
        let remaining = selector.is_all().then(|| rest.len() - shown).filter(|r| *r > 0);
        Ok(Page { revision, items: rest[..shown].iter().map(|(_, s)| show(&s.object)).collect(), next, remaining })
    }

    /// Objects of a kind as they are stored, without copies, for whoever is in the same process.
    pub fn stored<'a>(&'a self, kind: &'a Kind, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Value>> {
        self.store.list(&kind.stored, Some(namespace)).map(|(_, s)| &s.object)
    }

    /// What happened after `revision`, and the number up to which this tells.
    ///
    /// # Errors
    /// 410, when it is forgotten.
    pub fn since(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &Selector,
        revision: u64,
    ) -> Result<(Vec<WatchEvent>, u64), Refusal> {
        let namespace = namespace.filter(|_| kind.namespaced);
        let changes = self.store.since(revision).map_err(|c| Refusal::expired(revision, c.0))?;
        let mut events = vec![];
        for change in changes {
            if change.key.resource != kind.stored || namespace.is_some_and(|n| n != change.key.namespace) {
                continue;
            }
            let before = change.before.as_ref().is_some_and(|b| selector.matches(b));
            let after = change.deed != Deed::Deleted && selector.matches(&change.object);
            let what = match (before, after) {
                (false, false) => continue,
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
            };
            let mut object = (*change.object).clone();
            // What is no longer meant is shown as it was when it still was.
            if what == "DELETED"
                && change.deed != Deed::Deleted
                && let Some(before) = &change.before
            {
                object = super::write::with_revision((**before).clone(), change.revision);
            }
            defaults::shown(kind, &mut object);
            events.push(WatchEvent { what, object, revision: change.revision });
        }
        Ok((events, self.revision()))
    }
}

fn bad_continue() -> Refusal {
    Refusal::bad_request("continue key is not valid")
}

/// A parsed token, or a refusal.
trait IntoPage<'a> {
    fn into_page(self) -> Result<(u64, Option<&'a str>), Refusal>;
}

impl<'a> IntoPage<'a> for (Option<u64>, Option<&'a str>) {
    fn into_page(self) -> Result<(u64, Option<&'a str>), Refusal> {
        Ok((self.0.ok_or_else(bad_continue)?, self.1))
    }
}

/// `.spec.members` as a JSON pointer.
pub(super) fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

/// What an object's scale subresource shows.
pub(super) fn scale_of(kind: &Kind, object: &Value) -> Value {
    let number = |path: &str| object.pointer(&pointer(path)).and_then(Value::as_i64).unwrap_or_default();
    let (mut spec, mut status) = (0, json!({ "replicas": 0 }));
    if let Some(scale) = &kind.scale {
        spec = number(&scale.spec);
        status["replicas"] = json!(number(&scale.status));
        if let Some(selector) = &scale.selector
            && let Some(text) = object.pointer(&pointer(selector)).and_then(Value::as_str)
        {
            status["selector"] = json!(text);
        }
    }
    let metadata: serde_json::Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .iter()
        .filter_map(|f| Some(((*f).to_owned(), object["metadata"].get(*f)?.clone())))
        .collect();
    let mut of_spec = json!({});
    if spec != 0 {
        of_spec["replicas"] = json!(spec);
    }
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": of_spec, "status": status })
}
