//! pgconvoy answers restore_command, as the agent does during a restore.

use crate::gateway::store;
use crate::process::{Cost, cpu, peak_rss};
use crate::server::become_postgres;
use anyhow::{Result, anyhow};
use nix::sys::resource::UsageWho;
use pgconvoy_archive::fetch::{Chain, Exchange, Fetcher, Options};
use pgconvoy_terms::{ChangeId, Epoch, SystemId};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::sleep;

/// As in the agent.
const AHEAD: u64 = 64 << 20;

#[derive(clap::Args)]
pub(crate) struct Fetch {
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    system: String,
    /// Where PostgreSQL asks; on the volume of its data.
    #[arg(long)]
    exchange: PathBuf,
    /// It is told that it can begin by this file, and ends once another is there.
    #[arg(long)]
    ready: PathBuf,
    #[arg(long)]
    stop: PathBuf,
}

impl Fetch {
    pub(crate) async fn run(self) -> Result<Cost> {
        become_postgres()?;
        let store = Arc::new(store(&self.prefix).await?);
        let system: SystemId = self.system.parse().map_err(|_| anyhow!("no system: {}", self.system))?;
        let epoch = Epoch { number: 1, id: ChangeId::from_random(1) };
        let chain = Chain::to(&*store, system, &epoch).await?;
        let meeting = Exchange::prepare(&self.exchange)?;
        let options = Options { ahead: AHEAD, ..Options::new(self.exchange.join("ahead")) };
        let fetcher = Fetcher::new(store, chain, options)?;
        std::fs::write(&self.ready, "")?;
        tokio::select! {
            never = meeting.serve(&fetcher) => match never {},
            () = async { while !self.stop.exists() { sleep(Duration::from_millis(20)).await } } => {}
        }
        Ok(Cost { cpu: cpu(UsageWho::RUSAGE_SELF)?, rss: peak_rss()?, ..Cost::default() })
    }
}
