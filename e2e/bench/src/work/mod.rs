//! One contender at work, in a process of its own, so that its memory and CPU are its own.

mod children;
mod fetch;
mod limit;
mod ship;
mod snapshot;

pub(crate) use ship::monotonic;

use anyhow::Result;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum Work {
    /// pgconvoy ships WAL.
    Ship(ship::Ship),
    /// pgconvoy takes a snapshot.
    Snapshot(snapshot::Snapshot),
    /// pgconvoy restores a snapshot.
    Restore(snapshot::Restore),
    /// pgconvoy answers restore_command.
    Fetch(fetch::Fetch),
    /// What the machine can do: read, zstd, PUT.
    LimitPut(limit::Put),
    /// What the machine can do: GET, zstd, write.
    LimitGet(limit::Get),
    /// A program for each of some files, one after the other, as PostgreSQL's archiver does.
    Each(children::Each),
    /// A program.
    Once(children::Once),
}

impl Work {
    pub(crate) async fn run(self) -> Result<()> {
        let cost = match self {
            Self::Ship(work) => Box::pin(work.run()).await?,
            Self::Snapshot(work) => work.run().await?,
            Self::Restore(work) => work.run().await?,
            Self::Fetch(work) => work.run().await?,
            Self::LimitPut(work) => work.run().await?,
            Self::LimitGet(work) => work.run().await?,
            Self::Each(work) => work.run()?,
            Self::Once(work) => work.run()?,
        };
        println!("{}", serde_json::to_string(&cost)?);
        Ok(())
    }
}

/// Files named in a list, one a line: a command line is too short for them.
fn files(list: &PathBuf) -> Result<Vec<PathBuf>> {
    Ok(std::fs::read_to_string(list)?.lines().map(PathBuf::from).collect())
}
