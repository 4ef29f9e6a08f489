//! What the tests on a real Kubernetes share. Each file in `tests/` proves one promise.
//!
//! They are `#[ignore]`d, because they need a cluster: `./test` brings one up, sets `PGCONVOY_CLUSTER` to its name and
//! runs them with `--ignored`. By hand: `images/build --profile dev`, `KCL_NAME=dev e2e/cluster/kcl up`,
//! `KCL_NAME=dev e2e/cluster/kcl import target/images/*.oci.tar`, then
//! `PGCONVOY_CLUSTER=dev cargo test -p pgconvoy-e2e -- --ignored --test-threads=1`.
//!
//! What the objects, events and logs of a failed test's namespace said lies below `PGCONVOY_LOGS` afterwards (default: a
//! directory in the system's temporary one); with `PGCONVOY_KEEP` set the namespace itself is kept, too.

mod client;
mod evidence;
mod load;
mod set;
mod spec;
mod stepping;
mod volumes;

pub use client::{Client, Door, Outside, Tally};
pub use set::Set;
pub use stepping::{Stepping, step};
pub use volumes::SmallVolumes;

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A running cluster of `e2e/cluster/kcl`.
#[derive(Debug, Clone)]
pub struct Cluster {
    kcl: PathBuf,
    name: String,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether its exit status was 0.
    pub ok: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Seconds that one command may take, unless it is told otherwise.
const PATIENCE: u32 = 120;

impl Cluster {
    /// The cluster that the environment names: `PGCONVOY_CLUSTER`, and `PGCONVOY_KCL` for the program if it lies elsewhere.
    ///
    /// # Errors
    /// When no cluster is named: a test that was asked for must not pass without one.
    pub fn from_env() -> anyhow::Result<Self> {
        let name = std::env::var("PGCONVOY_CLUSTER")
            .context("PGCONVOY_CLUSTER names no cluster; bring one up with e2e/cluster/kcl up, or run ./test")?;
        let kcl = std::env::var_os("PGCONVOY_KCL").map_or_else(|| root().join("e2e/cluster/kcl"), PathBuf::from);
        Ok(Self { kcl, name })
    }

    /// Runs `kcl <args>` on this cluster.
    ///
    /// # Errors
    /// When it cannot be run; its own failure is an [`Output`].
    pub fn kcl(&self, args: &[&str], stdin: &str) -> anyhow::Result<Output> {
        let mut child = Command::new("timeout")
            .args(["-k", "5", &PATIENCE.to_string()])
            .arg(&self.kcl)
            .args(args)
            .env("KCL_NAME", &self.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run timeout")?;
        // Written from a thread: a command that prints much before it reads everything must not wait for us.
        let pipe = child.stdin.take();
        let text = stdin.to_owned();
        let writer = std::thread::spawn(move || pipe.map(|mut p| p.write_all(text.as_bytes())));
        let output = child.wait_with_output().context("cannot wait for kcl")?;
        // What it did not read is its own business: its exit status tells.
        drop(writer.join());
        Ok(Output {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `kubectl <args>` with `stdin`, and takes what comes.
    ///
    /// # Errors
    /// As [`Cluster::kcl`].
    pub fn try_kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<Output> {
        self.kcl(&[&["kubectl"], args].concat(), stdin)
    }

    /// Runs `kubectl <args>` with `stdin`; what it printed.
    ///
    /// # Errors
    /// When it fails, with what it complained about.
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<String> {
        let output = self.try_kubectl(args, stdin)?;
        if !output.ok {
            bail!("kubectl {}: {}", args.join(" "), output.stderr);
        }
        Ok(output.stdout)
    }

    /// Runs `helm <args>` on this cluster; what it printed.
    ///
    /// # Errors
    /// When there is no helm, or when it fails, with what it complained about.
    pub fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        let helm = helm()?;
        let helm = helm.to_str().context("helm's path is no text")?;
        let output = self.kcl(&[&["enter", helm], args].concat(), "")?;
        if !output.ok {
            bail!("helm {}: {}", args.join(" "), output.stderr);
        }
        Ok(output.stdout)
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
    /// As [`Cluster::kcl`].
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

/// Helm's program: in `PATH`, or where the test cluster keeps its tools.
///
/// # Errors
/// When there is none.
pub fn helm() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|cache| cache.join("pgconvoy/cluster/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(cache.clone())
        .map(|folder| folder.join("helm"))
        .find(|p| p.is_file())
        .with_context(|| {
            let folder = cache.unwrap_or_default();
            format!("no helm: GOBIN={} go install helm.sh/helm/v3/cmd/helm@v3.22.0", folder.display())
        })
}

/// The repository's root.
pub fn root() -> PathBuf {
    // At run time: programs may be compiled in one clone and run in another.
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("e2e/tests"), PathBuf::from);
    crate_dir.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
