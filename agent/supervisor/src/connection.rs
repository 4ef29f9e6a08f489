//! One client: bytes in, lines out, both bounded, never waiting.

use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{ErrorCode, MAX_MESSAGE, MAX_REQUEST, MAX_TOOLS, Message, Refusal, Response},
};
use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// A line that was begun must be ended within this time: nobody shall hold one of the few connections half-open.
const LINE_TIME: Duration = Duration::from_secs(5);

/// A client that takes nothing of what waits for it is dropped after this time.
const STALL_TIME: Duration = Duration::from_secs(30);

/// No further request is read while this much waits to be sent.
const BACKLOG: usize = 64 * 1024;

/// No more than this ever waits: the results of every tool, and some.
const MOST: usize = (MAX_TOOLS + 1) * MAX_MESSAGE;

/// The number of a connection; never used twice.
pub(crate) type ConnectionId = u64;

/// One client.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) stream: UnixStream,
    /// Gets events.
    pub(crate) watches: bool,
    /// Will get events, once its request is answered.
    pub(crate) watches_newly: bool,
    /// A request of it is under way; the next one waits, so that answers come in order.
    pub(crate) awaits: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    line_since: Option<Boottime>,
    stalled_since: Option<Boottime>,
    /// The peer sends nothing more.
    ended: bool,
    /// Close it once the output is sent.
    closing: bool,
    /// Close it now.
    broken: bool,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, stream: UnixStream) -> Self {
        Self {
            id,
            stream,
            watches: false,
            watches_newly: false,
            awaits: false,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            line_since: None,
            stalled_since: None,
            ended: false,
            closing: false,
            broken: false,
        }
    }

    /// Whether to read from it now.
    pub(crate) fn wants_input(&self) -> bool {
        !self.awaits && !self.ended && !self.closing && self.unsent() < BACKLOG && self.input.len() < MAX_REQUEST
    }

    /// Whether something waits to be sent.
    pub(crate) fn wants_output(&self) -> bool {
        self.unsent() > 0
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads once.
    pub(crate) fn read(&mut self, now: Boottime) {
        let mut buffer = [0u8; 8192];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => {
                self.input.extend_from_slice(&buffer[..n]);
                self.line_since.get_or_insert(now);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.broken = true,
        }
    }

    /// Whether [`Self::line`] would give one.
    pub(crate) fn has_turn(&self) -> bool {
        !self.awaits && !self.closing && !self.broken && self.unsent() < BACKLOG && self.has_line()
    }

    /// Takes the next whole line, without its newline, if it may be served now.
    pub(crate) fn line(&mut self, now: Boottime) -> Option<Vec<u8>> {
        if self.awaits || self.closing || self.broken || self.unsent() >= BACKLOG {
            return None;
        }
        let Some(end) = self.input.iter().position(|b| *b == b'\n') else {
            if self.input.len() >= MAX_REQUEST {
                let sentence = format!("a request may have {MAX_REQUEST} bytes; this one has no end");
                self.refuse(ErrorCode::Long, sentence);
            }
            return None;
        };
        let line = self.input.drain(..=end).take(end).collect();
        self.line_since = (!self.input.is_empty()).then_some(now);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Some(line)
    }

    /// Queues a message and sends what it can.
    pub(crate) fn send(&mut self, message: &Message) {
        if self.unsent() > MOST {
            self.broken = true;
            return;
        }
        if self.sent > 0 && self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        self.output.extend_from_slice(message.to_line().as_bytes());
        self.flush();
    }

    /// Says why, and closes the connection once that is sent.
    pub(crate) fn refuse(&mut self, code: ErrorCode, sentence: String) {
        self.send(&Message::Response(Response::Error(Refusal { code, sentence })));
        self.closing = true;
        self.input = Vec::new();
    }

    /// Sends what it can.
    pub(crate) fn flush(&mut self) {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return self.broken = true,
                Ok(n) => {
                    self.sent += n;
                    self.stalled_since = None;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.stalled_since.get_or_insert_with(Boottime::now);
                    return;
                }
                Err(_) => return self.broken = true,
            }
        }
        // Frees a megabyte of tool output at once.
        self.output = Vec::new();
        self.sent = 0;
    }

    /// The peer has gone altogether.
    pub(crate) fn hang_up(&mut self) {
        // What it had sent before is still served, if it can be read now.
        if !self.wants_input() {
            self.broken = true;
        }
    }

    /// Enforces the time limits.
    pub(crate) fn tick(&mut self, now: Boottime) {
        let over = |since: Option<Boottime>, limit: Duration| since.is_some_and(|t| t.after(limit) <= now);
        if self.awaits {
            // The peer waits for the supervisor, not the other way round.
            self.line_since = self.line_since.map(|_| now);
        } else if over(self.line_since, LINE_TIME) && !self.closing && !self.has_line() {
            self.refuse(ErrorCode::Slow, "the line was begun but not ended within 5 s".to_owned());
        }
        if over(self.stalled_since, STALL_TIME) {
            self.broken = true;
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Boottime> {
        let line = self.line_since.filter(|_| !self.awaits && !self.closing && !self.has_line());
        let line = line.map(|t| t.after(LINE_TIME));
        let stall = self.stalled_since.map(|t| t.after(STALL_TIME));
        line.into_iter().chain(stall).min()
    }

    /// Whether it can be dropped. `expects`: something else will be sent to it (the result of a tool).
    pub(crate) fn finished(&self, expects: bool) -> bool {
        let spent = self.closing || (self.ended && !self.awaits && !self.watches && !expects && !self.has_line());
        self.broken || (spent && self.unsent() == 0)
    }

    fn has_line(&self) -> bool {
        self.input.contains(&b'\n')
    }
}

/// Tells a client that is one too many.
pub(crate) fn turn_away(mut stream: UnixStream, code: ErrorCode, sentence: String) -> io::Result<()> {
    let refusal = Message::Response(Response::Error(Refusal { code, sentence }));
    stream.write_all(refusal.to_line().as_bytes())
}
