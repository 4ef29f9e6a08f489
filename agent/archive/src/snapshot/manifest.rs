//! What a snapshot is: `manifest.json`.

use super::error::Error;
use crate::{
    layout::{self, FORMAT},
    store::{Store, read, walk},
};
use pgconvoy_terms::{Epoch, Lsn, SystemId};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The name of a snapshot: letters, digits and dashes, at most 60. Names that begin with the time sort by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(String);

impl FromStr for SnapshotId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if (1..=60).contains(&s.len()) && s.bytes().all(good) {
            return Ok(Self(s.to_owned()));
        }
        Err(Error::Id(format!("a snapshot's name is 1 to 60 letters, digits and dashes, got {s:?}")))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartInfo {
    /// Its number, from 0; its object is `part/<8 digits>.tar.zst`.
    pub number: u32,
    /// Bytes of the object.
    pub size: u64,
    /// CRC32C of the object.
    pub crc32c: u32,
    /// Bytes of the files in it.
    pub unpacked: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The format of the snapshot.
    pub format: u32,
    /// The epoch in which it was taken: number, dot, id.
    #[serde(with = "text")]
    pub epoch: Epoch,
    /// Where recovery begins.
    #[serde(with = "text")]
    pub start: Lsn,
    /// Up to where WAL must be replayed before the copy is consistent.
    #[serde(with = "text")]
    pub stop: Lsn,
    /// PostgreSQL's version, as it writes it.
    pub postgresql: String,
    /// The parts.
    pub parts: Vec<PartInfo>,
    /// When it was begun, in RFC 3339, for people.
    pub time: String,
}

/// As text, the way PostgreSQL and people write it.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::{fmt::Display, str::FromStr};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'d, T: FromStr<Err: Display>, D: Deserializer<'d>>(d: D) -> Result<T, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

pub(crate) fn folder(system: SystemId, id: &SnapshotId) -> String {
    format!("{system}/snapshots/{id}/")
}

pub(crate) fn manifest_key(system: SystemId, id: &SnapshotId) -> String {
    format!("{}manifest.json", folder(system, id))
}

pub(crate) fn part_key(system: SystemId, id: &SnapshotId, number: u32) -> String {
    format!("{}part/{number:08}.tar.zst", folder(system, id))
}

pub(crate) fn pg_manifest_key(system: SystemId, id: &SnapshotId) -> String {
    format!("{}backup_manifest.zst", folder(system, id))
}

/// Reads a snapshot's manifest; `None`: there is no such snapshot, or it was never finished.
///
/// # Errors
/// As the store's calls; [`layout::Error::Damaged`], [`layout::Error::Newer`].
pub async fn read_manifest(store: &dyn Store, system: SystemId, id: &SnapshotId) -> Result<Option<Manifest>, Error> {
    let key = manifest_key(system, id);
    let Some(bytes) = read(store, &key).await? else { return Ok(None) };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| layout::Error::damaged(&key, e.to_string()))?;
    if manifest.format > FORMAT {
        return Err(layout::Error::Newer { key, found: manifest.format }.into());
    }
    Ok(Some(manifest))
}

/// The snapshots of a system, by name; unfinished ones, too.
///
/// # Errors
/// As the store's calls.
pub async fn list(store: &dyn Store, system: SystemId) -> Result<Vec<SnapshotId>, Error> {
    let prefix = format!("{system}/snapshots/");
    let mut found = Vec::new();
    walk(store, &prefix, None, true, |page| {
        let name = |folder: &String| folder.strip_prefix(&prefix)?.strip_suffix('/')?.parse().ok();
        found.extend(page.folders.iter().filter_map(name));
        true
    })
    .await?;
    found.sort();
    Ok(found)
}
