//! pgconvoy's snapshots, with the agent's settings.

use super::ship::dir;
use crate::{
    gateway::store,
    process::{Cost, measured},
    server::streaming,
};
use anyhow::{Context, Result};
use pgconvoy_archive::snapshot::{Options, RestoreOptions, list, read_manifest, restore, take};
use pgconvoy_archive::store::{Store, walk};
use pgconvoy_terms::SystemId;
use pgconvoy_wire::Client;
use std::{fs, path::PathBuf, sync::Arc};

#[derive(clap::Args)]
pub(crate) struct Snapshot {
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    port: u16,
}

impl Snapshot {
    pub(crate) async fn run(self) -> Result<Cost> {
        let store = Arc::new(store(&self.prefix).await?);
        let config = streaming(&self.socket, self.port);
        let dir = dir(&mut Client::connect(&config).await?).await?;
        let options =
            Options { part_size: 1 << 30, parallel: 2, time: "2026-01-01T00:00:00Z".into(), pace: Arc::default() };
        measured(async {
            let data = self.socket.join("data");
            let manifest = take(store, &dir, &"bench".parse()?, &data, &config, &options).await?;
            Ok(manifest.parts.iter().map(|p| p.unpacked).sum())
        })
        .await
    }
}

#[derive(clap::Args)]
pub(crate) struct Restore {
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    into: PathBuf,
}

impl Restore {
    pub(crate) async fn run(self) -> Result<Cost> {
        let store = Arc::new(store(&self.prefix).await?);
        let mut systems: Vec<SystemId> = Vec::new();
        walk(&*store, "", None, true, |page| {
            systems.extend(page.folders.iter().filter_map(|f| f.trim_end_matches('/').parse::<SystemId>().ok()));
            true
        })
        .await?;
        let system = *systems.first().context("there is no archive")?;
        let id = list(&*store, system).await?.into_iter().next().context("there is no snapshot")?;
        let manifest = read_manifest(&*store, system, &id).await?.context("it has no manifest")?;
        fs::create_dir_all(&self.into)?;
        measured(async {
            let options = RestoreOptions { parallel: 2, ..RestoreOptions::default() };
            restore(store as Arc<dyn Store>, system, &id, &manifest, &self.into, &options).await?;
            Ok(manifest.parts.iter().map(|p| p.unpacked).sum())
        })
        .await
    }
}
