//! pgconvoy's shipping, with the agent's settings.

use crate::{
    gateway::store,
    process::{Cost, cpu_of, measured},
    server::{connect, streaming, value},
};
use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_gettime};
use pgconvoy_archive::{
    layout::{Claim, EpochDir},
    ship::{Options, Postgres, Progress, begin, ship},
};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, Lsn, MemberId, MemberName};
use pgconvoy_wire::Client;
use std::{io::Write, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};

/// As in the agent.
const MEMORY: usize = 16 << 20;
const ASK: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(crate) struct Ship {
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    port: u16,
    /// Where the claim begins.
    #[arg(long)]
    from: Lsn,
    #[arg(long)]
    segment_size: u64,
    /// It ends when so much is archived.
    #[arg(long)]
    until: Option<Lsn>,
    /// Or once this file is there.
    #[arg(long)]
    stop: Option<PathBuf>,
    /// Each progress goes there: nanoseconds of CLOCK_MONOTONIC, position, pieces so far.
    #[arg(long)]
    watch: Option<PathBuf>,
}

/// The epoch that all contenders of ours write and read.
pub(super) async fn dir(client: &mut Client) -> Result<EpochDir> {
    let system = client.identify_system().await?.system_id;
    Ok(EpochDir { system, epoch: Epoch { number: 1, id: ChangeId::from_random(1) } })
}

pub(crate) fn monotonic() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

impl Ship {
    pub(crate) async fn run(self) -> Result<Cost> {
        let store = Arc::new(store(&self.prefix).await?);
        let mut config = streaming(&self.socket, self.port);
        config.application_name = "pgconvoy_archive".into();
        config.parameters = vec![("wal_sender_timeout".into(), "60s".into())];
        let mut client = Client::connect(&config).await?;
        let dir = dir(&mut client).await?;
        client.close().await?;
        let claim = Claim {
            member: MemberId { name: MemberName::new("bench", 1), incarnation: Incarnation::from_random(1) },
            parent: None,
            start: self.from,
            segment_size: self.segment_size,
            time: "2026-01-01T00:00:00Z".into(),
        };
        let (safe_in, safe) = watch::channel(Lsn(0));
        let (progress_in, progress) = watch::channel(Progress::default());
        let mut walsender = 0.0;
        let mut cost = Box::pin(measured(async {
            let claim = begin(&*store, &dir, &claim, None).await?;
            let options = Options { memory: MEMORY, ..Options::new(dir.clone(), claim) };
            let timeline = options.dir.timeline();
            let idle_timeout = Duration::from_secs(60);
            let mut source = Postgres { config, timeline, slot: None, idle_timeout };
            let shipping = ship(&mut source, store.clone(), &options, safe, &progress_in);
            tokio::select! {
                ended = shipping => bail!("shipping ended: {ended:?}"),
                failed = self.ask(progress.clone(), safe_in) => failed?,
                failed = self.tell(progress.clone()) => failed?,
                done = self.done(progress.clone()) => walsender = done?,
            }
            Ok(progress.borrow().archived.bytes_since(self.from))
        }))
        .await?;
        cost.cpu += walsender;
        cost.walsender = walsender;
        Ok(cost)
    }

    /// As the agent asks: every 100 ms, while more has come than is known to be safe.
    async fn ask(&self, mut progress: watch::Receiver<Progress>, safe: watch::Sender<Lsn>) -> Result<()> {
        let mut sql = connect(&self.socket, self.port).await?;
        loop {
            let known = *safe.borrow();
            progress.wait_for(|p| p.received > known).await?;
            let flushed = value(&mut sql, "SELECT pg_current_wal_flush_lsn()").await?;
            safe.send_replace(flushed.parse().map_err(|_| anyhow::anyhow!("no position: {flushed:?}"))?);
            sleep(ASK).await;
        }
    }

    async fn tell(&self, mut progress: watch::Receiver<Progress>) -> Result<()> {
        let Some(path) = &self.watch else { return std::future::pending().await };
        let mut file = std::fs::File::create(path)?;
        let mut last = Lsn(0);
        loop {
            let (now, pieces) = {
                let p = progress.wait_for(|p| p.archived > last).await?;
                (p.archived, p.pieces + p.segments)
            };
            writeln!(file, "{} {now} {pieces}", monotonic()?)?;
            last = now;
        }
    }

    /// Waits for the end; the answer is the CPU of the server's sender, which is a part of shipping.
    async fn done(&self, mut progress: watch::Receiver<Progress>) -> Result<f64> {
        match (self.until, &self.stop) {
            (Some(until), _) => drop(progress.wait_for(|p| p.archived >= until).await?),
            (None, Some(stop)) => {
                while !stop.exists() {
                    sleep(Duration::from_millis(50)).await;
                }
            }
            (None, None) => bail!("it needs --until or --stop"),
        }
        let mut sql = connect(&self.socket, self.port).await?;
        let pid = "SELECT pid FROM pg_stat_replication WHERE application_name = 'pgconvoy_archive'";
        let pid = value(&mut sql, pid).await?;
        cpu_of(pid.parse().context("there is no sender of WAL")?)
    }
}
