//! One segment, whole or from its pieces.

use super::{chain::Link, error::Error, unpack::unpack};
use crate::{
    layout::{Piece, parse_segment},
    store::{Store, walk},
};
use pgconvoy_terms::{Lsn, SegmentName};
use std::{fs, path::Path};

/// Fetches a segment that is there whole; `false`: it is not.
pub(super) async fn whole(store: &dyn Store, link: &Link, segment: SegmentName, to: &Path) -> Result<bool, Error> {
    let (key, size) = (link.dir.segment(segment), link.claim.segment_size);
    let Some(download) = store.open(&key).await? else { return Ok(false) };
    let base = segment.start(size);
    let header = unpack(&key, download, to, base, size).await?;
    if header.start != base || header.length() != size {
        return Err(crate::layout::Error::damaged(&key, "it is no whole segment").into());
    }
    Ok(true)
}

/// Puts a segment together from its pieces, as far as they go; the rest is zeros. The answer is where they end;
/// `None`: there are none.
pub(super) async fn pieces(
    store: &dyn Store,
    link: &Link,
    segment: SegmentName,
    to: &Path,
) -> Result<Option<Lsn>, Error> {
    let size = link.claim.segment_size;
    let base = segment.start(size);
    let mut all = Vec::new();
    walk(store, &link.dir.live(), None, false, |page| {
        let inside = |p: &Piece| p.start >= base && p.start.bytes_since(base) < size;
        all.extend(page.objects.iter().filter_map(|o| Piece::parse(&o.key)).filter(inside));
        true
    })
    .await?;
    all.sort_unstable();
    let mut end = base;
    for piece in all {
        // A piece that leaves a gap is of no use; what lies behind it may be.
        if piece.start > end {
            continue;
        }
        let key = link.dir.piece(piece);
        let Some(download) = store.open(&key).await? else { continue };
        let header = unpack(&key, download, to, base, size).await?;
        if header.start != piece.start {
            return Err(crate::layout::Error::damaged(&key, "its header names another start").into());
        }
        end = end.max(header.end);
    }
    if end == base {
        return Ok(None);
    }
    let file = fs::File::options().write(true).open(to).map_err(Error::disk("open", to))?;
    // What a piece before wrote behind `end` is none of the log: there is nothing.
    file.set_len(end.bytes_since(base)).and_then(|()| file.set_len(size)).map_err(Error::disk("extend", to))?;
    Ok(Some(end))
}

/// The beginning of the last object that the epoch has behind this segment, before its end, or of one at or behind `enough`;
/// `None`: there is none.
pub(super) async fn last_behind(
    store: &dyn Store,
    link: &Link,
    segment: SegmentName,
    enough: Lsn,
) -> Result<Option<Lsn>, Error> {
    let size = link.claim.segment_size;
    let next = Lsn(segment.start(size).0 + size);
    let counts = |lsn: &Lsn| *lsn >= next && link.until.is_none_or(|until| *lsn < until);
    let mut last = None;
    let after = link.dir.segment(segment);
    walk(store, &link.dir.wal(), Some(&after), false, |page| {
        let start = |key: &str| parse_segment(key).map(|s| s.start(size)).or_else(|| Some(Piece::parse(key)?.start));
        last = last.max(page.objects.iter().filter_map(|o| start(&o.key)).filter(counts).max());
        last.is_none_or(|last| last < enough)
    })
    .await?;
    Ok(last)
}
