//! The words that every part of pgconvoy shares.
//!
//! A leaf: the standard library only, no I/O, no clock. Everything here is a newtype that is parsed once at the border,
//! or arithmetic that must be the same wherever it is done (what seals a rule, which position is greater).

#![forbid(unsafe_code)]

mod epoch;
mod lsn;
mod member;
mod rule;
mod segment;
mod term;

pub use epoch::{ChangeId, Epoch};
pub use lsn::{Lsn, Position, TimelineId};
pub use member::{Incarnation, MemberId, MemberName, SystemId, Tag};
pub use rule::Rule;
pub use segment::SegmentName;
pub use term::{CHAIN_LIMIT, Fork, HISTORY_LIMIT, Phase, Term};

/// A text that is not what it should be. The sentence says what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    pub(crate) fn new(wanted: &str, got: &str) -> Self {
        // What came may be long or hold anything: show its beginning only.
        let shown: String = got.chars().take(60).collect();
        Self(format!("{wanted}, got {shown:?}"))
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}
