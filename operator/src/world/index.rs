//! Objects by replica set.

use super::{SetRef, set_ref};
use crate::kinds::Kind;
use crate::replica_set::observed::{Thing, Things};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

/// Where an object belongs: the set's namespace and name, and the object's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Namespace of both.
    pub namespace: String,
    /// The set.
    pub set: String,
    /// The object.
    pub name: String,
}

impl Place {
    /// The set.
    pub fn set_ref(&self) -> SetRef {
        set_ref(&self.namespace, &self.set)
    }
}

/// All objects, by set.
#[derive(Debug, Default)]
pub struct Index {
    sets: RwLock<HashMap<(String, String), Things>>,
}

impl Index {
    /// The objects of a set.
    pub fn snapshot(&self, namespace: &str, set: &str) -> Things {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.get(&(namespace.to_owned(), set.to_owned())).cloned().unwrap_or_default()
    }

    /// Takes in an object. Returns whether anything changed.
    pub fn put(&self, kind: Kind, place: &Place, thing: Thing) -> bool {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let things = sets.entry((place.namespace.clone(), place.set.clone())).or_default();
        let key = (kind, place.name.clone());
        if things.get(&key).is_some_and(|t| **t == thing) {
            return false;
        }
        things.insert(key, Arc::new(thing));
        true
    }

    /// Forgets an object. Returns whether it was there.
    pub fn remove(&self, kind: Kind, place: &Place) -> bool {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let key = (place.namespace.clone(), place.set.clone());
        let Some(things) = sets.get_mut(&key) else { return false };
        let was_there = things.remove(&(kind, place.name.clone())).is_some();
        if things.is_empty() {
            sets.remove(&key);
        }
        was_there
    }

    /// After a list of everything of a kind: forgets what was not in it. Returns the sets that lost something.
    pub fn retain(&self, kind: Kind, listed: &HashSet<Place>) -> Vec<SetRef> {
        let mut lost = vec![];
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        for ((namespace, set), things) in sets.iter_mut() {
            let before = things.len();
            things.retain(|(k, name), _| {
                *k != kind
                    || listed.contains(&Place { namespace: namespace.clone(), set: set.clone(), name: name.clone() })
            });
            if things.len() != before {
                lost.push(set_ref(namespace, set));
            }
        }
        sets.retain(|_, things| !things.is_empty());
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica_set::observed::Meta;

    fn place(set: &str, name: &str) -> Place {
        Place { namespace: "n".to_owned(), set: set.to_owned(), name: name.to_owned() }
    }

    fn thing(uid: &str) -> Thing {
        Thing::Other(Meta { uid: uid.to_owned(), ..Meta::default() })
    }

    #[test]
    fn what_does_not_change_is_no_change_and_a_relist_forgets_what_is_gone() {
        let index = Index::default();
        assert!(index.put(Kind::Service, &place("a", "a-rw"), thing("1")));
        assert!(!index.put(Kind::Service, &place("a", "a-rw"), thing("1")));
        assert!(index.put(Kind::Service, &place("a", "a-rw"), thing("2")));
        assert!(index.put(Kind::Lease, &place("a", "a"), thing("3")));
        assert!(index.put(Kind::Service, &place("b", "b-rw"), thing("4")));
        let lost = index.retain(Kind::Service, &HashSet::from([place("b", "b-rw")]));
        assert_eq!(lost, vec![set_ref("n", "a")]);
        assert_eq!(index.snapshot("n", "a").len(), 1, "other kinds stay");
        assert!(index.remove(Kind::Lease, &place("a", "a")));
        assert!(!index.remove(Kind::Lease, &place("a", "a")));
        assert!(index.snapshot("n", "a").is_empty());
    }
}
