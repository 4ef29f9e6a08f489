//! Places in the write-ahead log.

use crate::Malformed;
use std::{fmt, str::FromStr};

/// A byte position in PostgreSQL's WAL (log sequence number), written `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes from `earlier` to `self`; 0 when `self` is not later.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        let bad = || Malformed::new("an LSN is two hexadecimal numbers with a slash, like 16/B374D848", s);
        let (high, low) = s.split_once('/').ok_or_else(bad)?;
        let part = |t: &str| {
            if t.is_empty() || t.len() > 8 || !t.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            u32::from_str_radix(t, 16).map_err(|_| bad())
        };
        Ok(Self((u64::from(part(high)?) << 32) | u64::from(part(low)?)))
    }
}

/// A PostgreSQL timeline id. In pgconvoy it is always the number of the epoch whose leader writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How much of the log a member holds: the epoch (= timeline) of its last record first, its end second.
///
/// Positions compare in this order and never by LSN alone: a long tail of an old epoch is worth less than one record of
/// a later epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Timeline of the last record, which is the number of its epoch.
    pub timeline: TimelineId,
    /// End of the last record.
    pub end: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.end, self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_it_writes() {
        for n in [0, 1, 0xFFFF_FFFF, 0x1_0000_0000, 0x16_B374_D848, u64::MAX] {
            assert_eq!(Lsn(n).to_string().parse::<Lsn>().unwrap(), Lsn(n));
        }
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
    }

    #[test]
    fn lsn_refuses_what_is_none() {
        for s in ["", "/", "1", "1/", "/1", "1/2/3", "g/1", "123456789/1", "-1/1", "+1/1", " 1/1"] {
            assert!(s.parse::<Lsn>().is_err(), "{s:?}");
        }
    }

    #[test]
    fn a_later_epoch_beats_a_longer_log() {
        let old = Position { timeline: TimelineId(3), end: Lsn(900) };
        let new = Position { timeline: TimelineId(4), end: Lsn(100) };
        assert!(new > old);
    }
}
