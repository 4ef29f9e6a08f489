//! What the operator's program costs with many sets: memory, traffic at rest, how fast a change reaches pods, how fast a new
//! process has seen to everything. Pods and members are faked by their status. `./bench operator` runs it.

mod bed;
mod embedded;
mod kubernetes;
mod mirror;

use anyhow::{Context as _, bail};
use bed::{Bed, SETS};
use clap::Parser;
use embedded::Embedded;
use kubernetes::Kubernetes;
use pgconvoy_crds::names::{LABEL_PULLS_FOR, LABEL_SET};
use pgconvoy_embedded::api::text;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Sets in one namespace.
const IN_ONE: usize = 10;
/// The longest that anything may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Where the operators' Lease is.
const OPERATOR_NAMESPACE: &str = "pgconvoy-system";
/// What a change asks for.
const CHANGED: &str = "docker.io/library/postgres:17.7";

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
    /// Of an API server that knows the custom resources, where nobody runs pods. Default: the embedded one.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

struct Operator(Child);

impl Operator {
    fn start(cli: &Cli, kubeconfig: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(&cli.operator);
        command.args(["run", "--agent-image=agent:1", "--http=127.0.0.1:0", "--namespace", OPERATOR_NAMESPACE]);
        command
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        Ok(Self(command.spawn().with_context(|| format!("cannot start {}", cli.operator.display()))?))
    }

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

/// The set that a pod, a claim or a term is of.
fn set_of(object: &Value) -> String {
    let labels = object.pointer("/metadata/labels");
    let set = labels.and_then(|l| l.get(LABEL_SET).or_else(|| l.get(LABEL_PULLS_FOR)));
    set.and_then(Value::as_str).unwrap_or_else(|| text(object, "/metadata/name")).to_owned()
}

fn yaml_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    Ok(entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect())
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
        let on = if cli.kubeconfig.is_some() { "cluster" } else { "embedded" };
        println!(
            "{}",
            json!({ "figure": format!("operator.{name}"), "p50": p50, "p99": p99, "max": max, "runs": v.len(), "load": load, "sets": cli.sets, "on": on })
        );
    } else {
        println!(
            "{:<40} p50 {p50:<10.3} p99 {p99:<10.3} max {max:<10.3} runs {} load {load}",
            format!("operator.{name}"),
            v.len()
        );
    }
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

fn ready(bed: &dyn Bed, (namespace, name): &(String, String)) -> bool {
    bed.get(SETS, namespace, name).is_some_and(|s| {
        let conditions = s.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let mut conditions = conditions.filter(|c| c["type"] == "Ready" && c["status"] == "True");
        conditions.any(|c| c["observedGeneration"] == s["metadata"]["generation"])
    })
}

/// Until every set is so.
fn all(cli: &Cli, what: &str, every: Duration, is: impl Fn(&(String, String)) -> bool) -> anyhow::Result<Duration> {
    // A set that was so once is not looked at again.
    let mut left: Vec<_> = (0..cli.sets).map(place).collect();
    wait(what, every, || {
        left.retain(|p| !is(p));
        left.is_empty()
    })
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match &cli.kubeconfig {
        None => measure(&cli, &Embedded::new(&cli.crds)?),
        Some(kubeconfig) => measure(&cli, &Kubernetes::new(kubeconfig, &cli.crds)?),
    }
}

fn measure(cli: &Cli, bed: &dyn Bed) -> anyhow::Result<()> {
    bed.create("namespaces", "", json!({ "metadata": { "name": OPERATOR_NAMESPACE } }))?;
    for n in 0..cli.sets {
        let (namespace, name) = place(n);
        if n % IN_ONE == 0 {
            bed.create("namespaces", "", json!({ "metadata": { "name": namespace } }))?;
        }
        let spec = json!({ "image": "docker.io/library/postgres:17", "members": 3, "storage": { "size": "1Gi" } });
        bed.create(SETS, &namespace, json!({ "metadata": { "name": name }, "spec": spec }))?;
    }
    let operator = Operator::start(cli, bed.kubeconfig())?;
    let made = all(cli, "all sets are Ready", Duration::from_millis(500), |p| ready(bed, p))?;
    figure(cli, "all_sets_made_s", &[made.as_secs_f64()]);
    std::thread::sleep(Duration::from_secs(10));

    let rest = Duration::from_secs(cli.rest);
    let at_rest = bed.rest(rest)?;
    figure(cli, "idle_objects_changed", &[at_rest.written as f64]);
    figure(cli, "rss_mb", &[operator.memory("VmRSS")?]);
    changes(cli, bed)?;

    drop(operator);
    // What others do goes on without it.
    let (requests, watches) = if bed.has_others() {
        std::thread::sleep(Duration::from_secs(10));
        let others = bed.rest(rest)?;
        (at_rest.requests - others.requests, at_rest.watches - others.watches)
    } else {
        (at_rest.requests, at_rest.watches)
    };
    figure(cli, "idle_requests_per_s", &[requests]);
    figure(cli, "watches", &[watches]);
    restart(cli, bed)
}

/// From a change of a spec until the first pod is made by it.
fn changes(cli: &Cli, bed: &dyn Bed) -> anyhow::Result<()> {
    let mut first = vec![];
    let step = (cli.sets / cli.changes.max(1)).max(1);
    for n in (0..cli.sets).step_by(step).take(cli.changes) {
        let (namespace, name) = place(n);
        let (begun, prefix) = (Instant::now(), format!("{name}-"));
        bed.change(&namespace, &name, json!({ "image": CHANGED }))?;
        let new = |p: &Value| {
            text(p, "/metadata/name").starts_with(&prefix) && text(p, "/spec/containers/0/image") == CHANGED
        };
        wait("a pod has the new image", Duration::from_millis(5), || bed.pods(&namespace).iter().any(|p| new(p)))?;
        first.push(begun.elapsed().as_secs_f64());
    }
    figure(cli, "spec_change_in_pod_s", &first);
    all(cli, "all sets are Ready", Duration::from_millis(500), |p| ready(bed, p))?;
    Ok(())
}

/// Every set is changed while no operator is there; then one comes.
fn restart(cli: &Cli, bed: &dyn Bed) -> anyhow::Result<()> {
    for n in 0..cli.sets {
        let (namespace, name) = place(n);
        bed.change(&namespace, &name, json!({ "services": { "rw": { "annotations": { "while": "down" } } } }))?;
    }
    bed.free_lease()?;
    let operator = Operator::start(cli, bed.kubeconfig())?;
    let seen_to = |(namespace, name): &(String, String)| {
        let service = bed.get("services", namespace, &format!("{name}-rw"));
        service.is_some_and(|s| text(&s, "/metadata/annotations/while") == "down")
    };
    let again = all(cli, "all sets are reconciled", Duration::from_millis(200), seen_to)?;
    figure(cli, "restart_to_all_reconciled_s", &[again.as_secs_f64()]);
    figure(cli, "rss_after_restart_mb", &[operator.memory("VmRSS")?]);
    figure(cli, "rss_peak_mb", &[operator.memory("VmHWM")?]);
    Ok(())
}
