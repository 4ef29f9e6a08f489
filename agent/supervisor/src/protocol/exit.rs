//! Small words that several lines share: how a process ended, signals, permissions.

use super::words::{self, Malformed};
use crate::clock::Boottime;
use std::fmt;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal, which the supervisor did not send because of a time-out or a fence.
    Signal(i32),
    /// Killed because its time was over (tools only).
    Timeout,
    /// Killed by `FENCE` or because the permission ran out (PostgreSQL only).
    Fenced,
}

impl Exit {
    pub(super) fn parse(field: &'static str, text: &str) -> Result<Self, Malformed> {
        match text.split_once(':') {
            Some(("code", n)) => Ok(Self::Code(words::number(field, n)?)),
            Some(("signal", n)) => Ok(Self::Signal(words::number(field, n)?)),
            None if text == "timeout" => Ok(Self::Timeout),
            None if text == "fenced" => Ok(Self::Fenced),
            _ => Err(words::value(field, "code:N, signal:N, timeout or fenced", text)),
        }
    }

    /// True for exit code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(n) => write!(f, "code:{n}"),
            Self::Signal(n) => write!(f, "signal:{n}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Fenced => f.write_str("fenced"),
        }
    }
}

/// Until when PostgreSQL may run without further news from the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permit {
    /// Without limit: nobody is harmed (a follower), or nobody can take over (a single member).
    Forever,
    /// Until this moment. One that has passed kills at once.
    Until(Boottime),
}

impl Permit {
    pub(super) fn parse(field: &'static str, text: &str) -> Result<Self, Malformed> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        words::number(field, text)
            .map(|n| Self::Until(Boottime(n)))
            .map_err(|_| words::value(field, "\"forever\" or milliseconds of CLOCK_BOOTTIME", text))
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::Until(at) => at.fmt(f),
        }
    }
}

/// A signal that the agent may send to PostgreSQL. To the postmaster they mean what its comment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Reload the configuration.
    Hup,
    /// Fast shutdown.
    Int,
    /// Smart shutdown (waits for every client).
    Term,
    /// Immediate shutdown (recovery at the next start).
    Quit,
    /// Kills the postmaster; the supervisor then kills what it leaves behind.
    Kill,
    /// Look for a `promote` file.
    Usr1,
}

impl Signal {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Hup, "HUP"),
        (Self::Int, "INT"),
        (Self::Term, "TERM"),
        (Self::Quit, "QUIT"),
        (Self::Kill, "KILL"),
        (Self::Usr1, "USR1"),
    ];

    pub(super) fn parse(field: &'static str, text: &str) -> Result<Self, Malformed> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(s, _)| *s).ok_or_else(|| words::value(field, "HUP, INT, TERM, QUIT, KILL or USR1", text))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(s, _)| s == self).map_or("?", |(_, name)| name))
    }
}
