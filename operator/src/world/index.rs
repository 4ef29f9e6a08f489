//! Objects by replica set.

use super::{SetRef, set_ref};
use crate::kinds::Kind;
use crate::replica_set::observed::{Thing, Things};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
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
    sets: RwLock<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    things: HashMap<(String, String), Things>,
    /// In which set an object was last, both as hashes: somebody may write another set's name on its label. Of two objects with
    /// one hash, which hardly ever are, one may be missed until the next list.
    homes: HashMap<u64, u64>,
}

fn hashed(of: impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl Sets {
    fn home(kind: Kind, place: &Place) -> (u64, u64) {
        (hashed((kind, &place.namespace, &place.name)), hashed(&place.set))
    }

    /// Takes an object out of every set but the one where it is now. Returns the sets that lose it.
    fn moved(&mut self, kind: Kind, place: &Place) -> Vec<SetRef> {
        let (object, set) = Self::home(kind, place);
        if self.homes.insert(object, set).is_none_or(|before| before == set) {
            return vec![];
        }
        let key = (kind, place.name.clone());
        let others = self.things.iter_mut().filter(|((n, s), _)| *n == place.namespace && *s != place.set);
        let lost = others.filter_map(|((n, s), things)| things.remove(&key).map(|_| set_ref(n, s))).collect();
        self.things.retain(|_, things| !things.is_empty());
        lost
    }
}

impl Index {
    /// The objects of a set.
    pub fn snapshot(&self, namespace: &str, set: &str) -> Things {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.things.get(&(namespace.to_owned(), set.to_owned())).cloned().unwrap_or_default()
    }

    /// Takes in an object. Returns the sets that must be looked at because of it: none, if nothing changed.
    pub fn put(&self, kind: Kind, place: &Place, thing: Thing) -> Vec<SetRef> {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = sets.moved(kind, place);
        let things = sets.things.entry((place.namespace.clone(), place.set.clone())).or_default();
        let key = (kind, place.name.clone());
        if things.get(&key).is_none_or(|t| **t != thing) {
            things.insert(key, Arc::new(thing));
            changed.push(place.set_ref());
        }
        changed
    }

    /// Forgets an object. Returns whether it was there.
    pub fn remove(&self, kind: Kind, place: &Place) -> bool {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let key = (place.namespace.clone(), place.set.clone());
        sets.homes.remove(&Sets::home(kind, place).0);
        let Some(things) = sets.things.get_mut(&key) else { return false };
        let was_there = things.remove(&(kind, place.name.clone())).is_some();
        if things.is_empty() {
            sets.things.remove(&key);
        }
        was_there
    }

    /// After a list of everything of a kind: forgets what was not in it. Returns the sets that lost something.
    pub fn retain(&self, kind: Kind, listed: &HashSet<Place>) -> Vec<SetRef> {
        let mut lost = vec![];
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let Sets { things, homes } = &mut *sets;
        for ((namespace, set), things) in things.iter_mut() {
            let before = things.len();
            things.retain(|(k, name), _| {
                let place = Place { namespace: namespace.clone(), set: set.clone(), name: name.clone() };
                let stays = *k != kind || listed.contains(&place);
                if !stays {
                    homes.remove(&Sets::home(kind, &place).0);
                }
                stays
            });
            if things.len() != before {
                lost.push(set_ref(namespace, set));
            }
        }
        things.retain(|_, things| !things.is_empty());
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
        assert_eq!(index.put(Kind::Service, &place("a", "a-rw"), thing("1")), [set_ref("n", "a")]);
        assert!(index.put(Kind::Service, &place("a", "a-rw"), thing("1")).is_empty());
        assert_eq!(index.put(Kind::Service, &place("a", "a-rw"), thing("2")), [set_ref("n", "a")]);
        assert_eq!(index.put(Kind::Lease, &place("a", "a"), thing("3")), [set_ref("n", "a")]);
        assert_eq!(index.put(Kind::Service, &place("b", "b-rw"), thing("4")), [set_ref("n", "b")]);
        let lost = index.retain(Kind::Service, &HashSet::from([place("b", "b-rw")]));
        assert_eq!(lost, vec![set_ref("n", "a")]);
        assert_eq!(index.snapshot("n", "a").len(), 1, "other kinds stay");
        assert!(index.remove(Kind::Lease, &place("a", "a")));
        assert!(!index.remove(Kind::Lease, &place("a", "a")));
        assert!(index.snapshot("n", "a").is_empty());
    }

    #[test]
    fn an_object_that_is_given_another_sets_label_leaves_its_own() {
        let index = Index::default();
        index.put(Kind::Service, &place("a", "a-rw"), thing("1"));
        index.put(Kind::Service, &place("a", "a-ro"), thing("2"));
        assert_eq!(index.put(Kind::Service, &place("b", "a-rw"), thing("1")), [set_ref("n", "a"), set_ref("n", "b")]);
        assert_eq!((index.snapshot("n", "a").len(), index.snapshot("n", "b").len()), (1, 1));
        assert_eq!(index.put(Kind::Service, &place("a", "a-rw"), thing("1")), [set_ref("n", "b"), set_ref("n", "a")]);
        assert!(index.snapshot("n", "b").is_empty());
        // Gone and made again elsewhere, it has left nobody.
        assert!(index.remove(Kind::Service, &place("a", "a-rw")));
        assert_eq!(index.put(Kind::Service, &place("b", "a-rw"), thing("3")), [set_ref("n", "b")]);
    }
}
