//! The program `pgconvoy-embedded up`, a client of its API, and `psql`.

pub(crate) mod tour;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgconvoy-embedded");
/// One cluster at a time: they sweep what others left, and share the machine.
static ONE: Mutex<()> = Mutex::new(());
static PROGRAMS: Once = Once::new();

/// A cluster that runs, and ends with the test.
pub(crate) struct Bed {
    child: Child,
    kubeconfig: PathBuf,
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
    /// Where Services listen on this machine, by `namespace/name`.
    addresses: Arc<Mutex<HashMap<String, SocketAddr>>>,
    _one: MutexGuard<'static, ()>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

fn postgres() -> Option<PathBuf> {
    (15..=18).rev().map(|v| PathBuf::from(format!("/usr/lib/postgresql/{v}/bin"))).find(|b| b.join("psql").is_file())
}

/// Says that a test did not run. Past the capture of the test harness: it must be seen.
fn skipped(why: &str) {
    let mut past_capture = std::io::stderr();
    let _ = writeln!(past_capture, "SKIPPED embedded: {why}");
}

/// Whether this machine can run a cluster; the programs are built then.
fn possible() -> bool {
    if postgres().is_none() {
        skipped("there is no PostgreSQL on this machine");
        return false;
    }
    let namespaces = Command::new("unshare").args(["-U", "-m", "-p", "-n", "-r", "--fork", "true"]).status();
    if !namespaces.is_ok_and(|s| s.success()) {
        skipped("this machine allows no user namespaces");
        return false;
    }
    PROGRAMS.call_once(|| {
        // Whoever has just done it need not wait for another cargo.
        if std::env::var_os("PGCONVOY_BUILT").is_some() {
            return;
        }
        let packages = ["-ppgconvoy-operator", "-ppgconvoy-agent", "-ppgconvoy-supervisor"];
        let target = Path::new(PROGRAM).ancestors().nth(2).unwrap();
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--offline"])
            .args(packages)
            .env("CARGO_TARGET_DIR", target)
            .current_dir(root())
            .output()
            .unwrap();
        assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    });
    true
}

impl Bed {
    /// Starts one with pgconvoy's custom resources; none if this machine cannot.
    pub(crate) fn up(arguments: &[&str]) -> Option<Bed> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !possible() {
            return None;
        }
        let mut command = Command::new(PROGRAM);
        command.arg("up").args(arguments).current_dir(root());
        for entry in std::fs::read_dir(root().join("crds")).unwrap().flatten() {
            if entry.path().extension().is_some_and(|e| e == "yaml") {
                command.arg("--apply").arg(entry.path());
            }
        }
        let log = std::fs::File::create(std::env::temp_dir().join(format!("embedded-test-{}.log", std::process::id())))
            .unwrap();
        let mut child =
            command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kubeconfig = loop {
            let line = lines.next().unwrap_or_else(|| panic!("the cluster did not come up: {}", log_text())).unwrap();
            if let Some(path) = line.strip_prefix("export KUBECONFIG=") {
                break PathBuf::from(path);
            }
        };
        let addresses: Arc<Mutex<HashMap<String, SocketAddr>>> = Arc::default();
        let known = addresses.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((name, at)) = line.split_once(" at ")
                    && let Ok(at) = at.parse()
                {
                    known.lock().unwrap().insert(name.to_owned(), at);
                }
            }
        });
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let config = kube::config::Kubeconfig::read_from(&kubeconfig).unwrap();
            let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
            kube::Client::try_from(config).unwrap()
        });
        Some(Bed { child, kubeconfig, runtime, client, addresses, _one: one })
    }

    /// Where the cluster's files are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.kubeconfig.parent().unwrap().to_path_buf()
    }

    /// What `KUBECONFIG` must be.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The process that started the cluster.
    pub(crate) fn root(&self) -> u32 {
        self.child.id()
    }

    /// Runs something that waits.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn api(&self, plural: &str) -> Api<DynamicObject> {
        let (group, version, kind) = match plural {
            "pods" => ("", "v1", "Pod"),
            "secrets" => ("", "v1", "Secret"),
            "services" => ("", "v1", "Service"),
            "pgterms" => ("pgconvoy.dev", "v1alpha1", "PgTerm"),
            "pgreplicasets" => ("pgconvoy.dev", "v1alpha1", "PgReplicaSet"),
            "pgsnapshots" => ("pgconvoy.dev", "v1alpha1", "PgSnapshot"),
            other => panic!("{other}"),
        };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version,
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::namespaced_with(self.client.clone(), "default", &resource)
    }

    /// One object.
    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let object = self.runtime.block_on(self.api(plural).get_opt(name)).unwrap()?;
        Some(serde_json::to_value(object).unwrap())
    }

    /// All of a kind.
    pub(crate) fn list(&self, plural: &str) -> Vec<Value> {
        let list = self.runtime.block_on(self.api(plural).list(&Default::default())).unwrap();
        list.items.into_iter().map(|o| serde_json::to_value(o).unwrap()).collect()
    }

    /// Deletes one.
    pub(crate) fn delete(&self, plural: &str, name: &str) {
        self.runtime.block_on(self.api(plural).delete(name, &Default::default())).unwrap();
    }

    /// Applies a file of the repository that holds replica sets.
    pub(crate) fn apply(&self, file: &str) {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            self.make("pgreplicasets", &Value::deserialize(document).unwrap());
        }
    }

    /// Applies an object.
    pub(crate) fn make(&self, plural: &str, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let (api, parameters) = (self.api(plural), PatchParams::apply("test"));
        self.runtime.block_on(api.patch(name, &parameters, &Patch::Apply(object))).unwrap();
    }

    /// Changes one.
    pub(crate) fn change(&self, plural: &str, name: &str, patch: &Value) {
        self.runtime.block_on(self.api(plural).patch(name, &PatchParams::default(), &Patch::Merge(patch))).unwrap();
    }

    /// Waits for something.
    pub(crate) fn wait<T>(&self, limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begun.elapsed() > limit {
                let set = self.get("pgreplicasets", "quickstart").map(|s| s["status"].clone());
                panic!("{what}: not within {limit:?}; the set: {set:#?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until that many members are ready.
    pub(crate) fn wait_ready(&self, set: &str, ready: &str, limit: Duration) {
        self.wait(limit, &format!("{set} {ready}"), || {
            (self.get("pgreplicasets", set)?["status"]["ready"] == ready).then_some(())
        });
    }

    /// Where a Service listens on this machine.
    pub(crate) fn address(&self, set: &str, service: &str) -> SocketAddr {
        let name = format!("default/{set}-{service}");
        let known = || self.addresses.lock().unwrap().get(&name).copied();
        self.wait(Duration::from_secs(30), &format!("an address of {name}"), known)
    }

    /// What PostgreSQL answers through a Service, or what `psql` says.
    pub(crate) fn sql(&self, set: &str, service: &str, sql: &str) -> Result<String, String> {
        use base64::Engine as _;
        let secret = self.get("secrets", &format!("{set}-app")).unwrap();
        let uri = base64::engine::general_purpose::STANDARD.decode(secret["data"]["uri"].as_str().unwrap()).unwrap();
        let uri = String::from_utf8(uri).unwrap();
        let at = self.address(set, service);
        let (before, after) = uri.split_once('@').unwrap();
        let uri = format!("{before}@{at}/{}", after.split_once('/').unwrap().1);
        let run = Command::new(postgres().unwrap().join("psql")).args(["-XAtq", &uri, "-c", sql]).output().unwrap();
        if run.status.success() {
            Ok(String::from_utf8(run.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&run.stderr).into_owned())
        }
    }

    /// Keeps logs and objects where they outlive the cluster, and what the test has to say; where that is.
    pub(crate) fn keep(&self, name: &str, told: &str) -> PathBuf {
        let parent = std::env::var_os("PGCONVOY_LOGS").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = parent.join(format!("pgconvoy-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("told.txt"), told).unwrap();
        std::fs::write(folder.join("cluster.log"), log_text()).unwrap();
        // No Secrets.
        for plural in ["pgreplicasets", "pgterms", "pods"] {
            std::fs::write(folder.join(format!("{plural}.json")), format!("{:#}", Value::from(self.list(plural))))
                .unwrap();
        }
        let copied = Command::new("cp").arg("-r").arg(self.directory().join("logs")).arg(&folder).status();
        assert!(copied.unwrap().success(), "the logs cannot be kept");
        folder
    }

    /// The API server has done everything that anybody asked of it.
    pub(crate) fn nothing_was_asked_in_vain(&self) {
        let text = log_text();
        assert!(!text.contains("not done here"), "{text}");
    }

    fn uid(&self) -> u32 {
        std::fs::metadata(self.directory()).unwrap().uid()
    }

    /// What runs in it.
    pub(crate) fn processes(&self) -> Vec<String> {
        processes_of(self.uid())
    }

    /// Kills the program that was started; its directory, and the user that everything ran as.
    pub(crate) fn kill(mut self) -> (PathBuf, u32) {
        let known = (self.directory(), self.uid());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        known
    }
}

/// The programs of the cluster's user that live, but for zombies. (A user that is somebody also runs this test.)
pub(crate) fn processes_of(uid: u32) -> Vec<String> {
    let mut all = vec![];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours = line.contains("pgconvoy") || line.starts_with("postgres");
        if metadata.uid() == uid && !line.is_empty() && ours && !line.contains(" up ") && !line.contains("/deps/") {
            all.push(line);
        }
    }
    all
}

fn log_text() -> String {
    std::fs::read_to_string(std::env::temp_dir().join(format!("embedded-test-{}.log", std::process::id())))
        .unwrap_or_default()
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the cluster said: {}", log_text());
        }
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}
