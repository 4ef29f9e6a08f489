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
