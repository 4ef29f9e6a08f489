//! What was last heard of a cluster's objects, and which sets there is something to do for.

use pgconvoy_embedded::api::kinds::Kind;
use pgconvoy_embedded::api::text;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A set, by namespace and name.
pub(crate) type Place = (String, String);

#[derive(Default)]
struct Known {
    /// By what they are stored as and their namespace, then by name.
    objects: BTreeMap<Place, BTreeMap<String, Arc<Value>>>,
    /// Objects that are gone, and since which revision: an answer may come later than the watch.
    gone: BTreeMap<(Place, String), u64>,
    /// Sets of which something was heard that nobody has looked at.
    marked: BTreeSet<Place>,
    /// Sets that somebody looks at right now.
    busy: BTreeSet<Place>,
}

/// The mirror.
#[derive(Default)]
pub(crate) struct Mirror {
    known: Mutex<Known>,
    changed: Condvar,
}

fn revision(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or_default()
}

impl Mirror {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, stored: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.known().objects.get(&(stored.to_owned(), namespace.to_owned()))?.get(name).cloned()
    }

    pub(crate) fn all(&self, stored: &str, namespace: &str) -> Vec<Arc<Value>> {
        let known = self.known();
        let there = known.objects.get(&(stored.to_owned(), namespace.to_owned()));
        there.map(|o| o.values().cloned().collect()).unwrap_or_default()
    }

    /// Somebody says that an object is like this now; who says something older is not heard.
    pub(crate) fn put(&self, kind: &Kind, object: Value) {
        let at = (kind.stored.clone(), text(&object, "/metadata/namespace").to_owned());
        let name = text(&object, "/metadata/name").to_owned();
        let mut known = self.known();
        if known.gone.get(&(at.clone(), name.clone())).is_some_and(|r| *r >= revision(&object)) {
            return;
        }
        let there = known.objects.entry(at).or_default();
        if there.get(&name).is_none_or(|t| revision(t) < revision(&object)) {
            let set = (text(&object, "/metadata/namespace").to_owned(), crate::set_of(&object));
            there.insert(name, Arc::new(object));
            known.marked.insert(set);
            self.changed.notify_one();
        }
    }

    /// An object is gone, which was like this at last.
    pub(crate) fn remove(&self, kind: &Kind, object: &Value) {
        let at = (kind.stored.clone(), text(object, "/metadata/namespace").to_owned());
        let name = text(object, "/metadata/name");
        let mut known = self.known();
        known.gone.insert((at.clone(), name.to_owned()), revision(object));
        let Some(there) = known.objects.get_mut(&at) else { return };
        if there.get(name).is_some_and(|t| revision(t) <= revision(object)) {
            there.remove(name);
            known.marked.insert((at.1, crate::set_of(object)));
            self.changed.notify_one();
        }
    }

    /// A list has come: what is not on it and not newer than it is gone.
    pub(crate) fn keep(&self, kind: &Kind, listed: &BTreeSet<Place>) {
        for ((_, namespace), there) in self.known().objects.iter_mut().filter(|((s, _), _)| *s == kind.stored) {
            there.retain(|name, _| listed.contains(&(namespace.clone(), name.clone())));
        }
    }

    /// The next set that there is something to do for; it is nobody else's until [`Mirror::done`].
    pub(crate) fn next(&self) -> Place {
        let mut known = self.known();
        loop {
            let free = known.marked.iter().find(|p| !known.busy.contains(*p)).cloned();
            if let Some(place) = free {
                known.marked.remove(&place);
                known.busy.insert(place.clone());
                return place;
            }
            let waited = self.changed.wait_timeout(known, Duration::from_millis(50));
            known = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// It was looked at; `again`: something of it was refused.
    pub(crate) fn done(&self, place: Place, again: bool) {
        let mut known = self.known();
        known.busy.remove(&place);
        if again {
            known.marked.insert(place);
        }
    }
}
