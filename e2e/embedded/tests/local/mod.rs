//! The API server in the test's own process, without a kubelet.

use kube::config::Kubeconfig;
use pgconvoy_embedded::api::Api;
use pgconvoy_embedded::cluster::{Machine, apply};
use pgconvoy_embedded::http::{Authority, Server};
use serde_json::json;
use std::path::{Path, PathBuf};

/// An API server with the namespace `default` and pgconvoy's custom resources.
pub(crate) struct Local {
    pub(crate) server: Server,
    authority: Authority,
    port: u16,
    /// The server's threads live in it.
    #[allow(dead_code, reason = "held, not read")]
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

fn crds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds")
}

impl Local {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let server = Server::new(Api::new(Box::new(Machine), 10_000), directory.path().to_owned());
        let authority = Authority::new().unwrap();
        let identity = authority.server(&["127.0.0.1".to_owned()]).unwrap();
        server.with(|a| {
            let kind = a.kind("", "v1", "namespaces").unwrap();
            for name in ["default", "pgconvoy-system"] {
                a.create(&kind, "", json!({ "metadata": { "name": name } }), &Default::default()).unwrap();
            }
        });
        for entry in std::fs::read_dir(crds()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|e| e == "yaml") {
                apply(&server, &entry.path()).unwrap();
            }
        }
        let port = runtime.block_on(crate::serving::serve(&server, identity));
        Self { server, authority, port, runtime, directory }
    }

    /// Runs to the end.
    #[allow(dead_code, reason = "not every test has clients")]
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A kubeconfig of this user.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.server.let_in(&format!("token-of-{user}"), user);
        let path = self.directory.path().join(format!("{user}.kubeconfig"));
        let url = format!("https://127.0.0.1:{}", self.port);
        std::fs::write(&path, self.authority.kubeconfig(&url, &format!("token-of-{user}"))).unwrap();
        path
    }

    /// A client of this user.
    #[allow(dead_code, reason = "not every test has one")]
    pub(crate) fn client(&self, user: &str) -> kube::Client {
        let config = Kubeconfig::read_from(self.kubeconfig(user)).unwrap();
        // It reads files and asks nobody: there is nothing to wait for.
        let config = std::thread::scope(|scope| {
            let read = || self.runtime.block_on(kube::Config::from_custom_kubeconfig(config, &Default::default()));
            scope.spawn(read).join().unwrap().unwrap()
        });
        let mut config = config;
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }
}
