//! The tour that `./quickstart` gives: a cluster on this machine, a replica set on it, and what becomes of that set when a
//! member is lost.

mod archive;
mod client;
mod farewell;
mod machine;
mod packages;
mod sql;
mod steps;
mod view;
mod writer;

use crate::machine::outside::{Cluster, Options};
use crate::machine::{Keys, Word};
use crate::postgres::Found;
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long the cluster may take to come up.
const UP: Duration = Duration::from_secs(60);

/// How the tour is made.
#[derive(Debug, Clone, clap::Args)]
pub struct Tour {
    /// End after the tour instead of leaving the cluster to you until Ctrl-C.
    #[arg(long)]
    pub once: bool,
    /// The directory of PostgreSQL's programs, or the word `download`: take it from your distribution's packages, without
    /// installing them. Default: the newest of this machine; if there is none, `download`.
    #[arg(long)]
    pub postgres: Option<String>,
    /// Port of the API server. Default: any.
    #[arg(long, default_value = "0")]
    pub port: u16,
    /// The clone of the repository, which has the custom resources and examples.
    #[arg(long, default_value = ".", hide = true)]
    pub root: PathBuf,
    /// The directory of pgconvoy's programs. Default: this program's own.
    #[arg(long, hide = true)]
    pub programs: Option<PathBuf>,
}

/// What the steps of the tour know.
struct Context {
    tour: Tour,
    /// To the cluster's object store.
    keys: Keys,
    postgres: Found,
    kubeconfig: PathBuf,
    directory: PathBuf,
    /// The addresses of Services on this machine, by `namespace/name`.
    addresses: watch::Receiver<BTreeMap<String, SocketAddr>>,
}

/// Gives the tour; the exit status.
///
/// # Errors
/// What is in the way, and what to do about it.
pub async fn run(tour: Tour) -> anyhow::Result<u8> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stopped =
        async move || tokio::select! { _ = term.recv() => 143, _ = interrupt.recv() => 130, _ = hangup.recv() => 129 };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let place = std::env::temp_dir();
    let postgres = tokio::select! {
        found = prepare(&tour, &place) => found?,
        code = stopped() => return Ok(code),
    };
    steps::title("1. A cluster on this machine: API server and kubelet in one program, pods as processes");
    println!("  PostgreSQL {} of {} stands for the image in the example.", postgres.version, postgres.bin.display());
    let begun = Instant::now();
    let keys = Keys::new("quickstart");
    let mut cluster = Cluster::start(&Options {
        parent: Some(place.clone()),
        programs: tour.programs.clone(),
        postgres: Some(postgres.bin.clone()),
        own: None,
        api_port: tour.port,
        no_operator: false,
        apply: machine::custom_resources(&tour.root)?,
        store: Some(keys.clone()),
        lead_to_store: false,
        impatient: false,
    })?;
    let (sender, addresses) = watch::channel(BTreeMap::new());
    let context = Context {
        tour,
        keys,
        postgres,
        kubeconfig: cluster.kubeconfig(),
        directory: cluster.directory().to_path_buf(),
        addresses,
    };
    let (up, mut ready) = watch::channel(false);
    let steps = async {
        match tokio::time::timeout(UP, ready.wait_for(|r| *r)).await {
            Ok(Ok(_)) => println!("  Up after {:.1} s.", begun.elapsed().as_secs_f64()),
            _ => bail!("the cluster is not up after {} s; this machine is too busy", UP.as_secs()),
        }
        steps::all(&context).await
    };
    let mut steps = std::pin::pin!(steps);
    let outcome = loop {
        tokio::select! {
            word = cluster.word() => match word {
                Ok(Some(Word::Ready)) => drop(up.send(true)),
                Ok(Some(Word::Listen { at, what, .. })) => sender.send_modify(|known| _ = known.insert(what, at)),
                Ok(Some(Word::Say(text))) => println!("  {text}"),
                Ok(Some(Word::Failed(why))) => break Err(anyhow::anyhow!("{why}")),
                Ok(None) => break Err(anyhow::anyhow!("the cluster ended")),
                Err(error) => break Err(error),
            },
            done = &mut steps => break done.map(|()| 0),
            code = stopped() => {
                println!();
                // Whoever was left alone with the cluster ends it so.
                break Ok(if steps::over() && code == 130 { 0 } else { code });
            }
        }
    };
    let outcome = outcome.map_err(|e| machine::explain(e, &place));
    steps::title("Taking the cluster away");
    let directory = context.directory.clone();
    cluster.end().await.context("the cluster's end")?;
    println!("  Gone: its processes, its addresses and {}.", directory.display());
    outcome
}

/// Whether this machine can do it, and with which PostgreSQL.
async fn prepare(tour: &Tour, place: &std::path::Path) -> anyhow::Result<Found> {
    machine::check(place)?;
    let cache = machine::cache();
    let found = match tour.postgres.as_deref() {
        Some("download") => packages::download(&cache).await?,
        Some(bin) => Found::at(bin.as_ref()).map_err(|why| anyhow::anyhow!("{why}; 15 to 18 are what it takes"))?,
        None => match crate::postgres::find(&packages::kept(&cache)) {
            Ok(found) => found,
            Err(none) => {
                println!("{none}.");
                packages::download(&cache).await?
            }
        },
    };
    if nix::unistd::Uid::effective().is_root()
        && let Err(closed) = found.for_everybody()
    {
        bail!(
            "PostgreSQL never runs as root, and the user that it would run as cannot enter {}, where its programs are ({}). \
             Name another installation with --postgres DIRECTORY, or run this as a user that is not root",
            closed.display(),
            found.bin.display()
        );
    }
    Ok(found)
}
