//! Objects with revisions, as an API server keeps them: every write gets the next number, and whoever knows a number can
//! ask what came after it, until that is forgotten.
//!
//! No clock, no I/O, no threads: a server puts a lock around it, a simulator its scheduler.

use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind of objects, like `pods` or `pgterms.pgconvoy.dev`.
    pub resource: String,
    /// Its namespace; empty for what is in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// An object and the revision of its last write.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The object.
    pub object: Arc<Value>,
    /// When it was written last.
    pub revision: u64,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It was not there before.
    Added,
    /// It was.
    Modified,
    /// It is gone; the change holds its last form.
    Deleted,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its number.
    pub revision: u64,
    /// The object it was about.
    pub key: Key,
    /// What happened.
    pub deed: Deed,
    /// The object afterwards.
    pub object: Arc<Value>,
    /// The object before, if it was there: a watcher who selects by labels wants to know whether it knew it.
    pub before: Option<Arc<Value>>,
}

/// What a write expects of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// Exactly this revision.
    Revision(u64),
    /// Anything or nothing.
    Anything,
}

/// A write's expectation was wrong; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The object is there already.
    Exists,
    /// It is not there.
    Missing,
    /// It has been written since; this is its revision.
    Revision(u64),
}

/// What came after a revision is no longer known: list anew. Holds the oldest revision that can still be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted(pub u64);

/// The objects, and the last changes.
#[derive(Debug, Clone)]
pub struct Store {
    revision: u64,
    objects: BTreeMap<Key, Stored>,
    changes: VecDeque<Change>,
    /// Changes up to this revision are forgotten.
    compacted: u64,
    keep: usize,
}

impl Store {
    /// An empty store that remembers the last `keep` changes.
    pub fn new(keep: usize) -> Self {
        Self { revision: 1, objects: BTreeMap::new(), changes: VecDeque::new(), compacted: 1, keep: keep.max(1) }
    }

    /// The last write's number.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// An object.
    pub fn get(&self, key: &Key) -> Option<&Stored> {
        self.objects.get(key)
    }

    /// The objects of a kind, in one namespace or in all, in the order of namespace and name.
    pub fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Stored)> {
        let from = Key::new(resource, namespace.unwrap_or_default(), "");
        self.objects
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(k, _)| k.resource == resource && namespace.is_none_or(|n| k.namespace == n))
    }

    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Stored)> {
        self.objects.iter()
    }

    /// Writes an object; `make` gets the revision that it will have.
    ///
    /// # Errors
    /// When what is there is not what was expected.
    pub fn put(&mut self, key: Key, expect: Expect, make: impl FnOnce(u64) -> Value) -> Result<Stored, Conflict> {
        let before = self.expected(&key, expect)?.map(|s| s.object.clone());
        let revision = self.revision + 1;
        let stored = Stored { object: Arc::new(make(revision)), revision };
        self.objects.insert(key.clone(), stored.clone());
        let deed = if before.is_some() { Deed::Modified } else { Deed::Added };
        self.note(Change { revision, key, deed, object: stored.object.clone(), before });
        Ok(stored)
    }

    /// Takes an object away; `last` makes its last form out of what is there and the revision of the deletion.
    ///
    /// # Errors
    /// When it is not there, or has been written since.
    pub fn delete(
        &mut self,
        key: &Key,
        expect: Expect,
        last: impl FnOnce(&Value, u64) -> Value,
    ) -> Result<Stored, Conflict> {
        let before = self.expected(key, expect)?.ok_or(Conflict::Missing)?.object.clone();
        let revision = self.revision + 1;
        let stored = Stored { object: Arc::new(last(&before, revision)), revision };
        self.objects.remove(key);
        let object = stored.object.clone();
        self.note(Change { revision, key: key.clone(), deed: Deed::Deleted, object, before: Some(before) });
        Ok(stored)
    }

    fn expected(&self, key: &Key, expect: Expect) -> Result<Option<&Stored>, Conflict> {
        match (self.objects.get(key), expect) {
            (Some(_), Expect::Absent) => Err(Conflict::Exists),
            (None, Expect::Revision(_)) => Err(Conflict::Missing),
            (Some(there), Expect::Revision(r)) if there.revision != r => Err(Conflict::Revision(there.revision)),
            (there, _) => Ok(there),
        }
    }

    fn note(&mut self, change: Change) {
        self.revision = change.revision;
        self.changes.push_back(change);
        while self.changes.len() > self.keep {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        if let Some(old) = self.changes.pop_front() {
            self.compacted = old.revision;
        }
    }

    /// Forgets every change up to `revision`: who asks for what came after an older one is told so.
    pub fn compact(&mut self, revision: u64) {
        while self.changes.front().is_some_and(|c| c.revision <= revision) {
            self.forget_one();
        }
        self.compacted = self.compacted.max(revision.min(self.revision));
    }

    /// What came after `revision`, oldest first.
    ///
    /// # Errors
    /// When that is forgotten.
    pub fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted(self.compacted));
        }
        let first = self.changes.partition_point(|c| c.revision <= revision);
        Ok(self.changes.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(name: &str) -> Key {
        Key::new("pods", "shop", name)
    }

    fn names(changes: impl Iterator<Item = Change>) -> Vec<(u64, String, Deed)> {
        changes.map(|c| (c.revision, c.key.name, c.deed)).collect()
    }

    #[test]
    fn writes_are_numbered_and_compared() {
        let mut s = Store::new(10);
        let first = s.put(key("a"), Expect::Absent, |r| json!({ "r": r })).unwrap();
        assert_eq!((first.revision, &first.object["r"]), (2, &json!(2)));
        assert_eq!(s.put(key("a"), Expect::Absent, |_| json!(0)), Err(Conflict::Exists));
        assert_eq!(s.put(key("b"), Expect::Revision(2), |_| json!(0)), Err(Conflict::Missing));
        let second = s.put(key("a"), Expect::Revision(2), |r| json!({ "r": r })).unwrap();
        assert_eq!(s.put(key("a"), Expect::Revision(2), |_| json!(0)), Err(Conflict::Revision(second.revision)));
        assert_eq!(s.get(&key("a")).unwrap().object["r"], 3, "a refused write changes nothing");
        assert_eq!(s.delete(&key("b"), Expect::Anything, |v, _| v.clone()), Err(Conflict::Missing));
        assert_eq!(s.delete(&key("a"), Expect::Revision(2), |v, _| v.clone()), Err(Conflict::Revision(3)));
        let gone = s.delete(&key("a"), Expect::Anything, |v, r| json!({ "last": v["r"], "at": r })).unwrap();
        assert_eq!(*gone.object, json!({ "last": 3, "at": 4 }));
        assert_eq!(s.revision(), 4);
    }

    #[test]
    fn what_came_after_is_told_until_it_is_forgotten() {
        let mut s = Store::new(3);
        for name in ["a", "b"] {
            s.put(key(name), Expect::Absent, |_| json!({})).unwrap();
        }
        s.put(key("a"), Expect::Anything, |_| json!({})).unwrap();
        assert_eq!(
            names(s.since(1).unwrap().cloned()),
            [(2, "a".into(), Deed::Added), (3, "b".into(), Deed::Added), (4, "a".into(), Deed::Modified)]
        );
        assert_eq!(names(s.since(4).unwrap().cloned()), []);
        s.delete(&key("b"), Expect::Anything, |v, _| v.clone()).unwrap();
        assert_eq!(s.since(1).err(), Some(Compacted(2)), "three are kept");
        assert_eq!(names(s.since(4).unwrap().cloned()), [(5, "b".into(), Deed::Deleted)]);
        s.compact(5);
        assert_eq!(s.since(4).err(), Some(Compacted(5)));
        assert_eq!(s.since(5).unwrap().count(), 0);
    }

    #[test]
    fn lists_are_of_one_kind_and_namespace() {
        let mut s = Store::new(10);
        for k in
            [key("b"), key("a"), Key::new("pods", "other", "c"), Key::new("podsx", "shop", "d"), Key::new("p", "", "e")]
        {
            s.put(k, Expect::Absent, |_| json!({})).unwrap();
        }
        let of = |n| s.list("pods", n).map(|(k, _)| k.name.clone()).collect::<Vec<_>>();
        assert_eq!(of(Some("shop")), ["a", "b"]);
        assert_eq!(of(None), ["c", "a", "b"]);
        assert_eq!(s.list("p", None).count(), 1);
        assert_eq!(s.all().count(), 5);
    }
}
