//! A WAL object: a header in a skippable zstd frame, then zstd frames of WAL.
//!
//! `zstd -d` passes over the header and joins the frames, so an object is decompressed by it like any other, and so are
//! objects that are put one behind the other.

use super::error::Error;
use crate::checksum::crc32c;
use bytes::{Buf, BufMut, Bytes};
use pgconvoy_terms::Lsn;
use std::io;

/// The first of zstd's sixteen skippable frames.
const SKIPPABLE: u32 = 0x184D_2A50;
const MAGIC: &[u8; 4] = b"PGCW";
const VERSION: u32 = 1;
const PAYLOAD: u32 = 32;
/// How long a header is, in bytes.
pub(crate) const HEADER_LENGTH: usize = 8 + PAYLOAD as usize;

/// What a WAL object says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its first byte.
    pub start: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    /// CRC32C of the WAL between them, uncompressed.
    pub crc32c: u32,
}

impl Header {
    /// The header as it stands in the object.
    pub fn to_bytes(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = Vec::with_capacity(HEADER_LENGTH);
        bytes.put_u32_le(SKIPPABLE);
        bytes.put_u32_le(PAYLOAD);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u64_le(self.start.0);
        bytes.put_u64_le(self.end.0);
        bytes.put_u32_le(self.crc32c);
        bytes.put_u32_le(crc32c(&bytes[8..]));
        let mut header = [0; HEADER_LENGTH];
        header.copy_from_slice(&bytes);
        header
    }

    /// Reads the header of an object.
    ///
    /// # Errors
    /// A sentence: it is too short, of another kind, or its own checksum differs.
    pub fn parse(object: &[u8]) -> Result<Self, String> {
        let Some(header) = object.get(..HEADER_LENGTH) else {
            return Err(format!("{} bytes are no header", object.len()));
        };
        let (mut fields, mut sum) = (&header[8..], &header[HEADER_LENGTH - 4..]);
        if header[..4] != SKIPPABLE.to_le_bytes() || header[4..8] != PAYLOAD.to_le_bytes() || &fields[..4] != MAGIC {
            return Err("it does not begin with a header of pgconvoy".into());
        }
        if sum.get_u32_le() != crc32c(&header[8..HEADER_LENGTH - 4]) {
            return Err("its header's checksum differs".into());
        }
        fields.advance(4);
        let version = fields.get_u32_le();
        if version != VERSION {
            return Err(format!("its header is of version {version}, this version of pgconvoy reads {VERSION}"));
        }
        let header =
            Self { start: Lsn(fields.get_u64_le()), end: Lsn(fields.get_u64_le()), crc32c: fields.get_u32_le() };
        if header.end < header.start { Err("it ends before it begins".into()) } else { Ok(header) }
    }

    /// How many bytes of WAL there are.
    pub fn length(&self) -> u64 {
        self.end.bytes_since(self.start)
    }
}

/// The WAL of an object, checked against its header.
///
/// # Errors
/// [`Error::Damaged`].
pub fn decompress(key: &str, object: &[u8]) -> Result<(Header, Bytes), Error> {
    let damaged = |why: String| Error::damaged(key, why);
    let header = Header::parse(object).map_err(damaged)?;
    let length = usize::try_from(header.length()).map_err(|e| damaged(e.to_string()))?;
    let mut wal = Vec::new();
    // One byte more than announced would be noticed; all of a bomb is never unpacked.
    let mut decoder = zstd::stream::read::Decoder::with_buffer(object).map_err(|e| damaged(e.to_string()))?;
    let mut limited = io::Read::take(&mut decoder, length as u64 + 1);
    io::Read::read_to_end(&mut limited, &mut wal).map_err(|e| damaged(e.to_string()))?;
    if wal.len() != length {
        return Err(damaged(format!("its header announces {length} bytes of WAL, it holds another number")));
    }
    if crc32c(&wal) != header.crc32c {
        return Err(damaged("the checksum of its WAL differs".into()));
    }
    Ok((header, wal.into()))
}

/// Makes zstd frames, each with its own checksum.
pub(crate) struct Compressor(zstd::bulk::Compressor<'static>);

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// zstd's level 1: WAL compresses little better with more.
    pub(crate) fn new() -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(1)?;
        compressor.include_checksum(true)?;
        Ok(Self(compressor))
    }

    /// One frame of these bytes.
    pub(crate) fn frame(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.0.compress(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(wal: &[&[u8]]) -> Vec<u8> {
        let whole = wal.concat();
        let start = Lsn(0x300_0000);
        let header = Header { start, end: Lsn(start.0 + whole.len() as u64), crc32c: crc32c(&whole) };
        let mut compressor = Compressor::new().unwrap();
        let mut object = header.to_bytes().to_vec();
        wal.iter().for_each(|part| object.extend(compressor.frame(part).unwrap()));
        object
    }

    #[test]
    fn an_object_is_read_as_it_was_written() {
        let object = object(&[&[7; 100_000], b"", b"end"]);
        let (header, wal) = decompress("k", &object).unwrap();
        assert_eq!((header.length(), wal.len()), (100_003, 100_003));
        assert!(wal.starts_with(&[7; 100_000]) && wal.ends_with(b"end"));
        // And by any decoder of zstd.
        assert_eq!(zstd::decode_all(&object[..]).unwrap(), wal);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let object = object(&[b"some bytes of a log", b"and more of them"]);
        for byte in 0..object.len() {
            let mut damaged = object.clone();
            damaged[byte] ^= 4;
            assert!(decompress("k", &damaged).is_err(), "byte {byte}");
        }
        for length in 0..object.len() {
            assert!(decompress("k", &object[..length]).is_err(), "cut to {length}");
        }
    }
}
