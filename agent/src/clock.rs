//! The one clock that decides: `CLOCK_BOOTTIME`, the same that the supervisor reads.

use pgconvoy_ha::Instant;
use pgconvoy_supervisor::clock::Boottime;
use std::time::Duration;

/// The present moment.
pub fn now() -> Instant {
    Instant(Boottime::now().0)
}

/// The moment `duration` after `start`.
pub fn after(start: Instant, duration: Duration) -> Instant {
    Instant(start.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// How long from `now` until `then`; zero when it has passed.
pub fn until(now: Instant, then: Instant) -> Duration {
    Duration::from_millis(then.since(now))
}

/// The wall clock, which may step: for what people read. Nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "the one place where the agent looks at it")]
pub(crate) fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
