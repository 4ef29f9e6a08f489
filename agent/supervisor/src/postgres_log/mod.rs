//! PostgreSQL's log: read from a pipe, written as JSON.
//!
//! One pipe for every PostgreSQL of this process's life, read by a thread of its own, which writes and waits as PostgreSQL
//! itself would: when the reader of the container's log hangs, the pipe fills and PostgreSQL waits, so nothing is lost. What
//! PostgreSQL said last lies in the pipe when it is gone, and is read to its end before the container ends.

mod head;
mod join;
mod message;
#[cfg(test)]
mod tests;

use join::Joiner;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{pipe2, read},
};
use std::{
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The thread that reads.
pub(crate) struct PostgresLog(JoinHandle<()>);

impl PostgresLog {
    /// Starts the thread; what is written to the descriptor comes out as JSON.
    pub(crate) fn start() -> io::Result<(Self, OwnedFd)> {
        let (end, inlet) = pipe2(OFlag::O_CLOEXEC)?;
        let thread = thread::Builder::new().name("postgres-log".into()).stack_size(64 * 1024);
        Ok((Self(thread.spawn(move || pump(&end, &mut io::stderr()))?), inlet))
    }

    /// Waits until everything is written, at most `limit`: the log's reader may hang. Every copy of the descriptor must be
    /// closed before.
    pub(crate) fn finish(self, limit: Duration) {
        let begun = Instant::now();
        while !self.0.is_finished() && begun.elapsed() < limit {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a log is for people")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Reads until the pipe has no writer any more.
fn pump(pipe: &OwnedFd, to: &mut impl Write) {
    let (mut joiner, mut lines, mut buffer) = (Joiner::default(), Vec::new(), vec![0u8; 16 * 1024]);
    loop {
        let timeout =
            joiner.pause().map_or(PollTimeout::NONE, |p| PollTimeout::try_from(p).unwrap_or(PollTimeout::MAX));
        let ended = match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                joiner.flush(now(), &mut lines);
                false
            }
            Err(Errno::EINTR) => false,
            _ => match read(pipe, &mut buffer) {
                Ok(n) if n > 0 => {
                    joiner.take(&buffer[..n], now(), &mut lines);
                    false
                }
                Err(Errno::EINTR | Errno::EAGAIN) => false,
                _ => {
                    joiner.flush(now(), &mut lines);
                    true
                }
            },
        };
        for line in lines.drain(..) {
            // One that cannot be written cannot be complained about.
            drop(to.write_all(line.as_bytes()));
        }
        if ended {
            return;
        }
    }
}
