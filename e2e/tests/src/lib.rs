//! What the tests on a real Kubernetes share. Each file in `tests/` proves one promise.
//!
//! They are `#[ignore]`d, because they need a cluster: `./test` brings one up, sets `PGCONVOY_CLUSTER` to its name and
//! runs them with `--ignored`. By hand: `images/build --profile dev`, `e2e/cluster/kcluster --name dev up`,
//! `e2e/cluster/kcluster --name dev load target/images/*.oci.tar`, then
//! `PGCONVOY_CLUSTER=dev cargo test -p pgconvoy-e2e -- --ignored --test-threads=1`.
//!
//! What the objects, events and logs of a failed test's namespace said lies below `PGCONVOY_LOGS` afterwards (default: a
//! directory in the system's temporary one); with `PGCONVOY_KEEP` set the namespace itself is kept, too.

mod bucket;
mod client;
mod evidence;
mod load;
mod set;
mod spec;
mod stepping;
mod volumes;

pub use bucket::{Bucket, documented};
pub use client::{Client, Door, Outside, Tally};
pub use set::Set;
pub use stepping::{Stepping, step};
pub use volumes::SmallVolumes;

use anyhow::{Context, bail, ensure};
use pgconvoy_cluster::{Cluster as Bed, Store, build};
pub use pgconvoy_cluster::{Component, End, NodeService, Output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A running cluster of `e2e/cluster`.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Bed>);

impl Cluster {
    /// The cluster that the environment names: `PGCONVOY_CLUSTER`.
    ///
    /// # Errors
    /// When no cluster is named, or it is not up: a test that was asked for must not pass without one.
    pub fn from_env() -> anyhow::Result<Self> {
        let name = std::env::var("PGCONVOY_CLUSTER")
            .context("PGCONVOY_CLUSTER names no cluster; bring one up with e2e/cluster/kcluster up, or run ./test")?;
        let bed = Bed::named(&name)?;
        ensure!(bed.is_up(), "cluster {name} is not up; bring it up with e2e/cluster/kcluster --name {name} up");
        Ok(Self(Arc::new(bed)))
    }

    /// The cluster itself, with its faults.
    #[must_use]
    pub fn bed(&self) -> &Bed {
        &self.0
    }

    /// Runs `kubectl <args>` with `stdin`, and takes what comes.
    ///
    /// # Errors
    /// When it cannot be run; its own failure is an [`Output`].
    pub fn try_kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<Output> {
        self.0.try_kubectl(args, stdin)
    }

    /// Runs `kubectl <args>` with `stdin`; what it printed.
    ///
    /// # Errors
    /// When it fails, with what it complained about.
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<String> {
        self.0.kubectl(args, stdin)
    }

    /// Runs `helm <args>` on this cluster; what it printed.
    ///
    /// # Errors
    /// When there is no helm, or when it fails, with what it complained about.
    pub fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        let helm = helm()?;
        let output = self.0.run(helm.to_str().context("helm's path is no text")?, args, "")?;
        output.success().with_context(|| format!("helm {}", args.join(" ")))
    }

    /// The id of the main process of a container, as seen from outside; of the first container when none is named.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self, namespace: &str, pod: &str, container: Option<&str>) -> anyhow::Result<u32> {
        self.0.pid(namespace, pod, container)
    }

    /// Installs the custom resources as the README says.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn install_crds(&self) -> anyhow::Result<()> {
        let folder = root().join("crds");
        let folder = folder.to_str().context("the repository's path is no text")?;
        self.kubectl(&["apply", "-f", folder], "")?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", folder], "")?;
        Ok(())
    }

    /// Installs the custom resources and the operator as the README says for plain kubectl, and waits for it. Done again,
    /// it changes nothing.
    ///
    /// # Errors
    /// When the API server refuses an object, or the operator is not there after a while.
    pub fn install_operator(&self) -> anyhow::Result<()> {
        self.install_crds()?;
        self.kubectl(&["apply", "-f", &manifest()?], "")?;
        let rollout = ["rollout", "status", "deployment/pgconvoy-operator", "--timeout=100s"];
        self.kubectl(&[&["-n", OPERATOR_NAMESPACE], &rollout[..]].concat(), "")?;
        Ok(())
    }

    /// Takes the operator away again; the custom resources stay.
    ///
    /// # Errors
    /// When it is not gone after a while.
    pub fn uninstall_operator(&self) -> anyhow::Result<()> {
        self.kubectl(&["delete", "-f", &manifest()?, "--timeout=100s"], "")?;
        Ok(())
    }

    /// What `kubectl get <args> -o json` says.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`], and when it is not JSON.
    pub fn get(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[&["get"], args, &["-o", "json"]].concat(), "")?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {} printed no JSON", args.join(" ")))
    }

    /// A namespace that is deleted when the guard is dropped. `purpose` begins its name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn namespace(&self, purpose: &str) -> anyhow::Result<Namespace> {
        // Unique enough: one process runs one test of a purpose at a time.
        let name = format!("{purpose}-{}", std::process::id());
        self.kubectl(&["create", "namespace", &name], "")?;
        Ok(Namespace { cluster: self.clone(), name })
    }
}

/// A namespace of one test; see [`Cluster::namespace`].
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Runs `kubectl -n <namespace> <args>`, and takes what comes.
    ///
    /// # Errors
    /// As [`Cluster::try_kubectl`].
    pub fn try_kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<Output> {
        self.cluster.try_kubectl(&[&["-n", &self.name], args].concat(), stdin)
    }

    /// Runs `kubectl -n <namespace> <args>`; what it printed.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<String> {
        self.cluster.kubectl(&[&["-n", &self.name], args].concat(), stdin)
    }

    /// What `kubectl -n <namespace> get <args> -o json` says.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub fn get(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.cluster.get(&[&["-n", &self.name], args].concat())
    }

    /// Applies a file of the repository's `examples/`, as the README says. It gives one set, `name`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn example(&self, file: &str, name: &str) -> anyhow::Result<Set<'_>> {
        let path = root().join("examples").join(file);
        self.kubectl(&["apply", "-f", path.to_str().context("the repository's path is no text")?], "")?;
        Ok(Set { namespace: self, name: name.to_owned() })
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// A namespace on the cluster of the environment, for the test of this purpose, with our operator on the cluster: it is
/// installed once in a process.
///
/// # Errors
/// As [`Cluster::from_env`], [`Cluster::install_operator`] and [`Cluster::namespace`].
pub fn with_operator(purpose: &str) -> anyhow::Result<Namespace> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let cluster = Cluster::from_env()?;
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        cluster.install_operator()?;
        *installed = true;
    }
    drop(installed);
    cluster.namespace(purpose)
}

/// Where the operator is installed.
pub const OPERATOR_NAMESPACE: &str = "pgconvoy-system";

/// The operator for those who have no Helm.
fn manifest() -> anyhow::Result<String> {
    root().join("deploy/pgconvoy.yaml").to_str().map(str::to_owned).context("the repository's path is no text")
}

/// Looks twice a second until `look` gives something. `what` is what is waited for, in words.
///
/// # Errors
/// When nothing came `within` that time, with what `look` said last; an error of `look` is taken for "not yet".
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + within;
    loop {
        let seen = look();
        if let Ok(Some(found)) = seen {
            return Ok(found);
        }
        if Instant::now() >= end {
            let why = seen.err().map(|e| format!(": {e:#}")).unwrap_or_default();
            bail!("{what}: not within {} s{why}", within.as_secs());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            evidence::keep(&self.cluster, &self.name);
            if std::env::var_os("PGCONVOY_KEEP").is_some() {
                eprintln!("namespace {} is kept", self.name);
                return;
            }
        }
        // Nothing can be done about a failure here; the cluster goes away with the test run.
        drop(self.cluster.try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], ""));
    }
}

/// Helm's program: in `PATH`, or of the test cluster's tools, where it is built if need be.
///
/// # Errors
/// When there is none and it cannot be built.
pub fn helm() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("helm")).find(|p| p.is_file());
    found.map_or_else(|| build::tool(&Store::of_environment()?, "helm"), Ok)
}

/// The repository's root.
pub fn root() -> PathBuf {
    // At run time: programs may be compiled in one clone and run in another.
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("e2e/tests"), PathBuf::from);
    crate_dir.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
