//! What the operator's program costs with many sets: memory, traffic at rest, how fast a change reaches pods, how fast a new
//! process has seen to everything. Pods and members are faked by their status. `./bench operator` runs it.

use anyhow::{Context as _, bail};
use clap::Parser;
use pgconvoy_e2e_reconcile::faked::Faked;
use pgconvoy_embedded::api::{Api, DeleteOptions, PatchKind, WriteOptions, text};
use pgconvoy_embedded::cluster::{Machine, apply};
use pgconvoy_embedded::http::{Authority, Server};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Sets in one namespace.
const IN_ONE: usize = 10;
/// The longest that anything may take.
const LIMIT: Duration = Duration::from_secs(900);

/// Figures of the operator with many sets.
#[derive(Debug, Parser)]
struct Cli {
    /// The operator's program.
    #[arg(long)]
    operator: PathBuf,
    /// Directory of the custom resources' definitions.
    #[arg(long)]
    crds: PathBuf,
    /// How many sets of three.
    #[arg(long, default_value_t = 1000)]
    sets: usize,
    /// How many changes of a spec are timed.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Seconds at rest.
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

struct Operator(Child);

impl Operator {
    /// A figure of its memory in MiB, by its name in `/proc`.
    fn memory(&self, name: &str) -> anyhow::Result<f64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).context("the operator is gone")?;
        let line = status.lines().find_map(|l| l.strip_prefix(name)).context("no such figure")?;
        Ok(line.trim_matches([':', ' ', '\t', 'k', 'B']).trim().parse::<f64>()? / 1024.0)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn place(n: usize) -> (String, String) {
    (format!("n{}", n / IN_ONE), format!("s{n}"))
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|l| l.parse().ok()).unwrap_or_default()
}

fn figure(cli: &Cli, name: &str, values: &[f64]) {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let at = |share: f64| {
        v.get(((v.len() as f64 * share).ceil() as usize).clamp(1, v.len().max(1)) - 1).copied().unwrap_or_default()
    };
    let (p50, p99, max, load) = (at(0.5), at(0.99), at(1.0), load());
    if cli.json {
        println!(
            "{}",
            json!({ "figure": format!("operator.{name}"), "p50": p50, "p99": p99, "max": max, "runs": v.len(), "load": load, "sets": cli.sets })
        );
    } else {
        println!(
            "{:<40} p50 {p50:<10.3} p99 {p99:<10.3} max {max:<10.3} runs {} load {load}",
            format!("operator.{name}"),
            v.len()
        );
    }
}

fn start(cli: &Cli, kubeconfig: &Path) -> anyhow::Result<Operator> {
    let mut command = Command::new(&cli.operator);
    command.args(["run", "--agent-image=agent:1", "--namespace=pgconvoy-system", "--http=127.0.0.1:0"]);
    command
        .env("KUBECONFIG", kubeconfig)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    Ok(Operator(command.spawn().with_context(|| format!("cannot start {}", cli.operator.display()))?))
}

fn create(server: &Server, stored: &str, namespace: &str, object: Value) -> anyhow::Result<()> {
    let done = server.with(|a| {
        let kind = a.kind_stored(stored).ok_or_else(|| format!("{stored} is not served"))?;
        a.create(&kind, namespace, object, &WriteOptions::default()).map_err(|r| r.message)
    });
    done.map(|_| ()).map_err(anyhow::Error::msg)
}

fn change(server: &Server, (namespace, name): &(String, String), spec: Value) -> anyhow::Result<()> {
    let body = json!({ "spec": spec });
    let done = server.with(|a| {
        let kind = a.kind_stored("pgreplicasets.pgconvoy.dev").ok_or("no sets")?;
        a.patch(&kind, namespace, name, "", (PatchKind::Merge, &body), &WriteOptions::default()).map_err(|_| "refused")
    });
    done.map(|_| ()).map_err(anyhow::Error::msg)
}

/// How many of so many sets are so.
fn count(server: &Server, sets: usize, stored: &str, is: impl Fn(&Api, &str, &str) -> bool) -> usize {
    server.with(|a| {
        let known = a.kind_stored(stored).is_some();
        (0..sets).map(place).filter(|(namespace, name)| known && is(a, namespace, name)).count()
    })
}

fn wait(what: &str, every: Duration, mut done: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > LIMIT {
            bail!("{what}: not within {} s", LIMIT.as_secs());
        }
        std::thread::sleep(every);
    }
    Ok(begun.elapsed())
}

fn ready(a: &Api, namespace: &str, name: &str) -> bool {
    let set = a.kind_stored("pgreplicasets.pgconvoy.dev").and_then(|k| a.get(&k, namespace, name).ok());
    set.is_some_and(|s| {
        let conditions = s.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    })
}

/// The kubelets and agents of every set, for ever.
fn live(server: &Server) {
    let Some(faked) = server.with(|a| Faked::new(a)) else { return };
    let mut seen = 0;
    loop {
        let (sets, now) = server.with(|a| {
            let now = a.revision();
            let of = |object: &Value, name: &str| {
                let labels = object.pointer("/metadata/labels");
                let set = labels.and_then(|l| l.get("pgconvoy.dev/set").or_else(|| l.get("pgconvoy.dev/pulls-for")));
                set.and_then(Value::as_str).map_or_else(|| name.to_owned(), str::to_owned)
            };
            let watched = ["pods", "persistentvolumeclaims", "pgterms.pgconvoy.dev", "pgreplicasets.pgconvoy.dev"];
            let changes = a.changes(seen).map(|c| {
                let own = c.filter(|c| watched.contains(&c.key.resource.as_str()));
                own.map(|c| (c.key.namespace.clone(), of(&c.object, &c.key.name))).collect::<BTreeSet<_>>()
            });
            // Two million changes are kept: more than there are between two looks.
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

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().context("no directory")?;
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

    create(&server, "namespaces", "", json!({ "metadata": { "name": "pgconvoy-system" } }))?;
    for entry in std::fs::read_dir(&cli.crds)?.flatten() {
        if entry.path().extension().is_some_and(|e| e == "yaml") {
            apply(&server, &entry.path())?;
        }
    }
    for n in 0..cli.sets {
        let (namespace, name) = place(n);
        if n % IN_ONE == 0 {
            create(&server, "namespaces", "", json!({ "metadata": { "name": namespace } }))?;
        }
        let spec = json!({ "image": "docker.io/library/postgres:17", "members": 3, "storage": { "size": "1Gi" } });
        let set = json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": name }, "spec": spec });
        create(&server, "pgreplicasets.pgconvoy.dev", &namespace, set)?;
    }
    let living = server.clone();
    std::thread::spawn(move || live(&living));
    let mut operator = start(&cli, &kubeconfig)?;
    let sets = "pgreplicasets.pgconvoy.dev";
    let made =
        wait("all sets are Ready", Duration::from_millis(500), || count(&server, cli.sets, sets, ready) == cli.sets)?;
    figure(&cli, "all_sets_made_s", &[made.as_secs_f64()]);
    std::thread::sleep(Duration::from_secs(10));

    let (requests, revision, begun) = (server.requests(), server.with(|a| a.revision()), Instant::now());
    std::thread::sleep(Duration::from_secs(cli.rest));
    let rest = begun.elapsed().as_secs_f64();
    figure(&cli, "idle_requests_per_s", &[(server.requests() - requests) as f64 / rest]);
    let own_lease = |c: &&pgconvoy_e2e_store::Change| c.key.resource != "leases.coordination.k8s.io";
    let changed = server.with(|a| a.changes(revision).map(|c| c.filter(own_lease).count()).unwrap_or(usize::MAX));
    figure(&cli, "idle_objects_changed", &[changed as f64]);
    figure(&cli, "watches", &[server.watches() as f64]);
    figure(&cli, "rss_mb", &[operator.memory("VmRSS")?]);

    let mut first = vec![];
    let step = (cli.sets / cli.changes.max(1)).max(1);
    for n in (0..cli.sets).step_by(step).take(cli.changes) {
        let at = place(n);
        change(&server, &at, json!({ "image": "docker.io/library/postgres:17.7" }))?;
        let new = |a: &Api, p: &(String, String)| {
            let pods = a.kind_stored("pods")?;
            let image =
                |p: &std::sync::Arc<Value>| text(p, "/spec/containers/0/image") == "docker.io/library/postgres:17.7";
            let prefix = format!("{}-", p.1);
            Some(a.stored(&pods, &p.0).any(|o| text(o, "/metadata/name").starts_with(&prefix) && image(o)))
        };
        let took =
            wait("a pod has the new image", Duration::from_millis(5), || server.with(|a| new(a, &at)) == Some(true))?;
        first.push(took.as_secs_f64());
    }
    figure(&cli, "spec_change_in_pod_s", &first);
    wait("all sets are Ready", Duration::from_millis(500), || count(&server, cli.sets, sets, ready) == cli.sets)?;

    drop(operator);
    for n in 0..cli.sets {
        change(&server, &place(n), json!({ "services": { "rw": { "annotations": { "while": "down" } } } }))?;
    }
    server.with(|a| {
        // Whoever was killed gives no lease back; waiting for its end is not what is measured.
        let lease = a.kind_stored("leases.coordination.k8s.io");
        lease.map(|k| a.delete(&k, "pgconvoy-system", "pgconvoy-operator", &DeleteOptions::default()).is_ok())
    });
    operator = start(&cli, &kubeconfig)?;
    let seen_to = |a: &Api, namespace: &str, name: &str| {
        let service = a.kind_stored("services").and_then(|k| a.get(&k, namespace, &format!("{name}-rw")).ok());
        service.is_some_and(|s| text(&s, "/metadata/annotations/while") == "down")
    };
    let again = wait("all sets are reconciled", Duration::from_millis(200), || {
        count(&server, cli.sets, sets, seen_to) == cli.sets
    })?;
    figure(&cli, "restart_to_all_reconciled_s", &[again.as_secs_f64()]);
    figure(&cli, "rss_after_restart_mb", &[operator.memory("VmRSS")?]);
    figure(&cli, "rss_peak_mb", &[operator.memory("VmHWM")?]);
    Ok(())
}
