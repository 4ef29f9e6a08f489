//! The embedded API server, in this process.

use crate::bed::{Bed, Rest, SETS};
use anyhow::Context as _;
use pgconvoy_e2e_reconcile::faked::Faked;
use pgconvoy_e2e_store::Change;
use pgconvoy_embedded::api::{Api, DeleteOptions, PatchKind, WriteOptions};
use pgconvoy_embedded::cluster::{Machine, apply};
use pgconvoy_embedded::http::{Authority, Server};
use pgconvoy_operator::election::LEASE;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const LEASES: &str = "leases.coordination.k8s.io";

/// It, and its directory.
pub(crate) struct Embedded {
    server: Server,
    kubeconfig: PathBuf,
    _directory: tempfile::TempDir,
    _runtime: Runtime,
}

impl Embedded {
    /// Serves these custom resources, with kubelets and agents that are faked.
    pub(crate) fn new(crds: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("no directory")?;
        // Two million changes are kept: more than there are between two looks.
        let server = Server::new(Api::new(Box::new(Machine), 2_000_000), directory.path().to_owned());
        let authority = Authority::new()?;
        let identity = authority.server(&["127.0.0.1".to_owned()])?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let serving = server.clone();
        runtime.spawn(async move { serving.serve(listener, &identity).await });
        server.let_in("token", "operator");
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, authority.kubeconfig(&format!("https://127.0.0.1:{port}"), "token"))?;
        for file in crate::yaml_files(crds)? {
            apply(&server, &file)?;
        }
        let living = server.clone();
        std::thread::spawn(move || live(&living));
        Ok(Self { server, kubeconfig, _directory: directory, _runtime: runtime })
    }
}

impl Bed for Embedded {
    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn create(&self, stored: &str, namespace: &str, object: Value) -> anyhow::Result<()> {
        let done = self.server.with(|a| {
            let kind = a.kind_stored(stored).ok_or_else(|| format!("{stored} is not served"))?;
            a.create(&kind, namespace, object, &WriteOptions::default()).map_err(|r| r.message)
        });
        done.map(|_| ()).map_err(anyhow::Error::msg)
    }

    fn change(&self, namespace: &str, set: &str, spec: Value) -> anyhow::Result<()> {
        let body = json!({ "spec": spec });
        let done = self.server.with(|a| {
            let kind = a.kind_stored(SETS).ok_or("no sets")?;
            let how = (PatchKind::Merge, &body);
            a.patch(&kind, namespace, set, "", how, &WriteOptions::default()).map_err(|_| "refused")
        });
        done.map(|_| ()).map_err(anyhow::Error::msg)
    }

    fn get(&self, stored: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.server.with(|a| a.get(&*a.kind_stored(stored)?, namespace, name).ok()).map(Arc::new)
    }

    fn pods(&self, namespace: &str) -> Vec<Arc<Value>> {
        let all = self.server.with(|a| Some(a.stored(&*a.kind_stored("pods")?, namespace).cloned().collect()));
        all.unwrap_or_default()
    }

    fn rest(&self, time: Duration) -> anyhow::Result<Rest> {
        let (requests, revision, begun) = (self.server.requests(), self.server.with(|a| a.revision()), Instant::now());
        std::thread::sleep(time);
        let requests = (self.server.requests() - requests) as f64 / begun.elapsed().as_secs_f64();
        let other = |c: &&Change| c.key.resource != LEASES;
        let written = self.server.with(|a| a.changes(revision).map(|c| c.filter(other).count()).map_err(|r| r.message));
        let written = written.map_err(anyhow::Error::msg)?;
        Ok(Rest { requests, watches: self.server.watches() as f64, written })
    }

    fn has_others(&self) -> bool {
        false
    }

    fn free_lease(&self) -> anyhow::Result<()> {
        let gone = self.server.with(|a| {
            let kind = a.kind_stored(LEASES).ok_or("no Leases")?;
            a.delete(&kind, crate::OPERATOR_NAMESPACE, LEASE, &DeleteOptions::default()).map_err(|_| "no Lease")
        });
        gone.map(|_| ()).map_err(anyhow::Error::msg)
    }
}

/// The kubelets and agents of every set, for ever.
fn live(server: &Server) {
    let Some(faked) = server.with(|a| Faked::new(a)) else { return };
    let mut seen = 0;
    loop {
        let (sets, now) = server.with(|a| {
            let now = a.revision();
            let watched = ["pods", "persistentvolumeclaims", "pgterms.pgconvoy.dev", SETS];
            let changes = a.changes(seen).map(|c| {
                let own = c.filter(|c| watched.contains(&c.key.resource.as_str()));
                own.map(|c| (c.key.namespace.clone(), crate::set_of(&c.object))).collect::<BTreeSet<_>>()
            });
            (changes.unwrap_or_default(), now)
        });
        seen = now;
        for (namespace, set) in &sets {
            while server.with(|a| faked.step(a, namespace, set)) {}
        }
        if sets.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
