//! PID 1 of the `postgres` container: starts, stops, reaps, and kills everything when the permission runs out.
//!
//! Two threads matter. The *dead-man* (`deadman`) holds the permission and nothing else: it allocates nothing after
//! start and waits for nobody. The *server* (`server`) is one `poll` loop over the socket, the signals and the tools'
//! pipes; nothing in it blocks, so a hung peer, disk or log reader hangs nobody else. A third thread writes the log, and a
//! fourth reads PostgreSQL's log and writes it as JSON.

mod connection;
mod deadman;
mod json;
mod launch;
mod lifecycle;
mod log;
mod namespace;
mod options;
mod postgres_log;
mod requests;
mod server;
mod sys;
mod tool;

use deadman::DeadMan;
use namespace::Namespace;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use options::{Command, Options};
use postgres_log::PostgresLog;
use std::{process::ExitCode, time::Duration};

/// How long the end of the container waits until PostgreSQL's last lines are written. Too short: a busy node loses them; too
/// long: a log whose reader hangs holds up the end of the pod.
const LAST_WORDS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(sentence) => {
            eprintln!("pgconvoy-supervisor: {sentence}");
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("pgconvoy-supervisor: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), String> {
    let namespace = Namespace::own()?;
    sys::tune_allocator();

    // Before any thread starts: they inherit the mask, and a signal must reach the descriptor only. Official images ask
    // to be stopped by SIGINT, others by SIGTERM or SIGQUIT: here they mean the same.
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        mask.add(signal);
    }
    mask.thread_block().map_err(|e| format!("cannot block signals: {e}"))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| format!("cannot make a signal descriptor: {e}"))?;

    let deadman = DeadMan::start(namespace).map_err(|e| format!("cannot start the timer thread: {e}"))?;
    // Now, not later: the program, its data and the timer thread's stack, and not what is mapped afterwards. With
    // "future" a low limit would turn a later allocation into a crash of PID 1, which is a crash of the database.
    let locked = nix::sys::mman::mlockall(nix::sys::mman::MlockAllFlags::MCL_CURRENT);
    log::start().map_err(|e| format!("cannot start the log thread: {e}"))?;
    let (postgres_log, inlet) =
        PostgresLog::start().map_err(|e| format!("cannot start the thread for PostgreSQL's log: {e}"))?;

    let listener = server::listen(&options.socket)?;
    let memory: &dyn std::fmt::Display = match &locked {
        Ok(()) => &"locked",
        Err(e) => e,
    };
    log::info(
        "the supervisor is ready",
        &[("version", &env!("CARGO_PKG_VERSION")), ("socket", &options.socket.display()), ("memory", memory)],
    );
    let served = server::Server::new(namespace, deadman, signals, listener, options.stop_timeout, inlet)
        .map_err(|e| format!("cannot make a pipe: {e}"))?
        .run();
    // The next supervisor removes it too; but no client shall wait on a socket that nobody serves.
    drop(std::fs::remove_file(&options.socket));
    // Nothing runs any more, and the server has given up its own end of the pipe.
    postgres_log.finish(LAST_WORDS);
    log::flush();
    served
}
