//! Whether to read, take, renew or give up the Lease: no clock, no I/O.

use crate::clock::after;
use pgconvoy_ha::Instant;
use std::time::Duration;

/// How long a holder that is silent keeps the Lease. Short: a busy API server costs it its Lease. Long: the next one
/// waits as long.
pub(super) const DURATION_SECONDS: i32 = 15;
/// So long before the others may take it, it no longer counts as held.
const MARGIN: Duration = Duration::from_secs(3);
/// How often a holder renews, counted from sending.
const RENEW: Duration = Duration::from_secs(5);
/// How often somebody who wants it looks at it.
const LOOK_WANTED: Duration = Duration::from_secs(1);
/// How often everybody else does.
const LOOK_IDLE: Duration = Duration::from_secs(3);
/// Pause after a call that failed, doubling up to [`LOOK_WANTED`].
const AGAIN: Duration = Duration::from_millis(100);
/// The longest duration of somebody else that is honoured (a planned restart lengthens it).
const LONGEST_SECONDS: i32 = 300;
/// One write in so long, on average; a renewal every [`RENEW`] is below that.
const WRITE_EVERY_MS: u64 = 3_400;
/// So many writes may follow each other at once.
const WRITE_BURST: u64 = 4;

/// What stands in the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Who holds it; `None` = free.
    pub(super) holder: Option<String>,
    /// What changes with each renewal: renewTime, acquireTime (microseconds), transitions.
    pub(super) marks: (Option<i64>, Option<i64>, Option<i32>),
    /// Its duration.
    pub(super) seconds: Option<i32>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Nothing before then.
    Wait(Instant),
    /// Read the Lease.
    Read,
    /// Change it, based on what was read last.
    Write(Write),
}

/// A change of the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// Become its holder.
    Take,
    /// Stay it.
    Renew,
    /// Stop being it.
    Release,
}

impl Write {
    /// For sentences.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Write::Take => "taking",
            Write::Renew => "renewing",
            Write::Release => "releasing",
        }
    }
}

/// One candidate.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    /// What was seen last, and since when it is unchanged under this process's own eyes.
    seen: Option<(Seen, Instant)>,
    /// When the last look or write that told something about the Lease was.
    looked: Instant,
    /// A holder that will not come back.
    gone: Option<String>,
    /// What was seen may be out of date: read before writing.
    stale: bool,
    /// No attempt before this.
    pause: Instant,
    failures: u32,
    /// When the last successful write as holder was sent.
    renewed: Option<Instant>,
    /// Token bucket: when it was full to zero. See [`Election::may_write`].
    spent: u64,
}

impl Election {
    /// A candidate that knows nothing yet. `me` must be another name in every pod, also in two of the same name.
    pub(super) fn new(me: String, now: Instant) -> Self {
        Self {
            me,
            seen: None,
            gone: None,
            looked: now,
            stale: true,
            pause: now,
            failures: 0,
            renewed: None,
            spent: now.0,
        }
    }

    /// Its name in the Lease.
    pub(super) fn me(&self) -> &str {
        &self.me
    }

    /// Until when this candidate holds the Lease if nothing more happens; `None` = it does not.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.renewed.map(|sent| after(sent, valid())).filter(|until| now < *until)
    }

    /// What to do next.
    pub(super) fn next(&mut self, now: Instant, wanted: bool) -> Deed {
        if !wanted {
            // A release is on its way, and may arrive although its answer does not: only a later renewal can make it
            // held again.
            self.renewed = None;
        }
        if now < self.pause {
            return Deed::Wait(self.pause);
        }
        let Some((seen, since)) = self.seen.as_ref().filter(|_| !self.stale) else { return Deed::Read };
        let mine = seen.holder.as_deref() == Some(self.me.as_str());
        let write = match (mine, wanted) {
            (true, false) => return self.write(now, Write::Release),
            (true, true) => {
                let due = self.renewed.map_or(now, |sent| after(sent, RENEW));
                if now < due {
                    return Deed::Wait(due);
                }
                Write::Renew
            }
            (false, false) => return self.look(now, LOOK_IDLE),
            (false, true) => {
                let there = seen.holder.is_some() && seen.holder != self.gone;
                if there && now < after(*since, patience(seen)) {
                    return self.look(now, LOOK_WANTED);
                }
                Write::Take
            }
        };
        // A holder's last seconds must be seen running out, so never wait longer than a look.
        if self.may_write(now) { self.write(now, write) } else { self.look(now, LOOK_WANTED) }
    }

    fn look(&self, now: Instant, every: Duration) -> Deed {
        let due = after(self.looked, every);
        if now < due { Deed::Wait(due) } else { Deed::Read }
    }

    /// A token bucket in units of time: `spent` moves [`WRITE_EVERY_MS`] per write, and may run ahead of now by a burst.
    fn may_write(&self, now: Instant) -> bool {
        self.spent.max(now.0) < now.0 + WRITE_EVERY_MS * WRITE_BURST
    }

    fn write(&mut self, now: Instant, write: Write) -> Deed {
        self.spent = self.spent.max(now.0) + WRITE_EVERY_MS;
        Deed::Write(write)
    }

    /// The Lease was read, or is what a write returned.
    pub(super) fn saw(&mut self, now: Instant, seen: Seen) {
        if seen.holder.as_deref() != Some(self.me.as_str()) {
            self.renewed = None;
        }
        // Time counts only while the holder and all its marks stay the same under our own eyes.
        let since = self.seen.as_ref().filter(|(old, _)| *old == seen).map_or(now, |(_, since)| *since);
        self.seen = Some((seen, since));
        self.fresh(now);
    }

    /// This holder is gone for good: it is not waited for.
    pub(super) fn gone(&mut self, holder: &str) {
        self.gone = Some(holder.to_owned());
    }

    /// There is no Lease: nobody holds it, and what was observed of the last one means nothing for the next.
    pub(super) fn missing(&mut self, now: Instant) {
        self.seen = None;
        self.renewed = None;
        self.fresh(now);
        self.stale = true;
        self.pause = after(now, LOOK_WANTED);
    }

    /// A write that was sent at `sent` succeeded.
    pub(super) fn wrote(&mut self, sent: Instant, write: Write) {
        self.renewed = match write {
            Write::Take | Write::Renew => Some(sent),
            Write::Release => None,
        };
    }

    /// A read or write failed, or nobody knows whether it did.
    pub(super) fn failed(&mut self, now: Instant) {
        self.stale = true;
        let pause = AGAIN.saturating_mul(1 << self.failures.min(8)).min(LOOK_WANTED);
        self.failures = self.failures.saturating_add(1);
        self.pause = after(now, pause);
    }

    fn fresh(&mut self, now: Instant) {
        self.looked = now;
        self.stale = false;
        self.failures = 0;
    }
}

fn valid() -> Duration {
    Duration::from_secs(DURATION_SECONDS.unsigned_abs().into()).saturating_sub(MARGIN)
}

/// How long this holder may be silent.
fn patience(seen: &Seen) -> Duration {
    let seconds = seen.seconds.unwrap_or(DURATION_SECONDS).clamp(1, LONGEST_SECONDS);
    Duration::from_secs(seconds.unsigned_abs().into())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
