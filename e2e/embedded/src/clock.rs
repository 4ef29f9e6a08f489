//! The wall clock, for timestamps that people read.

use jiff::{SignedDuration, Timestamp};

/// Now.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// As the API server writes it, so many seconds from now.
pub fn text(seconds_from_now: i64) -> String {
    let time = now().saturating_add(SignedDuration::from_secs(seconds_from_now)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Seconds since a timestamp.
pub fn age(time: &str) -> Option<i64> {
    Some(now().duration_since(time.parse().ok()?).as_secs())
}
