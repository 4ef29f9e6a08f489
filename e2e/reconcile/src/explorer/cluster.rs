//! Where scenarios begin.

use pgconvoy_embedded::api::{Api, Surroundings};
use pgconvoy_embedded::cluster::apply;
use pgconvoy_embedded::http::Server;
use serde_json::{Value, json};
use std::path::Path;

/// UIDs that are counted, and a clock that stands.
pub struct Counted(pub u64);

impl Surroundings for Counted {
    fn time(&mut self, seconds_from_now: i64) -> String {
        let seconds = seconds_from_now.clamp(0, 59);
        format!("2026-01-01T00:00:{seconds:02}Z")
    }

    fn uid(&mut self) -> String {
        self.0 += 1;
        // The first digits are what generated names are made of.
        format!("{:08x}-0000-4000-a000-{:012x}", self.0, self.0)
    }
}

/// What scenarios begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ground {
    /// No set `s`.
    Empty,
    /// Three members of it are attached.
    Running,
}

/// A namespace with what pgconvoy needs, with a user's own things in it.
///
/// # Errors
/// When the API server refuses any of it.
pub(super) fn empty(crds: &Path) -> anyhow::Result<Server> {
    let server = Server::new(Api::new(Box::new(Counted(0)), 100_000), crds.to_owned());
    put(&server, "", &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "default" } }))?;
    for entry in std::fs::read_dir(crds)?.flatten() {
        if entry.path().extension().is_some_and(|e| e == "yaml") {
            apply(&server, &entry.path())?;
        }
    }
    let class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "faked", "metadata": { "name": "disk" }, "allowVolumeExpansion": true });
    put(&server, "", &class)?;
    let keys = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" }, "data": { "id": "aWQ=", "secret": "c2VjcmV0" } });
    put(&server, "default", &keys)?;
    let key = |key: &str| json!({ "name": "keys", "key": key });
    let archive = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgArchive", "metadata": { "name": "store" },
        "spec": { "bucket": "b", "credentials": { "accessKeyId": key("id"), "secretAccessKey": key("secret") } },
    });
    put(&server, "default", &archive)?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "s-x", "labels": { "app": "mine" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    put(&server, "default", &pod)?;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "s-x-data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    put(&server, "default", &claim)?;
    Ok(server)
}

/// A set as scenarios have it.
pub(super) fn set(name: &str, members: u32) -> Value {
    json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": name },
        "spec": {
            "image": "docker.io/library/postgres:17", "members": members,
            "storage": { "size": "1Gi", "storageClassName": "disk" },
        },
    })
}

/// Makes an object.
///
/// # Errors
/// When the API server refuses it.
pub(super) fn put(server: &Server, namespace: &str, object: &Value) -> anyhow::Result<()> {
    let word = |name: &str| object[name].as_str().unwrap_or_default();
    let (group, version) = word("apiVersion").rsplit_once('/').unwrap_or_else(|| ("", word("apiVersion")));
    let done = server.with(|api| {
        let kind =
            api.kinds().iter().find(|k| k.group == group && k.version == version && k.kind == word("kind")).cloned();
        let kind = kind.ok_or_else(|| format!("{} is not served", word("kind")))?;
        api.create(&kind, namespace, object.clone(), &Default::default()).map_err(|r| r.message)
    });
    done.map(|_| ()).map_err(anyhow::Error::msg)
}
