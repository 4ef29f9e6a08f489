//! WAL segments.

use crate::{Lsn, Malformed, TimelineId};
use std::{fmt, str::FromStr};

/// The name of a WAL segment file, 24 hexadecimal digits: timeline, and the segment's number in two halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline it belongs to.
    pub timeline: TimelineId,
    /// High half of the number (which 4 GiB of the log).
    pub log: u32,
    /// Low half (which segment within them).
    pub segment: u32,
}

impl SegmentName {
    /// The segment of `timeline` that holds the byte at `lsn`; `segment_size` in bytes (a power of two, 1 MiB to 1 GiB).
    pub fn holding(timeline: TimelineId, lsn: Lsn, segment_size: u64) -> Self {
        let number = lsn.0 / segment_size;
        let per_log = 0x1_0000_0000 / segment_size;
        Self { timeline, log: (number / per_log) as u32, segment: (number % per_log) as u32 }
    }

    /// Where the segment begins.
    pub fn start(&self, segment_size: u64) -> Lsn {
        Lsn((u64::from(self.log) << 32) + u64::from(self.segment) * segment_size)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.segment)
    }
}

impl FromStr for SegmentName {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        let bad = || Malformed::new("a WAL segment's name is 24 hexadecimal digits in upper case", s);
        if s.len() != 24 || !s.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)) {
            return Err(bad());
        }
        let part = |i: usize| u32::from_str_radix(&s[i..i + 8], 16).map_err(|_| bad());
        Ok(Self { timeline: TimelineId(part(0)?), log: part(8)?, segment: part(16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_postgresqls_own() {
        let mib16 = 16 << 20;
        let s = SegmentName::holding(TimelineId(9), Lsn(0x5_0300_0001), mib16);
        assert_eq!(s.to_string(), "000000090000000500000003");
        assert_eq!(s.start(mib16), Lsn(0x5_0300_0000));
        assert_eq!(s.to_string().parse::<SegmentName>().unwrap(), s);
        assert!("00000009.history".parse::<SegmentName>().is_err());
    }
}
