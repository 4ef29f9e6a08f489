//! One tool: a program that ends by itself, and the end of what it wrote.

use crate::{
    connection::ConnectionId,
    launch::{Launch, Pipes},
};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, read},
};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{Done, Exit, MAX_OUTPUT, Output},
};
use std::{collections::VecDeque, os::fd::OwnedFd};

/// Most bytes taken from a pipe in one go: a tool that floods its output must not keep the server from others.
const TURN: usize = 256 * 1024;

/// A running tool.
pub(crate) struct Tool {
    pub(crate) id: String,
    /// Who asked; none when that connection is gone.
    pub(crate) owner: Option<ConnectionId>,
    pub(crate) pid: Pid,
    pub(crate) deadline: Boottime,
    /// Until it has executed.
    pub(crate) launch: Option<Launch>,
    pub(crate) out: Capture,
    pub(crate) err: Capture,
    timed_out: bool,
}

impl Tool {
    pub(crate) fn new(id: String, owner: ConnectionId, pid: Pid, deadline: Boottime, launch: Launch, p: Pipes) -> Self {
        let (out, err) = (Capture::new(p.out), Capture::new(p.err));
        Self { id, owner: Some(owner), pid, deadline, launch: Some(launch), out, err, timed_out: false }
    }

    /// Kills it and what is left in its process group.
    pub(crate) fn kill(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
        // In case it is so young that it has no group yet.
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Kills it if its time is over.
    pub(crate) fn tick(&mut self, now: Boottime) {
        if self.deadline <= now && !self.timed_out {
            self.timed_out = true;
            self.kill();
        }
    }

    /// It was reaped: takes what is still in its pipes, ends what it left in its group.
    pub(crate) fn finish(&mut self, exit: Exit) -> Done {
        let _ = killpg(self.pid, Signal::SIGKILL);
        self.out.drain();
        self.err.drain();
        Done {
            id: std::mem::take(&mut self.id),
            exit: if self.timed_out { Exit::Timeout } else { exit },
            out: self.out.take(),
            err: self.err.take(),
        }
    }

    /// Whether it was killed because its time was over.
    pub(crate) fn overdue(&self) -> bool {
        self.timed_out
    }
}

/// The end of one output stream.
pub(crate) struct Capture {
    /// None once the stream has ended.
    pub(crate) pipe: Option<OwnedFd>,
    kept: VecDeque<u8>,
    lost: u64,
}

impl Capture {
    fn new(pipe: OwnedFd) -> Self {
        Self { pipe: Some(pipe), kept: VecDeque::new(), lost: 0 }
    }

    /// Reads what is there, for one turn.
    pub(crate) fn drain(&mut self) {
        let mut buffer = [0u8; 16 * 1024];
        let mut turn = 0;
        while let Some(pipe) = self.pipe.as_ref().filter(|_| turn < TURN) {
            match read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    turn += n;
                    self.keep(&buffer[..n]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let surplus = (self.kept.len() + bytes.len()).saturating_sub(MAX_OUTPUT);
        self.kept.drain(..surplus.min(self.kept.len()));
        self.lost += surplus as u64;
        self.kept.extend(bytes);
    }

    fn take(&mut self) -> Output {
        Output { bytes: std::mem::take(&mut self.kept).into(), lost: self.lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{fcntl::OFlag, unistd::pipe2};
    use std::{fs::File, io::Write};

    #[test]
    fn keeps_the_end_and_counts_the_rest() {
        let (end, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let mut capture = Capture::new(end);
        let mut writer = File::from(writer);
        let block: Vec<u8> = (0..60_000u32).map(|i| (i % 241) as u8).collect();
        let mut all = Vec::new();
        for _ in 0..30 {
            writer.write_all(&block).unwrap();
            all.extend_from_slice(&block);
            capture.drain();
        }
        drop(writer);
        capture.drain();
        assert!(capture.pipe.is_none());
        let output = capture.take();
        assert_eq!((output.bytes.len(), output.lost), (MAX_OUTPUT, (all.len() - MAX_OUTPUT) as u64));
        assert!(all.ends_with(&output.bytes));
    }
}
