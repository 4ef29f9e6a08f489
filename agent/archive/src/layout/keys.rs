//! Names of objects.

use super::error::Error;
use crate::store::{Page, Store, walk};
use pgconvoy_terms::{ChangeId, Epoch, Lsn, SegmentName, SystemId, TimelineId};
use std::fmt;

/// Where an epoch's WAL lies: `<system id>/<timeline>-<epoch id>/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EpochDir {
    /// Which `initdb` the data descends from.
    pub system: SystemId,
    /// The epoch; its number is the timeline.
    pub epoch: Epoch,
}

/// The name of a piece: consecutive numbers within an epoch, from 1, and where its WAL begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Piece {
    /// Its number.
    pub number: u32,
    /// Its first byte.
    pub start: Lsn,
}

impl fmt::Display for EpochDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08X}-{}/", self.system, self.epoch.number, self.epoch.id)
    }
}

impl EpochDir {
    /// Who writes here.
    pub fn claim(&self) -> String {
        format!("{self}claim.json")
    }

    /// The timeline's history file.
    pub fn history(&self) -> String {
        format!("{self}{:08X}.history", self.epoch.number)
    }

    /// What whole segments begin with; pieces begin with it, too.
    pub fn wal(&self) -> String {
        format!("{self}wal/")
    }

    /// What pieces begin with.
    pub fn live(&self) -> String {
        format!("{self}wal/live/")
    }

    /// A whole segment.
    pub fn segment(&self, segment: SegmentName) -> String {
        format!("{self}wal/{segment}.zst")
    }

    /// A piece of a segment.
    pub fn piece(&self, piece: Piece) -> String {
        format!("{self}wal/live/{:08X}-{:016X}.zst", piece.number, piece.start.0)
    }

    /// The timeline.
    pub fn timeline(&self) -> TimelineId {
        self.epoch.timeline()
    }

    /// Reads a folder's name, `<system id>/<timeline>-<epoch id>/`.
    pub fn parse(folder: &str) -> Option<Self> {
        let (system, rest) = folder.strip_suffix('/')?.split_once('/')?;
        let (number, id) = rest.split_once('-')?;
        let epoch = Epoch { number: hexadecimal(number, 8)? as u32, id: id.parse::<ChangeId>().ok()? };
        Some(Self { system: system.parse().ok()?, epoch })
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u64> {
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    (text.len() == digits && text.bytes().all(upper)).then(|| u64::from_str_radix(text, 16).ok())?
}

impl Piece {
    /// Reads a piece's key; `None`: it is something else.
    pub fn parse(key: &str) -> Option<Self> {
        let (folder, name) = key.rsplit_once('/')?;
        let (number, start) = name.strip_suffix(".zst")?.split_once('-')?;
        let piece = Self { number: hexadecimal(number, 8)? as u32, start: Lsn(hexadecimal(start, 16)?) };
        folder.ends_with("wal/live").then_some(piece)
    }
}

/// Reads a whole segment's key; `None`: it is something else.
pub(crate) fn parse_segment(key: &str) -> Option<SegmentName> {
    let (folder, name) = key.rsplit_once('/')?;
    if !folder.ends_with("/wal") {
        return None;
    }
    name.strip_suffix(".zst")?.parse().ok()
}

/// The epochs of a system, lowest first.
///
/// # Errors
/// As the store's calls.
pub async fn epochs(store: &dyn Store, system: SystemId) -> Result<Vec<EpochDir>, Error> {
    let mut found = Vec::new();
    walk(store, &format!("{system}/"), None, true, |page: Page| {
        found.extend(page.folders.iter().filter_map(|f| EpochDir::parse(f)));
        true
    })
    .await?;
    found.sort_by(|a, b| (a.epoch.number, &a.epoch.id).cmp(&(b.epoch.number, &b.epoch.id)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> EpochDir {
        EpochDir {
            system: SystemId(7_300_000_000_000_000_001),
            epoch: Epoch { number: 26, id: "abcdefghijkl2".parse().unwrap() },
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let dir = dir();
        assert_eq!(dir.to_string(), "7300000000000000001/0000001A-abcdefghijkl2/");
        assert_eq!(EpochDir::parse(&dir.to_string()), Some(dir.clone()));
        assert_eq!(dir.history(), format!("{dir}0000001A.history"));
        let segment = SegmentName::holding(dir.timeline(), Lsn(0x5_0300_0001), 16 << 20);
        assert_eq!(dir.segment(segment), format!("{dir}wal/0000001A0000000500000003.zst"));
        assert_eq!(parse_segment(&dir.segment(segment)), Some(segment));
        let piece = Piece { number: 300, start: Lsn(0x5_0300_0000) };
        assert_eq!(dir.piece(piece), format!("{dir}wal/live/0000012C-0000000503000000.zst"));
        assert_eq!(Piece::parse(&dir.piece(piece)), Some(piece));
        assert_eq!((parse_segment(&dir.piece(piece)), Piece::parse(&dir.segment(segment))), (None, None));
    }

    #[test]
    fn pieces_sort_by_number() {
        let key = |number, start| dir().piece(Piece { number, start: Lsn(start) });
        assert!(key(1, u64::MAX) < key(2, 0) && key(0xFFFF_FFFE, 0) < key(u32::MAX, 0));
    }

    #[test]
    fn other_names_are_not_ours() {
        for folder in [
            "",
            "/",
            "x/0000001A-abcdefghijkl2/",
            "7/1A-abcdefghijkl2/",
            "7/0000001a-abcdefghijkl2/",
            "7/0000001A-abc/",
        ] {
            assert_eq!(EpochDir::parse(folder), None, "{folder}");
        }
        for key in ["wal/live/1-0.zst", "7/wal/live/0000012C-0000000503000000", "7/wal/0000012C-0000000503000000.zst"] {
            assert_eq!(Piece::parse(key), None, "{key}");
        }
    }
}
