//! The operator's process.

use clap::Parser;

fn main() -> std::process::ExitCode {
    pgconvoy_operator::run::run(pgconvoy_operator::run::Cli::parse())
}
