//! PostgreSQL's replication protocol, client side, for PostgreSQL 15 to 18.
//!
//! A [`Client`] is one walsender connection. It answers questions ([`Client::identify_system`],
//! [`Client::timeline_history`], slots, settings) and turns into one of two streams:
//!
//! - [`BaseBackup`]: the tar archives and the manifest of BASE_BACKUP; [`BaseBackup::restore_into`] unpacks them into a
//!   directory, checks every file against the manifest and makes them durable;
//! - [`Replication`]: WAL as it is written, with the receiver's own positions going back.
//!
//! Every wait has a deadline, every buffer a bound. A future may be dropped at any await: streams go on where they were
//! with the next call, a command that was abandoned half-way makes the connection refuse further ones
//! ([`Error::Abandoned`]).
//!
//! TCP's own keepalives and TCP_USER_TIMEOUT are not set: every read and write waits for a bounded time, which notices a
//! dead peer earlier. A manifest covers every file but WAL segments; those carry a checksum in every record, which
//! PostgreSQL checks when it replays them.
//!
//! What is not here: SQL (a `Database` connection can run simple queries, but drivers do it better), logical
//! replication, and any judgement about who may follow whom.

#![forbid(unsafe_code)]

mod auth;
mod backup;
mod client;
mod commands;
mod config;
mod error;
mod frames;
mod history;
mod replication;
mod restore;
mod stream;
mod tls;

pub use backup::{BackupEvent, BackupOptions, BackupPosition, BaseBackup, Tablespace};
pub use client::Client;
pub use commands::{CreatedSlot, IdentifySystem, Slot};
pub use config::{Config, Mode, Password, Target};
pub use error::{Error, ServerError};
pub use history::{History, HistoryEntry, HistoryFile};
pub use replication::{Event, Replication, ReplicationOptions, Status};
pub use restore::{
    Durability, Manifest, ManifestFile, ManifestProblem, RestoreOptions, RestoreProgress, Restored, WalRange,
};
pub use tls::tls_config;
