//! `kubectl pgconvoy`: how a replica set stands (`status`), a session in its database (`psql`), what its members say
//! (`logs`), who leads and why (`why`), another leader for it (`switchover`, `takeover`), what its members agreed on (`term`).
//!
//! It reads; what it writes are PgRequests and PgSnapshots. What it shows is made by pure functions from the objects of a set
//! (`status::model`, `logs::order`, `logs::line`); around them is little more than asking and printing. `docs/plugin.md`
//! is its page.

#![forbid(unsafe_code)]

mod access;
mod archive;
mod archive_args;
mod backup;
mod cli;
mod kubectl;
mod logs;
mod objects;
mod problem;
mod psql;
mod request;
mod status;
mod term;
mod why;
mod words;

pub use cli::Cli;

use cli::{Command, TermCommand};
use problem::Problem;
use std::io::Write;
use std::process::ExitCode;

/// Exit status when something could not be done; 1 says "not Ready" and nothing else.
const FAILED: u8 = 2;

/// Does what the command line asks. Errors go to stderr as a sentence, with exit status 2.
pub fn run(cli: Cli) -> ExitCode {
    // Two crypto providers in one process would panic at the first connection; a second install is only refused.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let outcome =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Problem::Runtime).and_then(
            |runtime| {
                let outcome = runtime.block_on(ask(cli));
                // A log stream in the middle of a read must not hold up the end.
                runtime.shutdown_background();
                outcome
            },
        );
    match outcome {
        Ok(code) => code,
        // Who closed the pipe (`| head`) has seen enough.
        Err(Problem::Print(why)) if why.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(problem) => {
            // With stderr gone as well nobody is left to be told.
            drop(writeln!(std::io::stderr(), "error: {}", words::clean(&problem.to_string())));
            ExitCode::from(FAILED)
        }
    }
}

async fn ask(cli: Cli) -> Result<ExitCode, Problem> {
    let access = access::Access::new(&cli.reach).await?;
    match cli.command {
        Command::Status(args) => status::run(&access, &args).await,
        Command::Psql(args) => psql::run(&access, &args).await,
        Command::Logs(args) => logs::run(&access, &args).await,
        Command::Why(args) => why::run(&access, &args).await,
        Command::Switchover(args) => request::switchover(&access, &args).await,
        Command::Takeover(args) => request::takeover(&access, &args).await,
        Command::Backup(args) => backup::backup(&access, &args).await,
        Command::Restore(args) => backup::restore(&access, &args).await,
        Command::Archive(args) => archive::run(&access, &args).await,
        Command::Term(TermCommand::Show(args)) => term::show(&access, &args).await,
        Command::Term(TermCommand::Repair(args)) => request::repair(&access, &args).await,
    }
}
