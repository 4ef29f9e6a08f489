//! What is known about the shipping, for status and metrics.

use pgconvoy_terms::Lsn;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Something that keeps WAL from the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The reason, in one word.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// Since when.
    pub since: Instant,
}

/// How far the archive is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Up to where WAL is in the archive, without a gap.
    pub archived: Lsn,
    /// Up to where it was received.
    pub received: Lsn,
    /// Up to where the server has it.
    pub server: Lsn,
    /// When the oldest WAL that matters and is not archived was received.
    pub oldest: Option<Instant>,
    /// Pieces written.
    pub pieces: u64,
    /// Whole segments written.
    pub segments: u64,
    /// How long the last write took.
    pub last_write: Option<Duration>,
    /// Bytes in memory: received, compressed and on their way.
    pub memory: usize,
    /// What is wrong at the moment.
    pub trouble: Option<Trouble>,
}

impl Progress {
    /// Bytes of WAL that the server has and the archive has not.
    pub fn backlog(&self) -> u64 {
        self.server.bytes_since(self.archived)
    }
}

/// What is wrong, told by whoever meets it.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<Option<Trouble>>>);

impl Troubles {
    pub(super) fn set(&self, reason: &'static str, message: String) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is wrong is told once: every object on its way has words of its own for it, again and again.
        if held.as_ref().is_some_and(|t| t.reason == reason) {
            tracing::debug!("archiving, still: {message}");
            return;
        }
        tracing::warn!("archiving: {message}");
        let since = held.as_ref().map_or_else(Instant::now, |t| t.since);
        *held = Some(Trouble { reason, message, since });
    }

    pub(super) fn clear(&self) {
        if let Some(over) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tracing::info!("archiving works again, after {:.0?}", over.since.elapsed());
        }
    }

    pub(super) fn get(&self) -> Option<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds up what was stored, in whatever order that came.
#[derive(Debug)]
pub(super) struct Ledger {
    archived: Lsn,
    later: BTreeMap<Lsn, Lsn>,
    /// When WAL that matters was received: its end, and the time.
    waiting: VecDeque<(Lsn, Instant)>,
}

/// How exactly ages are known.
const AGE_STEP: Duration = Duration::from_millis(50);

impl Ledger {
    pub(super) fn new(archived: Lsn) -> Self {
        Self { archived, later: BTreeMap::new(), waiting: VecDeque::new() }
    }

    pub(super) fn archived(&self) -> Lsn {
        self.archived
    }

    /// WAL that matters has come, up to here.
    pub(super) fn received(&mut self, to: Lsn, now: Instant) {
        match self.waiting.back_mut() {
            // Within one step the earlier time counts for both.
            Some((end, since)) if now.duration_since(*since) < AGE_STEP => *end = to,
            _ => self.waiting.push_back((to, now)),
        }
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|(_, since)| *since)
    }

    pub(super) fn stored(&mut self, start: Lsn, end: Lsn) {
        let known = self.later.entry(start).or_insert(end);
        *known = end.max(*known);
        while let Some((&start, &end)) = self.later.first_key_value()
            && start <= self.archived
        {
            self.archived = self.archived.max(end);
            self.later.remove(&start);
        }
        while self.waiting.front().is_some_and(|(end, _)| *end <= self.archived) {
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_once_for_all_objects() {
        let troubles = Troubles::default();
        troubles.set("Busy", "a is refused".into());
        let first = troubles.get();
        troubles.set("Busy", "b is refused".into());
        assert_eq!(troubles.get(), first);
        troubles.set("Denied", "b is denied".into());
        let now = troubles.get().unwrap();
        assert_eq!((now.message.as_str(), now.since), ("b is denied", first.unwrap().since));
        troubles.clear();
        assert_eq!(troubles.get(), None);
    }

    #[test]
    fn archived_is_what_has_no_gap_before_it() {
        let mut ledger = Ledger::new(Lsn(100));
        let now = Instant::now();
        ledger.received(Lsn(120), now);
        ledger.received(Lsn(400), now + AGE_STEP);
        ledger.stored(Lsn(200), Lsn(300));
        assert_eq!((ledger.archived(), ledger.oldest()), (Lsn(100), Some(now)));
        ledger.stored(Lsn(100), Lsn(150));
        assert_eq!((ledger.archived(), ledger.oldest()), (Lsn(150), Some(now + AGE_STEP)));
        // A whole segment over its own pieces.
        ledger.stored(Lsn(100), Lsn(200));
        assert_eq!(ledger.archived(), Lsn(300));
        ledger.stored(Lsn(300), Lsn(400));
        assert_eq!((ledger.archived(), ledger.oldest()), (Lsn(400), None));
    }
}
