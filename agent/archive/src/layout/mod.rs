//! What lies where. docs/archive-format.md says it for people.

mod begin;
mod claim;
mod error;
mod frame;
mod gap;
mod keys;
mod owner;

pub(crate) use begin::{begin_key, begins};
pub use claim::{Claim, Claimed, claim, read_claim};
pub use error::Error;
pub(crate) use frame::{Compressor, HEADER_LENGTH};
pub use frame::{Header, decompress};
pub use gap::{Gap, gaps};
pub(crate) use keys::parse_segment;
pub use keys::{EpochDir, Piece, epochs};
pub use owner::{FORMAT, Owner, adopt, open_archive};

/// How many bytes behind the first that is missing may be stored already, as a backlog's objects go side by side. Whoever ships
/// goes no further ahead; so a hole with less behind it, at the end of the newest epoch, is where shipping was cut off, and one
/// with more has lost what was there once. Less: a distant store is never busy. More: a lost object is taken for one that never
/// came.
pub(crate) fn ahead(segment_size: u64) -> u64 {
    segment_size.saturating_mul(4).clamp(64 << 20, 128 << 20)
}
