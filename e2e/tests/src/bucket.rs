//! An S3 store on the cluster: versitygw, a real one, whose bucket is a directory.

use crate::{Namespace, eventually};
use anyhow::{Context, ensure};
use pgconvoy_cluster::{Store, build};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const IMAGE: &str = "docker.io/local/versitygw:1";

/// A bucket `backups` behind `http://s3:7070` in a namespace, and a PgArchive `s3` that leads there.
#[derive(Debug)]
pub struct Bucket<'a> {
    namespace: &'a Namespace,
    folder: PathBuf,
}

impl<'a> Bucket<'a> {
    /// Starts the store. The first time in a process its image is made and loaded.
    ///
    /// # Errors
    /// When it cannot be built, or does not run after a while.
    pub fn start(namespace: &'a Namespace) -> anyhow::Result<Self> {
        load(namespace)?;
        let container = |name: &str, image: &str| {
            json!({
                "name": name, "image": image, "imagePullPolicy": "Never",
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            })
        };
        let mut first = container("bucket", "docker.io/library/postgres:17");
        first["command"] = json!(["mkdir", "-p", "/data/backups"]);
        let mut store = container("s3", IMAGE);
        store["args"] = json!([
            "--access",
            "root",
            "--secret",
            "root-secret",
            "--port",
            ":7070",
            "--keep-alive",
            "--quiet",
            "posix",
            "/data"
        ]);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "s3", "labels": { "app": "s3" } },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "initContainers": [first], "containers": [store],
                "volumes": [{ "name": "data", "emptyDir": {} }],
            },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s3" },
            "spec": { "selector": { "app": "s3" }, "ports": [{ "port": 7070 }] },
        });
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s3" },
            "stringData": { "id": "root", "secret": "root-secret" },
        });
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [pod, service, secret] });
        namespace.kubectl(&["create", "-f", "-"], &list.to_string())?;
        namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/s3"], "")?;
        let mut bucket = Self { namespace, folder: PathBuf::new() };
        bucket.archive("s3", &json!({}))?;
        let pid = eventually("the store's process", Duration::from_secs(10), || {
            namespace.cluster().process(&namespace.name, "s3", Some("s3")).map(Some)
        })?;
        bucket.folder = PathBuf::from(format!("/proc/{pid}/root/data/backups"));
        Ok(bucket)
    }

    /// Makes a PgArchive that leads here, with `changes` in its spec.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn archive(&self, name: &str, changes: &serde_json::Value) -> anyhow::Result<()> {
        let mut spec = json!({
            "bucket": "backups", "endpoint": "http://s3:7070", "pathStyle": true,
            "credentials": {
                "accessKeyId": { "name": "s3", "key": "id" }, "secretAccessKey": { "name": "s3", "key": "secret" },
            },
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let object = json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgArchive", "metadata": { "name": name }, "spec": spec });
        self.namespace.kubectl(&["apply", "-f", "-"], &object.to_string())?;
        Ok(())
    }

    /// The bucket, as a directory of this machine.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The archive of the one system of this set.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn system(&self, set: &str) -> anyhow::Result<PathBuf> {
        let prefix = self.folder.join(&self.namespace.name).join(set);
        let entries = std::fs::read_dir(&prefix).with_context(|| format!("nothing below {}", prefix.display()))?;
        let mut systems: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).filter(|p| p.is_dir()).collect();
        ensure!(systems.len() == 1, "{} systems below {}", systems.len(), prefix.display());
        systems.pop().context("no system")
    }
}

fn load(namespace: &Namespace) -> anyhow::Result<()> {
    static LOADED: Mutex<bool> = Mutex::new(false);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if *loaded {
        return Ok(());
    }
    let program = build::tool(&Store::of_environment()?, "versitygw")?;
    let root = std::env::temp_dir().join(format!("versitygw-{}", std::process::id()));
    std::fs::create_dir_all(root.join("usr/bin"))?;
    std::fs::create_dir_all(root.join("tmp"))?;
    std::fs::copy(program, root.join("usr/bin/versitygw"))?;
    let done = namespace.cluster().bed().load_root(IMAGE, &root, &["--entrypoint", "/usr/bin/versitygw"]);
    std::fs::remove_dir_all(&root)?;
    done?;
    *loaded = true;
    Ok(())
}

/// A script of docs/archive-format.md, run as it stands there.
///
/// # Errors
/// When there is none of this name, or it fails.
pub fn documented(name: &str, arguments: &[&Path]) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(crate::root().join("docs/archive-format.md"))?;
    let (_, rest) = page.split_once(&format!("<!-- test: {name} -->")).with_context(|| format!("no script {name}"))?;
    let script = rest.split("```").nth(1).and_then(|s| s.strip_prefix("bash\n")).context("no script in bash")?;
    let output = Command::new("bash").arg("-c").arg(script).arg(name).args(arguments).output()?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
