//! WAL and snapshots in object storage. docs/archive-format.md says what lies there; nothing in it needs this crate.
//!
//! - [`store`]: the port to an object store, and S3 behind it. Every write is conditional.
//! - [`layout`]: names and contents of objects; whose archive it is ([`layout::open_archive`]), who writes an epoch
//!   ([`layout::claim`]).
//! - [`ship`]: WAL from a running PostgreSQL into the archive, within a second ([`ship::begin`], [`ship::ship`]). What an
//!   old leader had not shipped, the next one ships with the same call: the old epoch's folder and claim, its own server as
//!   the source, which ends at the fork.
//! - [`fetch`]: what `restore_command` asks for ([`fetch::Fetcher`]).
//! - [`snapshot`]: a data directory into the store and back ([`snapshot::take`], [`snapshot::restore`]).
//!
//! - [`retain`]: what stays and what goes ([`retain::plan`], [`retain::sweep`]).
//!
//! Not here: anything of Kubernetes, who leads, and when a snapshot is due.

#![forbid(unsafe_code)]

mod checksum;
pub mod fetch;
pub mod layout;
pub mod retain;
pub mod ship;
pub mod snapshot;
pub mod store;

pub use checksum::crc32c;
