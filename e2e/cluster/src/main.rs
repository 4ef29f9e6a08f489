//! `kcluster`: a real Kubernetes on this machine, by hand. The library has the same for tests.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kcluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
