//! WAL becomes zstd frames. Each byte is compressed once: a piece is the frames since the last piece, a whole segment
//! is all of its frames.

use crate::{
    checksum::Crc32c,
    layout::{Compressor, HEADER_LENGTH, Header},
};
use bytes::Bytes;
use pgconvoy_terms::Lsn;
use std::io;

#[derive(Debug)]
pub(super) struct Framer {
    compressor: Compressor,
    /// Whether frames are kept until their segment is whole.
    whole: bool,
    segment: Span,
    piece: Span,
    /// Room for a header, and the frames of the segment so far.
    frames: Vec<u8>,
    /// Where the frames since the last piece begin.
    since_piece: usize,
}

#[derive(Debug)]
struct Span {
    start: Lsn,
    end: Lsn,
    crc32c: Crc32c,
}

impl Span {
    fn new(start: Lsn) -> Self {
        Self { start, end: start, crc32c: Crc32c::new() }
    }

    fn add(&mut self, wal: &[u8]) {
        self.end = Lsn(self.end.0 + wal.len() as u64);
        self.crc32c.update(wal);
    }

    fn header(&self) -> Header {
        Header { start: self.start, end: self.end, crc32c: self.crc32c.value() }
    }
}

impl Framer {
    pub(super) fn new(segment: Lsn, whole: bool) -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new()?,
            whole,
            segment: Span::new(segment),
            piece: Span::new(segment),
            frames: vec![0; HEADER_LENGTH],
            since_piece: HEADER_LENGTH,
        })
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn add(&mut self, wal: &[u8]) -> io::Result<()> {
        let frame = self.compressor.frame(wal)?;
        self.frames.extend_from_slice(&frame);
        self.segment.add(wal);
        self.piece.add(wal);
        Ok(())
    }

    /// What came since the last piece is in the archive already.
    pub(super) fn skip_piece(&mut self) {
        self.piece = Span::new(self.piece.end);
        if !self.whole {
            self.frames.truncate(HEADER_LENGTH);
        }
        self.since_piece = self.frames.len();
    }

    /// The object of the next piece.
    pub(super) fn piece(&mut self) -> Bytes {
        let frames = &self.frames[self.since_piece..];
        let mut object = Vec::with_capacity(HEADER_LENGTH + frames.len());
        object.extend_from_slice(&self.piece.header().to_bytes());
        object.extend_from_slice(frames);
        self.skip_piece();
        object.into()
    }

    /// The object of the whole segment; the next one begins.
    pub(super) fn segment(&mut self) -> Bytes {
        let mut object = std::mem::replace(&mut self.frames, vec![0; HEADER_LENGTH]);
        object[..HEADER_LENGTH].copy_from_slice(&self.segment.header().to_bytes());
        (self.segment, self.piece) = (Span::new(self.segment.end), Span::new(self.segment.end));
        self.since_piece = HEADER_LENGTH;
        object.into()
    }

    /// The next segment begins, and this one is not sent whole.
    pub(super) fn next_segment(&mut self) {
        self.segment = Span::new(self.segment.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::decompress;

    #[test]
    fn pieces_and_segment_are_the_same_wal() {
        let mut framer = Framer::new(Lsn(1000), true).unwrap();
        framer.add(b"in the archive already").unwrap();
        framer.skip_piece();
        framer.add(&[1; 5000]).unwrap();
        framer.add(&[2; 10]).unwrap();
        let first = decompress("k", &framer.piece()).unwrap();
        framer.add(b"the end").unwrap();
        let last = decompress("k", &framer.piece()).unwrap();
        let whole = decompress("k", &framer.segment()).unwrap();
        assert_eq!((first.0.start, first.0.end, last.0.end), (Lsn(1022), Lsn(6032), Lsn(6039)));
        assert_eq!((whole.0.start, whole.0.end), (Lsn(1000), Lsn(6039)));
        assert_eq!(whole.1[22..], [&first.1[..], &last.1[..]].concat());
        framer.add(b"next").unwrap();
        assert_eq!(decompress("k", &framer.piece()).unwrap().0.start, Lsn(6039));
    }

    #[test]
    fn where_only_pieces_count_nothing_is_kept() {
        let mut framer = Framer::new(Lsn(0), false).unwrap();
        framer.add(&[1; 5000]).unwrap();
        let _ = framer.piece();
        assert_eq!(framer.held(), HEADER_LENGTH);
        framer.next_segment();
        framer.add(&[1; 5000]).unwrap();
        let (header, _) = decompress("k", &framer.piece()).unwrap();
        assert_eq!((header.start, header.end), (Lsn(5000), Lsn(10000)));
    }
}
