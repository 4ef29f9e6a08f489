//! Writes while something goes on, and knows afterwards what was acknowledged and how long nothing was.

use super::sql::Sql;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};

/// One write is begun so often, whatever has become of those before.
const EVERY: Duration = Duration::from_millis(100);
/// And given up after this: what a client with sense does.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many may be under way; then none is begun until one has ended.
const AT_ONCE: usize = 10;

/// What became of the writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// When each acknowledged one was begun and answered, and its number.
    acknowledged: Vec<(Instant, Instant, u64)>,
    /// How many were not, or nobody knows.
    pub(super) failed: u64,
}

impl Record {
    /// The numbers that must be there.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|(_, _, n)| *n).collect()
    }

    /// How long nobody was told that a write is done: the longest time without an answer around `event`, from the last
    /// answer before it to the first answer after it of a write that was begun after it.
    pub(super) fn outage(&self, event: Instant) -> Option<Duration> {
        let before = self.acknowledged.iter().map(|(_, at, _)| *at).filter(|at| *at <= event).max()?;
        let after = self.acknowledged.iter().filter(|(begun, ..)| *begun > event).map(|(_, at, _)| *at).min()?;
        Some(after.saturating_duration_since(before))
    }
}

/// A writer at work; dropped, it stops.
pub(super) struct Writer {
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Inserts the numbers from `first` on into the table `visits`.
    pub(super) fn start(sql: &Sql, first: u64) -> Self {
        let record: Arc<Mutex<Record>> = Arc::default();
        let (sql, shared) = (sql.clone(), record.clone());
        let task = tokio::spawn(async move {
            let mut under_way = JoinSet::new();
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for number in first.. {
                ticks.tick().await;
                if under_way.len() >= AT_ONCE {
                    under_way.join_next().await;
                }
                while under_way.try_join_next().is_some() {}
                let (sql, shared) = (sql.clone(), shared.clone());
                under_way.spawn(async move {
                    let begun = Instant::now();
                    let statement = format!("insert into visits values ({number}, 'during the failover')");
                    let done = tokio::time::timeout(PATIENCE, sql.quietly("rw", &statement)).await;
                    let mut record = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    match done {
                        Ok(Ok(_)) => record.acknowledged.push((begun, Instant::now(), number)),
                        _ => record.failed += 1,
                    }
                });
            }
        });
        Self { record, task }
    }

    /// What is known now.
    pub(super) fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn an_outage_is_from_the_last_answer_before_to_the_first_of_a_write_begun_after() {
        let t = Instant::now();
        let at = |ms: u64| t + Duration::from_millis(ms);
        let mut record = Record::default();
        // The third was acknowledged by the leader that was about to die, and its answer came late.
        for (begun, answered, n) in [(0, 20, 1), (100, 130, 2), (190, 260, 3), (300, 1_180, 4), (1_100, 1_150, 5)] {
            record.acknowledged.push((at(begun), at(answered), n));
        }
        assert_eq!(record.outage(at(200)), Some(Duration::from_millis(1_020)));
        assert_eq!(record.outage(at(2_000)), None, "nothing was written since");
        assert_eq!(record.numbers(), [1, 2, 3, 4, 5]);
    }
}
