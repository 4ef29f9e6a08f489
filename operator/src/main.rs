//! The operator's process.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    pgconvoy_operator::run::run(pgconvoy_operator::run::Cli::parse())
}
