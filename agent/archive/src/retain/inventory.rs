//! What lies in an archive, as far as retention and people ask.

use crate::{
    layout::{EpochDir, Error, epochs, read_claim},
    snapshot::{self, Manifest, SnapshotId, read_manifest},
    store::{Listed, Store, walk},
};
use jiff::Timestamp;
use pgconvoy_terms::{Epoch, Lsn, SystemId};
use std::collections::BTreeMap;

/// A complete snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// Its name.
    pub id: SnapshotId,
    /// The epoch in which it was taken.
    pub epoch: Epoch,
    /// Where its WAL begins.
    pub start: Lsn,
    /// Up to where WAL must be replayed at least.
    pub stop: Lsn,
    /// When it was complete, in seconds since 1970: the later of what the manifest and the store say.
    pub time: i64,
    /// What it takes in the store, in bytes.
    pub bytes: u64,
}

/// What is left of a snapshot that has no manifest: one under way, or one that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name.
    pub id: SnapshotId,
    /// When something was added last, in seconds since 1970; none: the store does not say.
    pub newest: Option<i64>,
    /// What it takes in the store, in bytes.
    pub bytes: u64,
}

/// An epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochSeen {
    /// Where it lies.
    pub dir: EpochDir,
    /// The epoch that it went on from, and where.
    pub parent: Option<(Epoch, Lsn)>,
    /// Bytes of a segment.
    pub segment_size: u64,
}

/// An archive's contents, WAL aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Whose data.
    pub system: SystemId,
    /// Complete snapshots, by name.
    pub good: Vec<Good>,
    /// Incomplete ones, by name.
    pub unfinished: Vec<Unfinished>,
    /// Epochs that were claimed, the lowest first.
    pub epochs: Vec<EpochSeen>,
}

impl Inventory {
    /// Looks at the archive of a system.
    ///
    /// # Errors
    /// As the store's calls; a manifest or a claim that is damaged or of a later version: then nobody should delete.
    pub async fn look(store: &dyn Store, system: SystemId) -> Result<Self, snapshot::Error> {
        let prefix = format!("{system}/snapshots/");
        let mut folders: BTreeMap<SnapshotId, Vec<Listed>> = BTreeMap::new();
        walk(store, &prefix, None, false, |page| {
            for object in page.objects {
                let id = object.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')?.0.parse().ok());
                if let Some(id) = id {
                    folders.entry(id).or_default().push(object);
                }
            }
            true
        })
        .await?;
        let mut inventory = Self { system, good: vec![], unfinished: vec![], epochs: vec![] };
        for (id, objects) in folders {
            let bytes = objects.iter().map(|o| o.size).sum();
            match read_manifest(store, system, &id).await? {
                Some(manifest) => inventory.good.push(good(id, &manifest, &objects, bytes)),
                None => {
                    let newest = objects.iter().map(|o| o.modified).max().flatten();
                    inventory.unfinished.push(Unfinished { id, newest, bytes });
                }
            }
        }
        for dir in epochs(store, system).await? {
            if let Some(claim) = read_claim(store, &dir).await? {
                inventory.epochs.push(EpochSeen { dir, parent: claim.parent, segment_size: claim.segment_size });
            }
        }
        Ok(inventory)
    }
}

fn good(id: SnapshotId, manifest: &Manifest, objects: &[Listed], bytes: u64) -> Good {
    let said = manifest.time.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let stored = objects.iter().filter(|o| o.key.ends_with("/manifest.json")).find_map(|o| o.modified);
    Good {
        id,
        epoch: manifest.epoch.clone(),
        start: manifest.start,
        stop: manifest.stop,
        // One that has no time at all is never old.
        time: said.max(stored).unwrap_or(i64::MAX),
        bytes,
    }
}

/// The store's clock, in seconds since 1970, by a small object that is removed again. A store that does not say when an object was
/// written gives `None`.
///
/// # Errors
/// As the store's calls.
pub async fn clock(store: &dyn Store, random: u128) -> Result<Option<i64>, Error> {
    let key = format!("probe-{random:032x}");
    let (crate::store::Put::Stored | crate::store::Put::Exists) =
        store.put_new(&key, bytes::Bytes::from_static(b"clock\n")).await?;
    let listed = store.list(&key, None, false).await;
    if let Err(e) = store.delete(std::slice::from_ref(&key)).await {
        tracing::info!("the object by which the store's clock was read stays: {e}");
    }
    Ok(listed?.objects.first().and_then(|o| o.modified))
}
