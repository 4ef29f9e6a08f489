//! WAL and snapshots in object storage.

#![forbid(unsafe_code)]

mod checksum;
pub mod store;

pub use checksum::crc32c;
