//! Snapshots: a copy of a data directory in the store, read straight from the volume, and back.
//!
//! Files go into parts of about a gigabyte, each a tar archive under zstd, so that taking and restoring are parallel. A
//! snapshot exists once its `manifest.json` does, which is written last.
//!
//! Not here yet: incremental snapshots, page checksums, tablespaces (refused). A half-made snapshot is not gone on with: PostgreSQL ends a
//! backup with the session that began it.

mod backup;
mod error;
mod files;
mod manifest;
mod pace;
mod part;
mod pg_manifest;
mod restore;
mod take;

pub use error::Error;
pub use manifest::{Manifest, PartInfo, SnapshotId, list, read_manifest};
pub(crate) use manifest::{folder, manifest_key, part_key, pg_manifest_key};
pub use pace::Pace;
pub use restore::{RestoreOptions, restore};
pub use take::{Options, take};
