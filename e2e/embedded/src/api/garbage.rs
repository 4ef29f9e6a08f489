//! What Kubernetes' controllers clean up: objects whose owners are gone, namespaces, claims that nobody uses.

use super::{Api, DeleteOptions, WriteOptions, text};
use pgconvoy_e2e_store::Key;
use serde_json::Value;
use std::collections::HashSet;

/// Keeps a claim while a pod uses it.
pub(super) const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";

impl Api {
    /// Does what there is to do, once; whether anything was done.
    pub fn collect(&mut self) -> bool {
        let owners = self.collect_orphans();
        let foreground = self.finish_owners();
        let claims = self.release_claims();
        self.empty_namespaces() || owners || foreground || claims
    }

    fn background() -> DeleteOptions {
        DeleteOptions { propagation: "Background".to_owned(), ..DeleteOptions::default() }
    }

    /// Deletes what has owners, none of which is there any more. An owner is known by UID, and is in the same namespace
    /// or in none.
    fn collect_orphans(&mut self) -> bool {
        let there: HashSet<(String, String)> =
            self.store.all().map(|(k, s)| (k.namespace.clone(), text(&s.object, "/metadata/uid").to_owned())).collect();
        // An owner that is being deleted in the foreground counts as gone for those that it waits for.
        let leaving: HashSet<String> = self
            .store
            .all()
            .filter(|(_, s)| has_finalizer(&s.object, "foregroundDeletion") && going(&s.object))
            .map(|(_, s)| text(&s.object, "/metadata/uid").to_owned())
            .collect();
        let orphaned = |key: &Key, object: &Value| {
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            let Some(owners) = owners.filter(|o| !o.is_empty()) else { return false };
            !going(object)
                && owners.iter().all(|o| {
                    let uid = o["uid"].as_str().unwrap_or_default().to_owned();
                    let found = there.contains(&(key.namespace.clone(), uid.clone()))
                        || there.contains(&(String::new(), uid.clone()));
                    !found || leaving.contains(&uid)
                })
        };
        let gone: Vec<Key> = self.store.all().filter(|(k, s)| orphaned(k, &s.object)).map(|(k, _)| k.clone()).collect();
        self.delete_all(gone)
    }

    fn delete_all(&mut self, keys: Vec<Key>) -> bool {
        let mut done = false;
        for key in keys {
            let Some(kind) = self.kinds.iter().find(|k| k.stored == key.resource).cloned() else { continue };
            done |= self.delete(&kind, &key.namespace, &key.name, &Self::background()).is_ok();
        }
        done
    }

    /// Lets go what waited for those that it owns, and frees those that are to stay.
    fn finish_owners(&mut self) -> bool {
        let mut done = false;
        for word in ["foregroundDeletion", "orphan"] {
            let waiting = |o: &Value| going(o) && has_finalizer(o, word);
            let owners: Vec<(Key, String)> = self
                .store
                .all()
                .filter(|(_, s)| waiting(&s.object))
                .map(|(k, s)| (k.clone(), text(&s.object, "/metadata/uid").to_owned()))
                .collect();
            for (key, uid) in owners {
                let owned: Vec<Key> =
                    self.store.all().filter(|(_, s)| owned_by(&s.object, &uid)).map(|(k, _)| k.clone()).collect();
                if word == "orphan" {
                    for key in &owned {
                        self.change(key, |o| {
                            if let Some(list) = o.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut)
                            {
                                list.retain(|r| r["uid"] != *uid);
                            }
                        });
                    }
                } else if !owned.is_empty() {
                    continue;
                }
                done |= self.change(&key, |o| drop_finalizer(o, word));
            }
        }
        done
    }

    /// A claim that is to go goes when no pod uses it.
    fn release_claims(&mut self) -> bool {
        let used: HashSet<(String, String)> = self
            .store
            .list("pods", None)
            .flat_map(|(k, s)| {
                let volumes = s.object.pointer("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
                let claim = |v: Value| text(&v, "/persistentVolumeClaim/claimName").to_owned();
                volumes.into_iter().map(move |v| (k.namespace.clone(), claim(v)))
            })
            .collect();
        let free = |k: &Key, o: &Value| {
            going(o) && has_finalizer(o, PVC_PROTECTION) && !used.contains(&(k.namespace.clone(), k.name.clone()))
        };
        let keys: Vec<Key> = self
            .store
            .list("persistentvolumeclaims", None)
            .filter(|(k, s)| free(k, &s.object))
            .map(|(k, _)| k.clone())
            .collect();
        let mut done = false;
        for key in keys {
            done |= self.change(&key, |o| drop_finalizer(o, PVC_PROTECTION));
        }
        done
    }

    fn empty_namespaces(&mut self) -> bool {
        let leaving: Vec<Key> =
            self.store.list("namespaces", None).filter(|(_, s)| going(&s.object)).map(|(k, _)| k.clone()).collect();
        let mut done = false;
        for key in leaving {
            let inside: Vec<(Key, bool)> = self
                .store
                .all()
                .filter(|(k, _)| k.namespace == key.name)
                .map(|(k, s)| (k.clone(), going(&s.object)))
                .collect();
            if inside.is_empty() {
                let last = |v: &Value, r| super::write::with_revision(v.clone(), r);
                done |= self.store.delete(&key, pgconvoy_e2e_store::Expect::Anything, last).is_ok();
            } else {
                done |= self.delete_all(inside.into_iter().filter(|(_, going)| !going).map(|(k, _)| k).collect());
            }
        }
        done
    }

    /// Changes what is stored as a controller does.
    fn change(&mut self, key: &Key, how: impl FnOnce(&mut Value)) -> bool {
        let Some(kind) = self.kinds.iter().find(|k| k.stored == key.resource).cloned() else { return false };
        let Ok(mut object) = self.get(&kind, &key.namespace, &key.name) else { return false };
        how(&mut object);
        let options = WriteOptions { manager: "kube-controller-manager".to_owned(), ..WriteOptions::default() };
        self.update(&kind, &key.namespace, &key.name, "", object, &options).is_ok()
    }
}

fn going(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

fn owned_by(object: &Value, uid: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|o| o["uid"] == uid)
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().any(|f| f == name)
}

fn drop_finalizer(object: &mut Value, name: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(Value::Array(list)) = metadata.get_mut("finalizers") {
        list.retain(|f| f != name);
        if list.is_empty() {
            metadata.remove("finalizers");
        }
    }
}
