//! How often a way to the data has failed. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// After so many failures another way is taken. Fewer: a hiccup of the store costs a whole copy. More: a member is away longer.
const LIMIT: u32 = 3;
/// For how long failures count. Short: what cannot succeed is tried again and again. Long: a store that has recovered is not used.
const REMEMBERED: Duration = Duration::from_secs(1800);

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Looking at the archive.
    Look,
    /// Adding log out of the archive.
    Log,
    /// Restoring this snapshot.
    Restore(String),
    /// Copying from a member.
    Clone,
}

#[derive(Debug, Clone)]
struct Failures {
    count: u32,
    lasting: bool,
    why: String,
    last: Instant,
}

/// How often each way has failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tries {
    failures: BTreeMap<Key, Failures>,
}

impl Tries {
    /// One more. `lasting`: it will not go away by itself. When the last way has failed as often as the others, all begin anew.
    pub(super) fn failed(&mut self, key: Key, why: String, lasting: bool, now: Instant) {
        let before = self.failures.get(&key).map_or(0, |f| f.count);
        let last = key == Key::Clone;
        self.failures.insert(key, Failures { count: before + 1, lasting, why, last: now });
        if last && before + 1 >= LIMIT {
            self.failures.clear();
        }
    }

    /// It has ended well. Log that was added counts all the same: were it never enough, another way must come.
    pub(super) fn succeeded(&mut self, key: &Key, now: Instant) {
        match key {
            Key::Look => drop(self.failures.remove(key)),
            Key::Log => self.failed(Key::Log, "it was not enough".to_owned(), false, now),
            Key::Restore(_) | Key::Clone => self.failures.clear(),
        }
    }

    /// Forgets what is long past.
    pub(super) fn forget(&mut self, now: Instant) {
        self.failures.retain(|_, f| now.duration_since(f.last) < REMEMBERED);
    }

    /// That it is not tried any more, and why: a sentence without its beginning.
    pub(super) fn given_up(&self, key: &Key) -> Option<String> {
        let f = self.failures.get(key)?;
        match f {
            Failures { lasting: true, .. } => Some(format!("failed ({})", f.why)),
            Failures { count, .. } if *count >= LIMIT => Some(format!("failed {count} times ({})", f.why)),
            _ => None,
        }
    }

    /// How often it failed.
    pub(super) fn count(&self, key: &Key) -> u32 {
        self.failures.get(key).map_or(0, |f| f.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_for_half_an_hour_or_until_a_way_ends_well() {
        let begin = Instant::now();
        let mut tries = Tries::default();
        for _ in 0..3 {
            tries.failed(Key::Look, "away".into(), false, begin);
        }
        assert_eq!(tries.given_up(&Key::Look).unwrap(), "failed 3 times (away)");
        tries.forget(begin + REMEMBERED / 2);
        assert!(tries.given_up(&Key::Look).is_some());
        tries.forget(begin + REMEMBERED);
        assert_eq!((tries.given_up(&Key::Look), tries.count(&Key::Look)), (None, 0));
        let restore = Key::Restore("s".into());
        tries.failed(restore.clone(), "damaged".into(), true, begin);
        assert!(tries.given_up(&restore).is_some());
        tries.succeeded(&Key::Clone, begin);
        assert_eq!(tries.given_up(&restore), None);
    }

    #[test]
    fn log_that_is_never_enough_is_not_added_for_ever() {
        let mut tries = Tries::default();
        for n in 0..3 {
            assert_eq!(tries.given_up(&Key::Log), None, "{n}");
            tries.succeeded(&Key::Log, Instant::now());
        }
        assert!(tries.given_up(&Key::Log).is_some());
    }
}
