//! Where an epoch's archive stands, before anything more is shipped.

use crate::{
    layout::{Claim, EpochDir, Error, Piece, begins, decompress, gaps, parse_segment},
    store::{Store, read, walk},
};
use pgconvoy_terms::{Lsn, SegmentName};
use std::collections::BTreeSet;

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The segment under way: all before it, from where the survey began, are there whole.
    pub segment: Lsn,
    /// Up to where there is WAL without a gap, whole segments and pieces together.
    pub archived: Lsn,
    /// The number of the next piece.
    pub next_piece: u32,
    /// Pieces of the segment under way, in order.
    pub pieces: Vec<Piece>,
    /// Pieces of segments that are there whole, so that they may go.
    pub superseded: Vec<Piece>,
}

/// Looks where to go on. `from` is a position up to which the archive is known to be complete; it saves looking at
/// everything.
///
/// # Errors
/// As the store's calls; [`Error::Damaged`] when the last piece cannot be read.
pub async fn survey(store: &dyn Store, dir: &EpochDir, claim: &Claim, from: Lsn) -> Result<Standing, Error> {
    let size = claim.segment_size;
    let first = |lsn: Lsn| Lsn(lsn.0 - lsn.0 % size);
    let mut pieces = Vec::new();
    walk(store, &dir.live(), None, false, |page| {
        pieces.extend(page.objects.iter().filter_map(|o| Piece::parse(&o.key)));
        true
    })
    .await?;
    pieces.sort_unstable();

    // Pieces whose segment came after all are looked for as well, so the listing begins with the oldest of them.
    // What retention has removed is no gap; behind what is known to be missing for good it goes on.
    let retained = begins(store, dir).await?.into_iter().map(|(lsn, _)| lsn).max().unwrap_or_default();
    let missing = gaps(store, dir.system).await?.into_iter().filter(|g| g.dir == *dir).map(|g| g.to).max();
    let begin = first(from.max(claim.start).max(retained).max(missing.unwrap_or_default()));
    let oldest = pieces.iter().map(|p| first(p.start)).min().map_or(begin, |oldest| oldest.min(begin));
    let before = format!("{}{}", dir.wal(), SegmentName::holding(dir.timeline(), oldest, size));
    let mut whole = BTreeSet::new();
    walk(store, &dir.wal(), Some(&before), true, |page| {
        whole.extend(page.objects.iter().filter_map(|o| Some(parse_segment(&o.key)?.start(size))));
        true
    })
    .await?;

    let mut segment = begin;
    while whole.contains(&segment) {
        segment = Lsn(segment.0 + size);
    }
    let next_piece = pieces.last().map_or(1, |p| p.number.saturating_add(1));
    let (superseded, rest): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|p| whole.contains(&first(p.start)));
    let pieces: Vec<_> = rest.into_iter().filter(|p| first(p.start) == segment).collect();
    let archived = end_of(store, dir, segment, &pieces).await?;
    Ok(Standing { segment, archived, next_piece, pieces, superseded })
}

/// How far pieces cover a segment from its start on without a gap.
async fn end_of(store: &dyn Store, dir: &EpochDir, segment: Lsn, pieces: &[Piece]) -> Result<Lsn, Error> {
    let mut end = segment;
    for (n, piece) in pieces.iter().enumerate() {
        if piece.start > end {
            break;
        }
        // A piece goes to where the next one begins; the last has to be looked at.
        match pieces.get(n + 1) {
            Some(next) if next.start > piece.start => end = end.max(next.start),
            _ => {
                let key = dir.piece(*piece);
                let Some(object) = read(store, &key).await? else { break };
                end = end.max(decompress(&key, &object)?.0.end);
            }
        }
    }
    Ok(end)
}
