//! How far a copy is, for the status.

use crate::{
    clock,
    postgres::Postgres,
    settings::{CatchUp, PostgresReport},
};
use jiff::SignedDuration;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Before this much has passed nothing is foretold.
const EARLY: Duration = Duration::from_secs(5);

/// What is told while it lives.
pub(super) struct Progress {
    report: watch::Sender<PostgresReport>,
    begun: Instant,
}

impl Progress {
    /// Begins to tell `how`.
    pub(super) fn begin(postgres: &Postgres, how: &str) -> Self {
        let report = postgres.report.clone();
        tracing::info!("{how}");
        report.send_modify(|r| r.catch_up = Some(CatchUp { how: how.to_owned(), ..CatchUp::default() }));
        Self { report, begun: Instant::now() }
    }

    /// Tells how much is done. In steps of a tenth: a copy costs ten writes of the status at most.
    pub(super) fn at(&self, done: u64, total: u64) {
        let (total, begun) = (total.max(done), self.begun);
        self.report.send_if_modified(|r| {
            let Some(now) = &mut r.catch_up else { return false };
            let step = tenths(done, total);
            if now.total > 0 && now.tenths == step {
                return false;
            }
            (now.total, now.tenths, now.until) = (total, step, expected(begun.elapsed(), done, total));
            true
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.report.send_if_modified(|r| r.catch_up.take().is_some());
    }
}

fn tenths(done: u64, total: u64) -> u64 {
    // What is not known to be much is not begun.
    (u128::from(done) * 10).checked_div(u128::from(total)).map_or(0, |t| u64::try_from(t).unwrap_or(10).min(10))
}

/// When it would be done at this pace.
fn expected(passed: Duration, done: u64, total: u64) -> Option<String> {
    let left = left(passed, done, total)?;
    Some(clock::wall().saturating_add(left).ok()?.strftime("%H:%M:%SZ").to_string())
}

fn left(passed: Duration, done: u64, total: u64) -> Option<SignedDuration> {
    if passed < EARLY || done == 0 || done >= total {
        return None;
    }
    SignedDuration::try_from(passed.mul_f64((total - done) as f64 / done as f64)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_in_tenths_and_foretells_by_the_pace_so_far() {
        assert_eq!((tenths(0, 0), tenths(0, 7), tenths(19, 100), tenths(100, 100)), (0, 0, 1, 10));
        assert_eq!(tenths(u64::MAX, u64::MAX), 10);
        let seconds = |s| Duration::from_secs(s);
        assert_eq!(left(seconds(4), 50, 100), None, "too early");
        assert_eq!(left(seconds(10), 0, 100), None);
        assert_eq!(left(seconds(10), 100, 100), None);
        assert_eq!(left(seconds(10), 25, 100), Some(SignedDuration::from_secs(30)));
    }
}
