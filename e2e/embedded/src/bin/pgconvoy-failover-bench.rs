//! `./bench failover --on embedded`: how long clients wait, here and with Patroni.

use anyhow::Context as _;
use clap::Parser;
use pgconvoy_embedded::failover::embedded::Embedded;
use pgconvoy_embedded::failover::measure::{Event, Outage, System, figures, measure};
use pgconvoy_embedded::failover::patroni::{Patroni, Programs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Measures failovers under two clients that begin a write every 10 ms.
#[derive(Debug, Parser)]
struct Cli {
    /// The clone of the repository.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// So often each event.
    #[arg(long, default_value = "3")]
    runs: usize,
    /// Only these events.
    #[arg(long)]
    event: Vec<String>,
    /// An object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Where pgconvoy's programs are. Default: beside this one.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// The profile that they were built with.
    #[arg(long, default_value = "dev")]
    profile: String,
    /// What `pip install --target` made of patroni[etcd3]; without it there is no peer.
    #[arg(long, requires = "etcd")]
    patroni: Option<PathBuf>,
    /// The interpreter for it.
    #[arg(long, default_value = "/usr/bin/python3")]
    python: PathBuf,
    /// The program etcd.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Only these of `pgconvoy`, `tuned` and `default`, the two settings of the peer.
    #[arg(long)]
    only: Vec<String>,
    /// Milliseconds between two writes in new connections. Unoptimised programs on a busy machine do not manage 10.
    #[arg(long, default_value = "10")]
    new_every: u64,
}

/// How long an event lasts before it is undone.
fn hold(event: Event) -> Duration {
    Duration::from_secs(match event {
        Event::ApiCut | Event::ApiDown => 20,
        Event::Freeze | Event::NodeCut | Event::Partition => 8,
        _ => 4,
    })
}

type Results = BTreeMap<Event, Vec<Outage>>;

async fn all<S: System>(system: &mut S, of: &str, events: &[Event], cli: &Cli) -> Results {
    let (runs, anew) = (cli.runs, Duration::from_millis(cli.new_every));
    let mut results = Results::new();
    let known: Vec<&Event> = events.iter().filter(|e| system.knows(**e)).collect();
    for event in known {
        for run in 1..=runs {
            match measure(system, *event, hold(*event), anew).await {
                Ok(outage) => {
                    eprintln!("{of}: {} {run}/{runs}: {outage:?}", event.name());
                    results.entry(*event).or_default().push(outage);
                }
                // Said, and missing in the number of runs.
                Err(error) => eprintln!("{of}: {} {run}/{runs}: not measured: {error:#}", event.name()),
            }
        }
    }
    results
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|w| w.parse().ok()).unwrap_or_default()
}

fn print(cli: &Cli, figure: &str, value: &Value) {
    if cli.json {
        let mut line = json!({ "figure": figure, "on": "embedded", "profile": cli.profile, "load": load(), "new_every_ms": cli.new_every });
        if let (Some(line), Some(value)) = (line.as_object_mut(), value.as_object()) {
            line.extend(value.clone());
        }
        println!("{line}");
    } else {
        println!("{figure:40} {value}");
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let mut events = vec![];
    for event in Event::ALL {
        if cli.event.is_empty() || cli.event.iter().any(|e| e == event.name()) {
            events.push(event);
        }
    }
    let wanted = |what: &str| cli.only.is_empty() || cli.only.iter().any(|only| only == what);
    let mut ours = Results::new();
    if wanted("pgconvoy") {
        let mut embedded = Embedded::start(&cli.root, cli.programs.as_deref()).await?;
        ours = all(&mut embedded, "pgconvoy", &events, cli).await;
    }
    let mut peers: BTreeMap<&str, Results> = BTreeMap::new();
    if let (Some(patroni), Some(etcd)) = (&cli.patroni, &cli.etcd) {
        let postgres = pgconvoy_embedded::postgres::find(&[])?.bin;
        let programs = Programs { patroni: patroni.clone(), python: cli.python.clone(), etcd: etcd.clone(), postgres };
        for (name, tuned) in [("tuned", true), ("default", false)] {
            if wanted(name) {
                let mut patroni = Patroni::start(&programs, tuned).await.context("Patroni cannot be started")?;
                peers.insert(name, all(&mut patroni, &format!("Patroni, {name}"), &events, cli).await);
            }
        }
    }
    for event in events {
        let mut value = ours.get(&event).map_or_else(|| json!({ "runs": 0 }), |o| figures(o));
        let peer: BTreeMap<&str, Value> =
            peers.iter().filter_map(|(name, results)| Some((*name, figures(results.get(&event)?)))).collect();
        if !peer.is_empty() {
            value["peer"] = json!({ "patroni": peer });
        }
        print(cli, &format!("failover.{}.outage_s", event.name()), &value);
    }
    let every: Vec<&Outage> = ours.values().flatten().collect();
    let sums = [
        ("acknowledged_lost", every.iter().map(|o| o.lost).sum::<usize>()),
        ("dual_acknowledgements", every.iter().map(|o| o.dual).sum()),
        ("unplanned_epochs", every.iter().map(|o| o.unplanned as usize).sum()),
    ];
    for (name, sum) in sums {
        print(cli, &format!("failover.{name}"), &json!({ "value": sum, "runs": every.len() }));
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(&cli))
}
