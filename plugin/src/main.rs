//! `kubectl pgconvoy`: kubectl runs the program of this name that it finds in PATH.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_pgconvoy::run(kubectl_pgconvoy::Cli::parse())
}
