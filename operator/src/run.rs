//! Wiring: command line, clients, watches, election, controller.

use crate::election::Election;
use crate::http::{Pages, serve};
use crate::metrics::Metrics;
use crate::replica_set::{Context, Retries, apply::Memo, error_policy, reconcile};
use crate::schedules::Scheduler;
use crate::world::{Dirty, Guarded, Index, Scope, Synced, watch_all};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Config as ControllerConfig, applier, controller};
use pgconvoy_crds::names::MANAGER_OPERATOR;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Threads. One is enough for the work; the second keeps renewing the lease while a long list is parsed. As many as the
/// machine has cores would cost memory on big machines.
const THREADS: usize = 2;
/// How many sets are reconciled at once.
const AT_ONCE: u16 = 16;
/// Changes of one set that come within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(30);
/// How often what is kept of deleted sets is thrown away.
const TIDY: Duration = Duration::from_secs(600);

/// The controller of pgconvoy's replica sets.
#[derive(Debug, Parser)]
#[command(name = "pgconvoy-operator", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller.
    Run(Run),
}

/// How to run.
#[derive(Debug, Args)]
pub struct Run {
    /// Image of the agents that run beside PostgreSQL.
    #[arg(long, env = "PGCONVOY_AGENT_IMAGE")]
    agent_image: String,
    /// Look after the sets of this namespace only. Default: of every namespace.
    #[arg(long, env = "PGCONVOY_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// How to write the log.
    #[arg(long, default_value = "json")]
    log: LogFormat,
    /// Namespace of the Lease by which one of several operators is elected.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Name of this process among them. Default: host name and process id.
    #[arg(long, env = "POD_NAME")]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Runs the operator until it is told to end, or must: a failure is one when it cannot start or no longer leads.
pub fn run(cli: Cli) -> ExitCode {
    let Command::Run(run) = cli.command;
    start_log(run.log);
    match run_to_the_end(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

fn run_to_the_end(run: Run) -> anyhow::Result<()> {
    // Two TLS providers in one process panic at first use: choose before anything is built.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("no runtime")?;
    let result = runtime.block_on(operate(run));
    // Requests that are still under way must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

fn start_log(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    // kube-runtime's spans repeat on every line what the line says itself.
    let quiet = "kube_runtime=warn";
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter =
        EnvFilter::try_new(format!("{quiet},{wanted}")).unwrap_or_else(|_| EnvFilter::new(format!("{quiet},info")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).with_current_span(false).init(),
        LogFormat::Text => builder.init(),
    }
}

async fn operate(run: Run) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("no signal handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;
    let config = kube::Config::infer().await.context("no way to the API server: neither a kubeconfig nor a pod")?;
    let client = crate::client::client(&config).context("no client for the API server")?;
    // Its own connection: a long list must not delay a renewal.
    let lease_client = crate::client::client(&config).context("no client for the API server")?;
    let me = run.name.clone().unwrap_or_else(default_name);
    let mut election = Election::new(lease_client, &run.namespace, &me);

    let result = tokio::select! {
        result = work(&run, &me, &client, &mut election) => result,
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    let told = Instant::now();
    election.release().await;
    if result.is_ok() {
        tracing::info!(took_ms = told.elapsed().as_millis(), "told to end; the lease is given back");
    }
    result
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

async fn work(run: &Run, me: &str, client: &kube::Client, election: &mut Election) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let (index, dirty, synced) = (Arc::new(Index::default()), Arc::new(Dirty::default()), Arc::new(Synced::default()));
    let scope = run.watch_namespace.clone().map_or(Scope::All, Scope::Namespace);
    let mut watches = JoinSet::new();
    let store = watch_all(client, &scope, &index, &dirty, &synced, &mut watches);
    let schedules = crate::schedules::watch(client, &scope, &mut watches);
    let pages = Pages { metrics: metrics.clone(), synced: synced.clone() };
    let mut server = tokio::spawn(serve(run.http, pages));

    tracing::info!(name = me, namespace = run.namespace, scope = ?scope, "standing for election");
    tokio::select! {
        () = election.acquire() => {}
        ended = &mut server => return Err(server_ended(ended)),
        ended = watches.join_next() => anyhow::bail!("a watch ended: {ended:?}"),
    }
    tracing::info!(name = me, "leading");
    metrics.leading(true);
    let reporter = Reporter { controller: MANAGER_OPERATOR.to_owned(), instance: Some(me.to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let scheduler = Scheduler {
        client: client.clone(),
        recorder: recorder.clone(),
        metrics: metrics.clone(),
        sets: store.clone(),
        known: schedules,
    };
    let context = Arc::new(Context {
        client: client.clone(),
        index,
        memo: Memo::default(),
        retries: Retries::default(),
        recorder,
        metrics,
        agent_image: run.agent_image.clone(),
    });
    tokio::select! {
        () = control(&store, &dirty, &synced, &context) => anyhow::bail!("the controller ended"),
        () = scheduler.run() => anyhow::bail!("the scheduler ended"),
        () = tidy(&store, &context) => anyhow::bail!("tidying ended"),
        lost = election.keep() => Err(lost.into()),
        ended = &mut server => Err(server_ended(ended)),
        ended = watches.join_next() => anyhow::bail!("a watch ended: {ended:?}"),
    }
}

fn server_ended(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("the HTTP server ended"),
        Ok(Err(e)) => anyhow::Error::new(e).context("cannot serve /healthz, /readyz and /metrics"),
        Err(e) => anyhow::Error::new(e).context("the HTTP server failed"),
    }
}

/// Reconciles whatever is marked.
async fn control(store: &Store<Guarded>, dirty: &Dirty, synced: &Synced, context: &Arc<Context>) {
    // A plan from half a world would make what is there already.
    while !synced.all() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for set in store.state() {
        dirty.mark(ObjectRef::from_obj(&*set));
    }
    let config = ControllerConfig::default().debounce(DEBOUNCE).concurrency(AT_ONCE);
    let reconcile = |set, context| Box::pin(reconcile(set, context));
    let results = applier(reconcile, error_policy, context.clone(), store.clone(), dirty.stream(), config);
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            // A set that was deleted while it was marked, and failures that `error_policy` has logged.
            Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
            Err(error) => tracing::error!(%error, "the controller's queue failed"),
        }
    }
}

/// Forgets what is kept of sets that are gone.
async fn tidy(store: &Store<Guarded>, context: &Context) {
    loop {
        let sets = store.state();
        context.metrics.sets(sets.len());
        let alive: HashSet<String> = sets.iter().filter_map(|s| s.uid()).collect();
        context.memo.retain(|uid| alive.contains(uid));
        context.retries.retain(|uid| alive.contains(uid));
        tokio::time::sleep(TIDY).await;
    }
}
