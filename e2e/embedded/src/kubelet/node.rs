//! What a scheduler, a volume binder and the namespace controllers do: a place for pods, volumes for claims.

use super::Shared;
use crate::api::kinds::Kind;
use crate::api::select::Selector;
use crate::api::{Api, PatchKind, WriteOptions, text};
use crate::clock;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn options(manager: &str) -> WriteOptions {
    WriteOptions { manager: manager.to_owned(), ..WriteOptions::default() }
}

fn all(api: &Api, kind: &Kind) -> Vec<Value> {
    api.list(kind, None, &Selector::default(), 0, "").map(|p| p.items).unwrap_or_default()
}

/// Does what there is to do.
pub(super) fn bind(shared: &Shared) {
    shared.server.with(|api| {
        let core = |plural: &str, api: &Api| api.kind("", "v1", plural);
        let (Some(pods), Some(claims), Some(volumes)) =
            (core("pods", api), core("persistentvolumeclaims", api), core("persistentvolumes", api))
        else {
            return;
        };
        place(api, &pods, shared.settings.nodes);
        bind_claims(api, &claims, &volumes);
    });
}

/// Gives every pod a node: the one with the fewest pods of the same owner, then with the fewest at all.
fn place(api: &mut Api, pods: &Arc<Kind>, nodes: u32) {
    let list = all(api, pods);
    let owner = |p: &Value| text(p, "/metadata/ownerReferences/0/uid").to_owned();
    let mut placed: Vec<(String, String)> =
        list.iter().map(|p| (text(p, "/spec/nodeName").to_owned(), owner(p))).filter(|(n, _)| !n.is_empty()).collect();
    for pod in list.iter().filter(|p| text(p, "/spec/nodeName").is_empty()) {
        let own = owner(pod);
        let load = |node: &String| {
            let same = placed.iter().filter(|(n, o)| n == node && *o == own).count();
            (same, placed.iter().filter(|(n, _)| n == node).count())
        };
        let Some(node) = (1..=nodes).map(|n| format!("n{n}")).min_by_key(load) else { return };
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let time = clock::text(0);
        let bound = api.bind(pods, namespace, name, &node, &time);
        if bound.is_ok() {
            placed.push((node, own));
        }
    }
}

/// Every claim gets a volume of its own.
fn bind_claims(api: &mut Api, claims: &Arc<Kind>, volumes: &Arc<Kind>) {
    for claim in all(api, claims) {
        let (namespace, name) = (text(&claim, "/metadata/namespace"), text(&claim, "/metadata/name"));
        let asked = claim.pointer("/spec/resources/requests/storage").cloned().unwrap_or_default();
        if text(&claim, "/status/phase") == "Bound" {
            // Directories grow as they like.
            if claim["status"]["capacity"]["storage"] != asked {
                let patch = json!({ "status": { "capacity": { "storage": asked } } });
                let how = (PatchKind::Merge, &patch);
                let _ = api.patch(claims, namespace, name, "status", how, &options("kube-controller-manager"));
            }
            continue;
        }
        if text(&claim, "/spec/storageClassName") != super::super::cluster::STORAGE_CLASS {
            continue;
        }
        let volume = format!("pvc-{}", text(&claim, "/metadata/uid"));
        let object = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": volume },
            "spec": {
                "capacity": { "storage": asked }, "accessModes": claim["spec"]["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete", "storageClassName": claim["spec"]["storageClassName"],
                "claimRef": { "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name,
                    "uid": claim["metadata"]["uid"] },
            },
        });
        let _ = api.create(volumes, "", object, &options("kube-controller-manager"));
        let spec = json!({ "spec": { "volumeName": volume } });
        let status = json!({ "status": { "phase": "Bound", "accessModes": claim["spec"]["accessModes"],
            "capacity": { "storage": asked } } });
        for (subresource, patch) in [("", &spec), ("status", &status)] {
            let how = (PatchKind::Merge, patch);
            let _ = api.patch(claims, namespace, name, subresource, how, &options("kube-controller-manager"));
        }
    }
    // A volume goes with its claim.
    let there: BTreeMap<String, ()> =
        all(api, claims).iter().map(|c| (text(c, "/metadata/uid").to_owned(), ())).collect();
    for volume in all(api, volumes) {
        if !there.contains_key(text(&volume, "/spec/claimRef/uid")) {
            let _ = api.delete(volumes, "", text(&volume, "/metadata/name"), &crate::api::DeleteOptions::default());
        }
    }
}
