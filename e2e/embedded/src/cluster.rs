//! Everything together, as the first process inside runs it.

use crate::api::{Api, PatchKind, Surroundings, WriteOptions, text};
use crate::clock;
use crate::http::{Authority, Server};
use crate::kubelet::{self, Shared};
use crate::machine::{BUCKET, Keys, SETTINGS, STORE_PORT, Settings, Word, forward, network};
use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// The StorageClass whose claims get directories.
pub const STORAGE_CLASS: &str = "local-path";
/// Changes that watches can look back on.
const KEEP: usize = 10_000;
/// The operator's namespace.
const SYSTEM: &str = "pgconvoy-system";
/// An operator that ends earlier cannot run here.
const OPERATOR_LIFE: Duration = Duration::from_secs(10);

/// Time and random numbers of the machine.
pub struct Machine;

impl Surroundings for Machine {
    fn time(&mut self, seconds_from_now: i64) -> String {
        clock::text(seconds_from_now)
    }

    fn uid(&mut self) -> String {
        let n: u128 = rand::random();
        let hex = format!("{n:032x}");
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }
}

/// A name or a token that nobody guesses.
pub fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The first process inside. Ends when whoever started it is gone.
///
/// # Errors
/// When the cluster cannot be made.
pub fn inside() -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl failed")?;
    let path = std::env::var(SETTINGS).with_context(|| format!("{SETTINGS} is not set"))?;
    let settings: Settings = serde_json::from_slice(&std::fs::read(&path).with_context(|| path.clone())?)?;
    let (words, mut told) = mpsc::unbounded_channel::<Word>();
    let talk = std::thread::spawn(move || {
        let mut out = std::io::stdout();
        while let Some(word) = told.blocking_recv() {
            let line = serde_json::to_string(&word).unwrap_or_default();
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    });
    let result = make(&settings, &words);
    if let Err(error) = &result {
        let _ = words.send(Word::Failed(format!("{error:#}")));
    }
    drop(words);
    let _ = talk.join();
    result
}

fn make(settings: &Settings, words: &mpsc::UnboundedSender<Word>) -> anyhow::Result<()> {
    let none = None::<&str>;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).context("cannot mount /proc")?;
    let memory = settings.directory.join("memory");
    std::fs::create_dir_all(&memory).context("cannot make a directory")?;
    mount(Some("memory"), &memory, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("cannot mount memory")?;
    network::node()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(live(settings.clone(), words.clone()));
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    result
}

async fn live(settings: Settings, words: mpsc::UnboundedSender<Word>) -> anyhow::Result<()> {
    let server = Server::new(Api::new(Box::new(Machine), KEEP), settings.directory.join("logs"));
    let authority = Authority::new()?;
    let admin = random_name();
    server.let_in(&admin, "admin");
    let names = ["127.0.0.1", "localhost", &network::API.to_string(), "kubernetes.default.svc", "kubernetes.default"];
    let identity = authority.server(&names.map(str::to_owned))?;
    let inside = SocketAddr::new(network::API.into(), network::API_PORT);
    let listener = TcpListener::bind(inside).await.context("the API server's address cannot be had")?;
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener, &identity).await }
    });
    forward::let_in(&settings.directory)?;
    first_objects(&server, &authority.pem(), settings.nodes)?;
    for file in &settings.apply {
        apply(&server, file)?;
    }
    if let Some(keys) = settings.store.as_ref().filter(|_| settings.lead_to_store) {
        for object in [crate::store::secret(keys), crate::store::archive()] {
            put(&server, &object, "pgconvoy-embedded").context("cannot apply the way to the object store")?;
        }
    }
    let outside = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), settings.api_port);
    let kubeconfig = settings.directory.join("kubeconfig");
    write(&kubeconfig, &authority.kubeconfig(&format!("https://{outside}"), &admin))?;
    let of_operator = settings.directory.join("kubeconfig-operator");
    // Another user than people are, so that faults can be for it alone.
    let token = random_name();
    server.let_in(&token, "operator");
    write(&of_operator, &authority.kubeconfig(&format!("https://{inside}"), &token))?;
    let _ = words.send(Word::Listen { at: outside, to: inside, what: "API server".to_owned() });

    let _store = match &settings.store {
        Some(keys) => Some(store(&settings.directory, keys).await?),
        None => None,
    };
    let shared = Shared::new(server, settings.clone(), words.clone());
    let kubelet = tokio::spawn(kubelet::run(shared));
    let ended = keep_operator(&settings, &of_operator);
    let _ = words.send(Word::Ready);
    // The other end of standard input closes when whoever started this is gone, however that came.
    let left = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut vec![]));
    tokio::select! {
        _ = left => Ok(()),
        failed = ended => failed,
        result = serving => result.context("the API server ended")?,
        _ = kubelet => anyhow::bail!("the kubelet ended"),
    }
}

/// The object store: S3, in clear text, for the pods.
async fn store(directory: &Path, keys: &Keys) -> anyhow::Result<pgconvoy_e2e_s3::Server> {
    let options = pgconvoy_e2e_s3::Options {
        root: Some(directory.join("store")),
        address: SocketAddr::new(network::NODE.into(), STORE_PORT),
        access_key: keys.id.clone(),
        secret_key: keys.secret.clone(),
        bucket: BUCKET.to_owned(),
        tls: None,
    };
    pgconvoy_e2e_s3::Server::start(options).await.context("the object store cannot be started")
}

fn log_of(settings: &Settings) -> std::path::PathBuf {
    settings.directory.join("logs").join("operator.log")
}

/// Starts the operator again when it ends, as a Deployment does: it does end when it could not renew its Lease. Fails when it
/// ends before it has done anything.
async fn keep_operator(settings: &Settings, kubeconfig: &Path) -> anyhow::Result<()> {
    let Some(program) = &settings.operator else { return std::future::pending().await };
    loop {
        let begun = std::time::Instant::now();
        let status = start_operator(program, settings, kubeconfig)?.wait().await;
        if begun.elapsed() < OPERATOR_LIFE {
            anyhow::bail!("the operator ended: {status:?}; see {}", log_of(settings).display());
        }
        tracing::warn!(?status, "the operator ended and is started again");
    }
}

fn start_operator(program: &Path, settings: &Settings, kubeconfig: &Path) -> anyhow::Result<Child> {
    let path = log_of(settings);
    std::fs::create_dir_all(settings.directory.join("logs")).context("cannot make a directory")?;
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Command::new(program)
        .args(["run", "--agent-image=docker.io/pgconvoy/agent:embedded", "--namespace", SYSTEM, "--name=operator-1"])
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("no log")?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// For its owner's eyes only.
fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    let open = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path);
    open.and_then(|mut f| f.write_all(content.as_bytes())).with_context(|| format!("cannot write {}", path.display()))
}

/// What is in every cluster.
fn first_objects(server: &Server, authority: &str, nodes: u32) -> anyhow::Result<()> {
    let mut objects = vec![];
    for name in ["default", "kube-system", "kube-public", "kube-node-lease", SYSTEM] {
        let labels = json!({ "kubernetes.io/metadata.name": name });
        objects
            .push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }));
        objects.push(json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "ca.crt": authority },
            "metadata": { "name": "kube-root-ca.crt", "namespace": name } }));
        objects.push(json!({ "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": "default", "namespace": name } }));
    }
    objects.push(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "embedded",
        "metadata": { "name": STORAGE_CLASS, "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "allowVolumeExpansion": true, "volumeBindingMode": "Immediate",
    }));
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kubernetes", "namespace": "default" },
        "spec": { "clusterIP": network::API.to_string(), "ports": [{ "name": "https", "port": network::API_PORT }] },
    }));
    for n in 1..=nodes {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": format!("n{n}"), "labels": { "kubernetes.io/hostname": format!("n{n}") } },
        }));
    }
    for object in objects {
        put(server, &object, "kube-apiserver")?;
    }
    Ok(())
}

/// Applies the documents of a YAML file.
///
/// # Errors
/// When it cannot be read, or is refused.
pub fn apply(server: &Server, file: &Path) -> anyhow::Result<()> {
    let content = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    for document in serde_yaml::Deserializer::from_str(&content) {
        let object = Value::deserialize(document).with_context(|| format!("{} is no YAML", file.display()))?;
        if !object.is_null() {
            put(server, &object, "pgconvoy-embedded").with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

fn put(server: &Server, object: &Value, manager: &str) -> anyhow::Result<()> {
    let (version, kind_name) = (text(object, "/apiVersion"), text(object, "/kind"));
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let name = text(object, "/metadata/name");
    let namespace = Some(text(object, "/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or("default");
    let options = WriteOptions { manager: manager.to_owned(), force: true, ..WriteOptions::default() };
    let done = server.with(|api| {
        let kind =
            api.kinds().iter().find(|k| k.group == group && k.version == version && k.kind == kind_name).cloned();
        let kind = kind.with_context(|| format!("{kind_name} of {group}/{version} is not served"))?;
        let namespace = if kind.namespaced { namespace } else { "" };
        let wrote = api.patch(&kind, namespace, name, "", (PatchKind::Apply, object), &options);
        wrote.map_err(|r| anyhow::anyhow!("{}", r.message))
    });
    done.map(|_| ()).with_context(|| format!("{kind_name} {name}"))
}
