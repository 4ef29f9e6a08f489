//! In which order lines of several streams are shown. Pure.
//!
//! Each stream is in order by itself. Of each, at most the next line is known (its head). A head may be shown when no
//! earlier line can come any more: surely so when every other stream has a head, too, or has ended. A followed stream
//! may stay silent for ever, so there a line waits [`HOLD`] for earlier ones and no longer.

use jiff::Timestamp;
use std::time::{Duration, Instant};

/// How long a line waits for earlier ones of other members. Shorter: live lines of two members change places. Longer:
/// everything comes later.
pub(super) const HOLD: Duration = Duration::from_millis(300);

/// What is known of a stream that has not ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Its next line: when it was written by the node's clock, and when it came here.
    pub(super) next: Option<(Timestamp, Instant)>,
    /// When something came from it last, or when it was opened.
    pub(super) active: Instant,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Show the next line of this stream.
    Show(usize),
    /// Look again at this time, or when something comes.
    Wait(Option<Instant>),
}

/// The choice among `heads`. `clock` is this machine's time of day, which may differ from the nodes'.
pub(super) fn choose(heads: &[Head], follow: bool, now: Instant, clock: Timestamp) -> Choice {
    let known = heads.iter().enumerate().filter_map(|(i, h)| h.next.map(|(at, came)| (at, i, came)));
    let Some((at, first, came)) = known.min() else { return Choice::Wait(None) };
    let mut silent = heads.iter().filter(|h| h.next.is_none()).peekable();
    if silent.peek().is_none() {
        return Choice::Show(first);
    }
    if !follow {
        return Choice::Wait(None);
    }
    // A backlog is old: once the silent ones have had their time, all of it is shown at once.
    let old = clock.duration_since(at).unsigned_abs() >= HOLD && clock > at;
    let idle = silent.map(|h| h.active + HOLD).max().unwrap_or(now);
    let due = came + HOLD;
    if due <= now || (old && idle <= now) {
        return Choice::Show(first);
    }
    Choice::Wait(Some(if old { due.min(idle) } else { due }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        start: Instant,
        clock: Timestamp,
    }

    impl Scene {
        fn new() -> Self {
            Self { start: Instant::now(), clock: Timestamp::from_second(1_000_000).unwrap() }
        }

        fn after(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// A line written `age` ms before the scene began, that came `came` ms after.
        fn line(&self, age: i64, came: u64) -> Head {
            let at = self.clock - jiff::SignedDuration::from_millis(age);
            Head { next: Some((at, self.after(came))), active: self.after(came) }
        }

        fn silent(&self, since: u64) -> Head {
            Head { next: None, active: self.after(since) }
        }

        fn choose(&self, heads: &[Head], follow: bool, ms: u64) -> Choice {
            let clock = self.clock + jiff::SignedDuration::from_millis(ms.try_into().unwrap());
            choose(heads, follow, self.after(ms), clock)
        }
    }

    #[test]
    fn the_earliest_comes_first_when_all_are_known() {
        let s = Scene::new();
        for follow in [false, true] {
            assert_eq!(s.choose(&[s.line(10, 0), s.line(30, 0), s.line(20, 0)], follow, 0), Choice::Show(1));
        }
        assert_eq!(s.choose(&[], true, 0), Choice::Wait(None));
    }

    #[test]
    fn what_ends_by_itself_is_waited_for() {
        let s = Scene::new();
        assert_eq!(s.choose(&[s.line(9_000, 0), s.silent(0)], false, 60_000), Choice::Wait(None));
    }

    #[test]
    fn a_live_line_waits_for_the_silent_but_not_for_ever() {
        let s = Scene::new();
        let heads = [s.line(0, 0), s.silent(0)];
        assert_eq!(s.choose(&heads, true, 299), Choice::Wait(Some(s.after(300))));
        assert_eq!(s.choose(&heads, true, 300), Choice::Show(0));
    }

    #[test]
    fn a_backlog_is_not_held_up_line_by_line() {
        let s = Scene::new();
        // Both streams have just been opened: the silent one may be about to send something older.
        assert_eq!(s.choose(&[s.line(5_000, 100), s.silent(100)], true, 200), Choice::Wait(Some(s.after(400))));
        // It has had its time: a line that has only just been read is shown at once.
        assert_eq!(s.choose(&[s.line(5_000, 450), s.silent(100)], true, 450), Choice::Show(0));
    }

    #[test]
    fn a_node_whose_clock_is_ahead_is_not_waited_for() {
        let s = Scene::new();
        assert_eq!(s.choose(&[s.line(-60_000, 0), s.silent(0)], true, 300), Choice::Show(0));
    }
}
