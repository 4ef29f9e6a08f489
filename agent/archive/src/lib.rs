//! WAL and snapshots in object storage.

#![forbid(unsafe_code)]

mod checksum;
pub mod fetch;
pub mod layout;
pub mod ship;
pub mod snapshot;
pub mod store;

pub use checksum::crc32c;
