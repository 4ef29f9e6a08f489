//! Figures of the archive. `./bench archive` builds this and runs it.

mod figure;
mod gateway;
mod parts;
mod peers;
mod process;
mod server;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(version, about = "Figures of pgconvoy's archive")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All figures, or those of one part.
    Archive(Options),
    /// One contender at work, in a process of its own.
    #[command(subcommand, hide = true)]
    Work(work::Work),
}

/// What is measured, and with what.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each contender runs.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// WAL that is written, in MiB; the data are a little less.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Only this part.
    #[arg(long, value_enum)]
    part: Option<parts::Part>,
    /// The program versitygw, an S3 server.
    #[arg(long)]
    versitygw: PathBuf,
    /// The program pgbackrest; none: it does not take part.
    #[arg(long)]
    pgbackrest: Option<PathBuf>,
    /// Where barman's programs are; none: it does not take part.
    #[arg(long)]
    barman: Option<PathBuf>,
    /// The directory of PostgreSQL's programs; default: the newest in /usr/lib/postgresql.
    #[arg(long)]
    postgres: Option<PathBuf>,
    /// Where data and objects lie meanwhile; about six times `--size` are needed.
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
}

fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // As the agent has it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match Arguments::parse().command {
        Command::Archive(options) => runtime.block_on(Box::pin(parts::run(&options))),
        Command::Work(work) => runtime.block_on(Box::pin(work.run())),
    }
}
