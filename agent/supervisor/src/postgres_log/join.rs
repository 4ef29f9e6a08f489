//! Bytes in, lines of JSON out. Pure but for the time, which is given.
//!
//! PostgreSQL writes a message at once, over several lines: those that begin with a tab go on with the one before, and
//! DETAIL, HINT, STATEMENT and the like bear the prefix of their message. So a message is over when another begins, or when
//! nothing has come for a while.

use super::{
    head::{self, Start},
    message::{self, LIMIT, Message},
};
use std::time::Duration;

/// A message that may go on is waited for this long. Too short: one that a busy node interrupts falls in two. Too long:
/// the last message of a silent server comes late.
const PAUSE: Duration = Duration::from_millis(100);
/// A line that has no end yet is waited for this long.
const LINE_PAUSE: Duration = Duration::from_secs(1);
/// Longest prefix: a client may send names of 10,000 bytes together.
const HEAD_LIMIT: usize = 16 * 1024;

/// What has come and is not shown yet.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    line: Vec<u8>,
    /// Bytes of `line` that were not kept.
    cut: u64,
    /// Lines of a prefix that is not over, and what its last line has.
    unfinished: Option<(Vec<u8>, String)>,
    message: Option<Message>,
}

impl Joiner {
    /// Takes bytes; appends what is complete to `out`.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Duration, out: &mut Vec<String>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.keep(&rest[..end]);
            rest = &rest[end + 1..];
            self.end_line(now, out);
        }
        self.keep(rest);
    }

    /// How long to wait for more before [`Self::flush`]; none when there is nothing to show.
    pub(crate) fn pause(&self) -> Option<Duration> {
        if !self.line.is_empty() || self.unfinished.is_some() {
            return Some(LINE_PAUSE);
        }
        self.message.is_some().then_some(PAUSE)
    }

    /// Nothing more comes: shows what there is.
    pub(crate) fn flush(&mut self, now: Duration, out: &mut Vec<String>) {
        if !self.line.is_empty() {
            self.end_line(now, out);
        }
        self.give_up_prefix(now, out);
        self.end_message(out);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(LIMIT.saturating_sub(self.line.len()));
        self.line.extend_from_slice(&bytes[..fits]);
        self.cut += (bytes.len() - fits) as u64;
    }

    fn end_line(&mut self, now: Duration, out: &mut Vec<String>) {
        let (mut line, cut) = (std::mem::take(&mut self.line), std::mem::take(&mut self.cut));
        if let Some((mut whole, mark)) = self.unfinished.take() {
            let over = head::find(&line, &mark).is_some();
            whole.push(b'\n');
            whole.append(&mut line);
            if !over && whole.len() <= HEAD_LIMIT {
                self.unfinished = Some((whole, mark));
                return;
            }
            line = whole;
        }
        self.line_of(&line, cut, now, out);
        // The buffer is used again, unless it has grown.
        line.clear();
        line.shrink_to(4096);
        self.line = line;
    }

    fn line_of(&mut self, line: &[u8], cut: u64, now: Duration, out: &mut Vec<String>) {
        if let (Some(message), Some(more)) = (&mut self.message, line.strip_prefix(b"\t")) {
            message.line(more);
            message.cut(cut);
            return;
        }
        match head::read(line) {
            Start::Head(head, text) => {
                let part = message::part(text);
                match (&mut self.message, part) {
                    (Some(message), Some((key, text))) if message.is_of(&head) => message.add(key, text),
                    _ => {
                        self.end_message(out);
                        self.message = Some(Message::begin(head, text, now));
                    }
                }
                if let Some(message) = &mut self.message {
                    message.cut(cut);
                }
            }
            Start::Unfinished(mark) if line.len() <= HEAD_LIMIT => {
                self.end_message(out);
                self.unfinished = Some((line.to_vec(), mark));
            }
            Start::Unfinished(_) | Start::Other => {
                self.end_message(out);
                out.push(message::plain(line, cut, now));
            }
        }
    }

    fn give_up_prefix(&mut self, now: Duration, out: &mut Vec<String>) {
        if let Some((text, _)) = self.unfinished.take() {
            out.push(message::plain(&text, 0, now));
        }
    }

    fn end_message(&mut self, out: &mut Vec<String>) {
        out.extend(self.message.take().map(|message| message.json()));
    }
}
