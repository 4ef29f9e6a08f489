//! The archive's Secret, and that the kubelets look at it.

use super::{Action, Planner, Standing};
use crate::kinds::Kind;
use crate::replica_set::archive::{self, ArchiveSeen, secret};
use pgconvoy_crds::names;
use serde_json::{Map, Value, json};

impl Planner<'_> {
    /// Sees to the Secret. What is missing or not known takes nothing away from the agents.
    pub(super) fn archive(&mut self) {
        let name = names::archive(&self.set.name);
        let seen = &self.observed.archive;
        match (self.standing(Kind::Secret, &name), seen) {
            (Standing::Absent, ArchiveSeen::There(files)) => {
                self.plan.actions.push(Action::Create(secret(self.set, files)));
            }
            (Standing::Ours(meta), ArchiveSeen::There(files)) => {
                let told = self.observed.secret(&name).and_then(|s| s.archive.as_ref());
                if told != Some(&files.fingerprint) {
                    let object = secret(self.set, files);
                    let mut data: Map<String, Value> = archive::files().map(|file| (file, Value::Null)).collect();
                    if let Value::Object(new) = &object.body["data"] {
                        data.extend(new.clone());
                    }
                    let metadata = json!({"uid": meta.uid, "annotations": object.body["metadata"]["annotations"]});
                    let body = json!({"metadata": metadata, "data": data});
                    self.plan.actions.push(Action::Patch { kind: Kind::Secret, name, body });
                }
            }
            (Standing::Ours(meta), ArchiveSeen::NotAsked) => {
                let why = "the spec asks for no archive any more".to_owned();
                self.plan.actions.push(Action::Delete { kind: Kind::Secret, name, uid: meta.uid.clone(), why });
            }
            _ => {}
        }
        self.tell_kubelets();
    }

    /// What a pod's annotation should say.
    pub(super) fn archive_fingerprint(&self) -> Option<&str> {
        match &self.observed.archive {
            ArchiveSeen::There(files) => Some(&files.fingerprint),
            _ => None,
        }
    }

    /// A kubelet looks at a pod's Secrets about once a minute, and at once when the pod's annotations change.
    fn tell_kubelets(&mut self) {
        let told = self.observed.secret(&names::archive(&self.set.name)).and_then(|s| s.archive.as_deref());
        let wanted = match &self.observed.archive {
            // Only once it is there: a kubelet that looks too early looks again in a minute.
            ArchiveSeen::There(files) if told == Some(&files.fingerprint) => told,
            ArchiveSeen::NotAsked if told.is_none() => None,
            _ => return,
        };
        for (name, pod) in self.observed.pods() {
            if pod.archive.as_deref() != wanted
                && !pod.meta.deleting
                && !pod.meta.belongs_to_another(&self.set.uid)
                && !self.plan.actions.iter().any(|a| a.takes_pod(name))
            {
                let body =
                    json!({"metadata": {"uid": pod.meta.uid, "annotations": {names::ANNOTATION_ARCHIVE: wanted}}});
                self.plan.actions.push(Action::Patch { kind: Kind::Pod, name: name.to_owned(), body });
            }
        }
    }
}
