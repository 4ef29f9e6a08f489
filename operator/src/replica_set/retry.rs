//! When to try again.

use super::apply::ApplyError;
use super::{Context, Error};
use crate::world::Guarded;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use rand::Rng;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The first wait after a failure; doubled with each further one of the same set.
pub(super) const FIRST: Duration = Duration::from_millis(200);
/// The longest wait.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// The wait after a conflict, which means only that the watch is behind.
pub(super) const STALE: Duration = Duration::from_millis(200);

/// How often each set has failed in a row.
#[derive(Debug, Default)]
pub struct Retries {
    failures: Mutex<HashMap<String, u32>>,
}

impl Retries {
    /// Forgets the failures of a set.
    pub fn succeeded(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Counts a failure. Returns how long to wait, without jitter.
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        let wait = FIRST.saturating_mul(1 << (*count).min(16));
        *count += 1;
        wait.min(LONGEST)
    }

    /// Forgets the sets that `alive` does not know.
    pub fn retain(&self, alive: impl Fn(&str) -> bool) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| alive(uid));
    }
}

/// When to try again after `error`.
pub fn error_policy(set: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let (name, namespace) = (set.name_any(), set.namespace().unwrap_or_default());
    let wait = context.retries.failed(&set.uid().unwrap_or_default());
    let wait = match error {
        Error::Apply(ApplyError::Stale { .. }) if wait < LONGEST => {
            tracing::debug!(set = name, namespace, %error, "looking again");
            STALE.max(wait / 4)
        }
        _ => {
            tracing::warn!(set = name, namespace, %error, retry_in_ms = wait.as_millis(), "could not reconcile");
            wait
        }
    };
    Action::requeue(wait.mul_f64(rand::rng().random_range(0.8..1.2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew_after_a_success() {
        let r = Retries::default();
        assert_eq!(r.failed("a"), FIRST);
        assert_eq!(r.failed("a"), FIRST * 2);
        assert_eq!(r.failed("b"), FIRST, "each set on its own");
        (0..100).for_each(|_| {
            r.failed("a");
        });
        assert_eq!(r.failed("a"), LONGEST);
        r.succeeded("a");
        assert_eq!(r.failed("a"), FIRST);
    }
}
