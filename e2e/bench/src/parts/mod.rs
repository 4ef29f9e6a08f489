//! What is measured.

mod bed;
mod durable;
mod idle;
mod leader;
mod push;
mod replay;
mod seen;
mod segments;
mod snapshot;

use crate::{Options, figure::Printer};
use anyhow::Result;
use bed::Bed;

/// A part of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// A backlog of WAL into the store.
    WalPush,
    /// A data directory into the store, and back.
    Snapshot,
    /// WAL through restore_command.
    Replay,
    /// From a commit until it is in the store.
    Durable,
    /// What archiving costs the server's clients.
    Leader,
    /// Memory with segments of 1 GiB.
    Segments,
    /// Requests while nothing happens.
    Idle,
}

/// All of them, or one.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let printer = Printer { json: options.json };
    let wanted = |part: Part| options.part.is_none_or(|p| p == part);
    let mut bed = Bed::new(options)?;
    if wanted(Part::WalPush) {
        push::run(&mut bed, printer).await?;
    }
    if wanted(Part::Replay) {
        replay::run(&mut bed, printer).await?;
    }
    if wanted(Part::Snapshot) {
        snapshot::run(&mut bed, printer).await?;
    }
    bed.end_filled();
    if wanted(Part::Durable) {
        durable::run(&bed, printer).await?;
    }
    if wanted(Part::Leader) {
        leader::run(&bed, printer).await?;
    }
    if wanted(Part::Segments) {
        segments::run(&bed, printer).await?;
    }
    if wanted(Part::Idle) {
        idle::run(&bed, printer).await?;
    }
    Ok(())
}
