//! Whether what lies in an archive could be restored: every part is there, and WAL without a gap behind it.

use super::inventory::{Good, Inventory};
use crate::{
    checksum::Crc32c,
    fetch::{self, Chain},
    layout::{Error, Piece, decompress, parse_segment},
    snapshot::{self, SnapshotId, part_key, pg_manifest_key, read_manifest},
    store::{Store, read, walk},
};
use pgconvoy_terms::{Epoch, Lsn, SegmentName, TimelineId};
use std::collections::BTreeSet;

/// How far a snapshot can be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The newest epoch that goes on from it: its timeline.
    pub timeline: TimelineId,
    /// Up to where there is WAL without a gap.
    pub end: Lsn,
    /// When the store got the last object of it, in seconds since 1970.
    pub time: Option<i64>,
    /// Behind the end there is more, which cannot be reached.
    pub gap: bool,
}

/// What is wrong with a snapshot; nothing: it can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The snapshot.
    pub id: SnapshotId,
    /// Sentences.
    pub wrong: Vec<String>,
    /// How far it can be replayed.
    pub reach: Option<Reach>,
}

/// How far a snapshot can be replayed along the way to the newest epoch. `None`: the newest epoch did not go on from it.
///
/// # Errors
/// As the store's calls.
pub async fn reach(store: &dyn Store, inventory: &Inventory, from: &Good) -> Result<Option<Reach>, fetch::Error> {
    let Some(last) = inventory.epochs.last() else { return Ok(None) };
    let chain = Chain::to(store, inventory.system, &last.dir.epoch).await?;
    reach_along(store, &chain, &from.epoch, from.start).await
}

/// How far WAL goes without a gap along a way, from `start` in `epoch` on. `None`: the way does not lead over it.
///
/// # Errors
/// As the store's calls.
pub async fn reach_along(
    store: &dyn Store,
    chain: &Chain,
    epoch: &Epoch,
    start: Lsn,
) -> Result<Option<Reach>, fetch::Error> {
    let (Some(last), Some(way)) = (chain.target(), chain.beginning(epoch, start)) else { return Ok(None) };
    let mut end = start;
    let mut time = None;
    for link in way.iter().rev() {
        let size = link.claim.segment_size;
        let mut segments = BTreeSet::new();
        let mut pieces = Vec::new();
        let begin = Lsn(end.0 - end.0 % size);
        // Behind what was reached already; pieces sort behind all segments.
        let after = format!("{}{}", link.dir.wal(), SegmentName::holding(link.dir.timeline(), begin, size));
        walk(store, &link.dir.wal(), Some(&after), false, |page| {
            for object in &page.objects {
                if let Some(segment) = parse_segment(&object.key) {
                    segments.insert(segment.start(size));
                } else if let Some(piece) = Piece::parse(&object.key) {
                    pieces.push(piece);
                } else {
                    continue;
                }
                time = time.max(object.modified);
            }
            true
        })
        .await?;
        pieces.sort_unstable_by_key(|p| (p.start, p.number));
        let mut here = begin;
        loop {
            let before = here;
            while segments.contains(&Lsn(here.0 - here.0 % size)) {
                here = Lsn(here.0 - here.0 % size + size);
            }
            if let Some(n) = pieces.iter().rposition(|p| p.start <= here && p.start.0 >= here.0 - here.0 % size)
                && let Some(piece) = pieces.get(n)
            {
                here = match pieces.get(n + 1) {
                    // A piece goes to where the one with the next number begins; the last has to be looked at.
                    Some(next) if next.number == piece.number.saturating_add(1) => here.max(next.start),
                    _ => {
                        let key = link.dir.piece(*piece);
                        let object = read(store, &key).await?;
                        let header = object.map(|o| decompress(&key, &o)).transpose()?.map(|(header, _)| header);
                        here.max(header.map_or(here, |h| h.end))
                    }
                };
            }
            if here == before {
                break;
            }
        }
        let there = segments.iter().map(|s| Lsn(s.0 + size)).chain(pieces.iter().map(|p| p.start)).max();
        let until = link.until;
        end = end.max(until.map_or(here, |until| here.min(until)));
        let enough = until.is_some_and(|until| here >= until);
        if !enough && (until.is_some() || there.is_some_and(|there| there > here)) {
            let timeline = link.dir.timeline();
            return Ok(Some(Reach { timeline, end, time, gap: true }));
        }
    }
    Ok(Some(Reach { timeline: last.dir.timeline(), end, time, gap: false }))
}

/// Looks at a snapshot. With `deep`, every part is read and its checksum compared; without, that it is there with its size.
///
/// # Errors
/// As the store's calls.
pub async fn verify(
    store: &dyn Store,
    inventory: &Inventory,
    good: &Good,
    deep: bool,
) -> Result<Finding, snapshot::Error> {
    let mut wrong = Vec::new();
    let system = inventory.system;
    let manifest = read_manifest(store, system, &good.id).await?;
    for part in manifest.iter().flat_map(|m| &m.parts) {
        let key = part_key(system, &good.id, part.number);
        let Some(mut download) = store.open(&key).await? else {
            wrong.push(format!("{key} is missing"));
            continue;
        };
        if download.size() != part.size {
            wrong.push(format!("{key} has {} bytes, the manifest says {}", download.size(), part.size));
        } else if deep {
            let mut sum = Crc32c::new();
            loop {
                match download.chunk().await {
                    Ok(Some(chunk)) => sum.update(&chunk),
                    Ok(None) if sum.value() == part.crc32c => break,
                    Ok(None) => {
                        wrong.push(format!("the checksum of {key} differs"));
                        break;
                    }
                    Err(e) => {
                        wrong.push(e.to_string());
                        break;
                    }
                }
            }
        }
    }
    let key = pg_manifest_key(system, &good.id);
    if store.open(&key).await?.is_none() {
        wrong.push(format!("{key} is missing"));
    }
    let reach = match reach(store, inventory, good).await {
        Ok(Some(reach)) => {
            if reach.end < good.stop {
                wrong.push(format!("its WAL is there up to {} only, and it needs {}", reach.end, good.stop));
            } else if reach.gap {
                wrong.push(format!("behind {} WAL is missing: nothing later can be reached from it", reach.end));
            }
            Some(reach)
        }
        Ok(None) => {
            wrong.push("the newest epoch did not go on from the one in which it was taken".to_owned());
            None
        }
        Err(fetch::Error::Archive(e @ Error::Store(_))) => return Err(e.into()),
        Err(e) => {
            wrong.push(e.to_string());
            None
        }
    };
    Ok(Finding { id: good.id.clone(), wrong, reach })
}
