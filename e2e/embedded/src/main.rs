//! A cluster in one program.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pgconvoy_embedded::machine::outside::{Cluster, Options};
use pgconvoy_embedded::machine::{self, Keys, Word};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// Runs pgconvoy on this machine: an API server, and pods as processes. Needs no cluster, no images and no root.
#[derive(Debug, Parser)]
#[command(name = "pgconvoy-embedded", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a cluster. It goes when this program does.
    Up(Up),
    /// Give the tour of `./quickstart`: a replica set that loses a follower and its leader.
    #[command(override_usage = "./quickstart [--on embedded|current|kcluster] [OPTIONS]")]
    Tour(pgconvoy_embedded::tour::Tour),
    #[command(hide = true)]
    Enter,
    #[command(hide = true)]
    Inside,
    #[command(hide = true)]
    Sandbox { host: String, address: Ipv4Addr },
    #[command(hide = true)]
    Shim { spec: PathBuf },
    #[command(hide = true)]
    First { spec: PathBuf },
    #[command(hide = true)]
    Janitor { directory: PathBuf },
}

#[derive(Debug, clap::Args)]
struct Up {
    /// Apply these files first: the custom resources, for example.
    #[arg(long)]
    apply: Vec<PathBuf>,
    /// Do not start the operator.
    #[arg(long)]
    no_operator: bool,
    /// The directory of PostgreSQL's programs. Default: the newest of the machine.
    #[arg(long)]
    postgres: Option<PathBuf>,
    /// The directory of pgconvoy's programs. Default: this program's own.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where the cluster's directory is made. Default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Port of the API server. Default: any.
    #[arg(long, default_value = "0")]
    port: u16,
    /// Start containers again at once, however often they end, instead of after pauses that grow.
    #[arg(long)]
    impatient: bool,
    /// With an S3 server in the cluster, and a PgArchive named `store` in the namespace `default` that leads to it. Its objects are
    /// files in `store/backups/` of the cluster's directory. The custom resources must be among what is applied.
    #[arg(long)]
    store: bool,
    /// A program to run with KUBECONFIG set; the cluster goes when it ends, with its exit status. Default: wait for Ctrl-C.
    #[arg(last = true)]
    run: Vec<String>,
}

fn main() -> ExitCode {
    // The namespaces are made by processes with one thread, so there is no runtime yet.
    let action = Cli::parse().command;
    let name = if matches!(action, Action::Tour(_)) { "./quickstart" } else { "pgconvoy-embedded" };
    let result = match action {
        Action::Up(up) => with_runtime(run(&up)),
        Action::Tour(tour) => with_runtime(async { Ok(ExitCode::from(pgconvoy_embedded::tour::run(tour).await?)) }),
        Action::Janitor { directory } => machine::janitor::work(&directory).map(|()| ExitCode::SUCCESS),
        Action::Enter => machine::enter(),
        Action::Inside => {
            log();
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            pgconvoy_embedded::cluster::inside().map(|()| ExitCode::SUCCESS)
        }
        Action::Sandbox { host, address } => machine::sandbox::hold(&host, address).map(|()| ExitCode::SUCCESS),
        Action::Shim { spec } => machine::container::shim(&spec),
        Action::First { spec } => machine::container::first(&spec).map(|never| match never {}),
    };
    result.unwrap_or_else(|error| {
        eprintln!("\n{name}: {error:#}");
        ExitCode::FAILURE
    })
}

fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn with_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(work)
}

async fn run(up: &Up) -> anyhow::Result<ExitCode> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut cluster = Cluster::start(&Options {
        parent: up.directory.clone(),
        programs: up.programs.clone(),
        postgres: up.postgres.clone(),
        own: None,
        api_port: up.port,
        no_operator: up.no_operator,
        apply: up.apply.clone(),
        store: up.store.then(|| Keys::new("store")),
        lead_to_store: up.store,
        impatient: up.impatient,
    })?;
    let mut command: Option<tokio::process::Child> = None;
    let code = loop {
        let ended = async {
            match &mut command {
                Some(child) => child.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            word = cluster.word() => match word? {
                None => anyhow::bail!("the cluster ended"),
                Some(Word::Ready) => {
                    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
                    if let Some((program, arguments)) = up.run.split_first() {
                        let mut run = Command::new(program);
                        run.args(arguments).env("KUBECONFIG", cluster.kubeconfig());
                        let mut run = tokio::process::Command::from(run);
                        command = Some(run.kill_on_drop(true).spawn().with_context(|| format!("cannot run {program}"))?);
                    }
                }
                Some(Word::Listen { at, what, .. }) => println!("{what} at {at}"),
                Some(Word::Say(text)) => println!("{text}"),
                Some(Word::Failed(why)) => anyhow::bail!("{why}"),
            },
            status = ended => break status.ok().and_then(|s| s.code()).unwrap_or(1),
            _ = term.recv() => break 0,
            _ = interrupt.recv() => break 0,
        }
    };
    cluster.end().await?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
