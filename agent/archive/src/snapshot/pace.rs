//! How fast a snapshot reads the volume: as fast as it goes, no faster than asked, and slowly while the server has more urgent things
//! to do.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Bytes a second while the server is pressed: so few that it hardly notices, so many that a snapshot comes to its end.
const PRESSED: u64 = 4 << 20;
/// What was not used of the rate may be made up for, for so long.
const BURST: Duration = Duration::from_millis(200);
/// Shorter pauses wait for more of their kind.
const SHORTEST: Duration = Duration::from_millis(5);

/// The pace of a snapshot, which all of its readers keep together. It can be changed while they read.
#[derive(Debug)]
pub struct Pace {
    limit: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pressed: bool,
    /// When what was read until now would have been read at the rate.
    paid: Instant,
}

impl Default for Pace {
    /// As fast as it goes.
    fn default() -> Self {
        Self::new(None)
    }
}

impl Pace {
    /// At most so many bytes of files a second; none: as fast as it goes.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, state: Mutex::new(State { pressed: false, paid: Instant::now() }) }
    }

    /// Whether the server has more urgent things to do.
    pub fn press(&self, pressed: bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pressed = pressed;
    }

    /// Pauses the reader as long as so many bytes ask for.
    pub(super) fn read(&self, bytes: usize) {
        let pause = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(rate) = rate(self.limit, state.pressed) else { return };
            let now = Instant::now();
            state.paid = after(state.paid, now, bytes, rate);
            state.paid.saturating_duration_since(now)
        };
        if pause >= SHORTEST {
            thread::sleep(pause);
        }
    }
}

/// Bytes a second; none: no bound. Pure.
fn rate(limit: Option<u64>, pressed: bool) -> Option<u64> {
    if pressed { Some(limit.map_or(PRESSED, |limit| limit.min(PRESSED))) } else { limit }
}

/// When so many more bytes will have been read at the rate. Pure.
fn after(paid: Instant, now: Instant, bytes: usize, rate: u64) -> Instant {
    let from = paid.max(now.checked_sub(BURST).unwrap_or(now));
    from + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pressed_server_is_read_slowly_however_fast_it_may_be_read() {
        assert_eq!(rate(None, false), None);
        assert_eq!(rate(Some(100 << 20), false), Some(100 << 20));
        assert_eq!(rate(None, true), Some(PRESSED));
        assert_eq!(rate(Some(100 << 20), true), Some(PRESSED));
        assert_eq!(rate(Some(1 << 20), true), Some(1 << 20));
    }

    #[test]
    fn readers_keep_the_rate_together_and_make_up_for_little() {
        let pace = Pace::new(None);
        let begun = pace.state.lock().unwrap().paid;
        // A thousand reads of 8 KiB, by whomever, at 8 MiB/s: a second, and what a burst allows for.
        let mut paid = begun;
        for _ in 0..1024 {
            paid = after(paid, begun, 8 << 10, 8 << 20);
        }
        let lasts = paid - begun;
        assert!((Duration::from_millis(990)..Duration::from_millis(1010)).contains(&lasts), "{lasts:?}");
        // After an hour in which nothing was read not an hour's bytes are due.
        let later = begun + Duration::from_secs(3600);
        assert_eq!(after(begun, later, 8 << 20, 8 << 20), later - BURST + Duration::from_secs(1));
    }
}
