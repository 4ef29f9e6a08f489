//! Which WAL matters: an idle PostgreSQL writes checkpoints and lists of running transactions, and nothing is lost
//! with those.
//!
//! Only page and record headers are looked at. What is not understood matters; the next segment is understood again,
//! because its first page says where its first record begins.

use bytes::Buf;
use pgconvoy_terms::Lsn;

const PAGE: u64 = 8192;
/// Of a segment's first page, and of all others.
const LONG_PAGE_HEADER: u64 = 40;
const PAGE_HEADER: u64 = 24;
const RECORD_HEADER: usize = 24;
/// Flag of a page that begins inside a record.
const CONTINUED: u16 = 1;

/// PostgreSQL's resource managers and the kinds of their records that are looked for.
const XLOG: u8 = 0;
const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_CHECKPOINT_REDO: u8 = 0xE0;
const STANDBY: u8 = 8;
const STANDBY_RUNNING_XACTS: u8 = 0x10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of a record are still to come.
    Inside(u64),
    /// A record begins at the next multiple of eight.
    Between,
    /// The rest of this segment is empty.
    Filled,
    /// Not understood.
    Lost,
}

/// Follows WAL from the start of a segment on.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    segment_size: u64,
    at: u64,
    state: State,
    /// The first bytes of a page's header, and of a record's.
    page: Vec<u8>,
    record: Vec<u8>,
}

impl Scanner {
    pub(super) fn new(segment_start: Lsn, segment_size: u64) -> Self {
        Self { segment_size, at: segment_start.0, state: State::Lost, page: Vec::new(), record: Vec::new() }
    }

    /// Whether these bytes, which follow what came before, hold a record that matters.
    pub(super) fn matters(&mut self, mut bytes: &[u8]) -> bool {
        let mut matters = false;
        while !bytes.is_empty() {
            let in_page = self.at % PAGE;
            let header = self.page_header_length();
            let limit = if in_page < header { header - in_page } else { PAGE - in_page };
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(limit).unwrap_or(usize::MAX)));
            if in_page < header {
                self.page_header(now, header)
            } else {
                matters |= self.payload(now)
            };
            bytes = later;
        }
        matters
    }

    fn page_header_length(&self) -> u64 {
        let page = self.at - self.at % PAGE;
        if page.is_multiple_of(self.segment_size) { LONG_PAGE_HEADER } else { PAGE_HEADER }
    }

    fn page_header(&mut self, bytes: &[u8], length: u64) {
        self.page.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
        if (self.page.len() as u64) < length {
            return;
        }
        let page = std::mem::take(&mut self.page);
        let (mut info, mut rest) = (&page[2..], &page[16..]);
        let (continued, rest) = (info.get_u16_le() & CONTINUED != 0, u64::from(rest.get_u32_le()));
        if length == LONG_PAGE_HEADER {
            self.record.clear();
            self.state = if continued { State::Inside(rest) } else { State::Between };
        } else if let State::Inside(expected) = self.state
            && expected > 0
            && (!continued || rest != expected)
        {
            // A record that was given up: its server died while it wrote it.
            self.state = State::Lost;
        }
    }

    fn payload(&mut self, mut bytes: &[u8]) -> bool {
        let mut matters = false;
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Inside(rest) => {
                    let taken = rest.min(bytes.len() as u64);
                    self.state = if taken == rest { State::Between } else { State::Inside(rest - taken) };
                    taken as usize
                }
                State::Between if self.record.is_empty() && !self.at.is_multiple_of(8) => {
                    bytes.len().min((8 - self.at % 8) as usize)
                }
                State::Between => {
                    let taken = bytes.len().min(RECORD_HEADER - self.record.len());
                    self.record.extend_from_slice(&bytes[..taken]);
                    if self.record.len() == RECORD_HEADER {
                        matters |= self.record_header();
                    }
                    taken
                }
                State::Filled => bytes.len(),
                State::Lost => {
                    matters = true;
                    bytes.len()
                }
            };
            self.at += taken as u64;
            bytes = &bytes[taken..];
        }
        matters
    }

    fn record_header(&mut self) -> bool {
        let record = std::mem::take(&mut self.record);
        let length = u64::from((&record[..4]).get_u32_le());
        let (kind, manager) = (record[16] & 0xF0, record[17]);
        self.state = match length.checked_sub(RECORD_HEADER as u64) {
            _ if length == 0 => State::Filled,
            None => State::Lost,
            Some(_) if (manager, kind) == (XLOG, XLOG_SWITCH) => State::Filled,
            Some(rest) => State::Inside(rest),
        };
        !matches!(
            (manager, kind),
            (XLOG, XLOG_CHECKPOINT_ONLINE | XLOG_CHECKPOINT_REDO) | (STANDBY, STANDBY_RUNNING_XACTS)
        ) && length != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    const SEGMENT: u64 = 1 << 20;

    /// Writes WAL as PostgreSQL lays it out.
    struct Writer {
        wal: Vec<u8>,
    }

    impl Writer {
        fn put(&mut self, record: &[u8]) {
            while !self.wal.len().is_multiple_of(8) {
                self.wal.push(0);
            }
            let mut left = record;
            let mut begun = false;
            while !left.is_empty() {
                if (self.wal.len() as u64).is_multiple_of(PAGE) {
                    let length =
                        if (self.wal.len() as u64).is_multiple_of(SEGMENT) { LONG_PAGE_HEADER } else { PAGE_HEADER };
                    let mut header = Vec::new();
                    header.put_u16_le(0xD110);
                    header.put_u16_le(u16::from(begun));
                    header.put_u32_le(1);
                    header.put_u64_le(self.wal.len() as u64);
                    header.put_u32_le(if begun { left.len() as u32 } else { 0 });
                    header.resize(length as usize, 0);
                    self.wal.extend(header);
                }
                let room = (PAGE - self.wal.len() as u64 % PAGE) as usize;
                let (now, later) = left.split_at(left.len().min(room));
                self.wal.extend_from_slice(now);
                left = later;
                begun = true;
            }
        }

        fn record(&mut self, manager: u8, kind: u8, data: usize) {
            let mut record = Vec::new();
            record.put_u32_le((RECORD_HEADER + data) as u32);
            record.put_u32_le(0);
            record.put_u64_le(0);
            record.put_u8(kind);
            record.put_u8(manager);
            record.put_u16_le(0);
            record.put_u32_le(0xAAAA_AAAA);
            record.resize(RECORD_HEADER + data, 0xBB);
            self.put(&record);
        }
    }

    /// Each record's end, and whether it matters.
    fn log() -> (Vec<u8>, Vec<(usize, bool)>) {
        let (mut w, mut ends) = (Writer { wal: Vec::new() }, Vec::new());
        let mut n = 0u32;
        while (w.wal.len() as u64) < 2 * SEGMENT + 3 * PAGE {
            n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let size = (n >> 12) as usize % 20_000;
            let (manager, kind, matters) = match n >> 30 {
                0 => (XLOG, XLOG_CHECKPOINT_ONLINE, false),
                1 => (STANDBY, STANDBY_RUNNING_XACTS, false),
                2 => (1, 0, true),
                _ => (10, 0x10, true),
            };
            w.record(manager, kind, size);
            ends.push((w.wal.len(), matters));
        }
        (w.wal, ends)
    }

    #[test]
    fn each_record_is_recognised_however_the_bytes_come() {
        let (wal, ends) = log();
        let mut scanner = Scanner::new(Lsn(0), SEGMENT);
        let mut from = 0;
        for (end, matters) in ends {
            // In odd pieces; the last one ends with the record.
            let mut found = false;
            for piece in wal[from..end].chunks(1 + end % 977) {
                found |= scanner.matters(piece);
            }
            assert_eq!(found, matters, "record that ends at {end}");
            from = end;
        }
    }

    #[test]
    fn it_finds_its_way_from_any_segment_on() {
        let (wal, ends) = log();
        let mut scanner = Scanner::new(Lsn(SEGMENT), SEGMENT);
        let mut from = SEGMENT as usize;
        for (end, matters) in ends.into_iter().skip_while(|(end, _)| *end as u64 <= SEGMENT).skip(1) {
            let begins = from;
            let found = scanner.matters(&wal[from..end]);
            if begins > SEGMENT as usize {
                assert_eq!(found, matters, "record that ends at {end}");
            }
            from = end;
        }
    }

    #[test]
    fn what_is_not_understood_matters_until_the_next_segment() {
        let mut w = Writer { wal: Vec::new() };
        w.record(XLOG, XLOG_CHECKPOINT_ONLINE, 10);
        let mut scanner = Scanner::new(Lsn(0), SEGMENT);
        assert!(!scanner.matters(&w.wal));
        assert!(scanner.matters(&[5; 64]), "a record of 0x05050505 bytes, of manager 5");
        let rest = vec![0; SEGMENT as usize - w.wal.len() - 64];
        assert!(scanner.matters(&rest), "a page that does not go on with it");
        let mut next = Writer { wal: Vec::new() };
        next.record(STANDBY, STANDBY_RUNNING_XACTS, 10);
        assert!(!scanner.matters(&next.wal));
    }

    #[test]
    fn after_a_switch_the_segment_is_empty() {
        let mut w = Writer { wal: Vec::new() };
        w.record(XLOG, XLOG_SWITCH, 0);
        let mut scanner = Scanner::new(Lsn(0), SEGMENT);
        assert!(scanner.matters(&w.wal));
        assert!(!scanner.matters(&vec![0; SEGMENT as usize - w.wal.len()]));
        let mut next = Writer { wal: Vec::new() };
        next.record(1, 0, 100);
        assert!(scanner.matters(&next.wal));
    }
}
