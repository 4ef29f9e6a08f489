//! Takes a tar archive apart that comes in pieces of any size, without copying its contents.

use crate::error::Error;
use tar::Header;

const BLOCK: usize = 512;

/// Where the entries go.
pub(super) trait Sink {
    /// An entry begins; its contents follow unless its size is 0.
    fn entry(&mut self, header: &Header, size: u64) -> Result<(), Error>;
    /// A piece of its contents.
    fn data(&mut self, piece: &[u8]) -> Result<(), Error>;
    /// The entry is complete.
    fn end(&mut self) -> Result<(), Error>;
}

enum State {
    /// Collecting a header block.
    Header,
    /// Within an entry: bytes of contents left, and the padding behind them.
    Contents { left: u64, padding: usize },
    /// Between an entry and the next header.
    Padding(usize),
    /// The block of zeros has come.
    Done,
}

/// The reader of one archive.
pub(super) struct Untar {
    state: State,
    block: [u8; BLOCK],
    filled: usize,
}

impl Untar {
    pub(super) fn new() -> Self {
        Self { state: State::Header, block: [0; BLOCK], filled: 0 }
    }

    /// Whether the archive may stop here.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes the next piece of the archive.
    pub(super) fn push(&mut self, mut piece: &[u8], sink: &mut impl Sink) -> Result<(), Error> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Header => {
                    let take = piece.len().min(BLOCK - self.filled);
                    let (head, rest) = piece.split_at(take);
                    self.block[self.filled..self.filled + take].copy_from_slice(head);
                    self.filled += take;
                    piece = rest;
                    if self.filled == BLOCK {
                        self.filled = 0;
                        self.header(sink)?;
                    }
                }
                State::Contents { left, padding } => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                    let (head, rest) = piece.split_at(take);
                    sink.data(head)?;
                    *left -= take as u64;
                    piece = rest;
                    if *left == 0 {
                        self.state = State::Padding(*padding);
                        self.after_contents(sink)?;
                    }
                }
                State::Padding(left) => {
                    let take = piece.len().min(*left);
                    *left -= take;
                    piece = &piece[take..];
                    if *left == 0 {
                        self.state = State::Header;
                    }
                }
                // The second block of zeros, and whatever fills the archive up.
                State::Done => return Ok(()),
            }
        }
        Ok(())
    }

    fn header(&mut self, sink: &mut impl Sink) -> Result<(), Error> {
        if self.block.iter().all(|b| *b == 0) {
            self.state = State::Done;
            return Ok(());
        }
        let header = Header::from_byte_slice(&self.block);
        let entry = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let bad = |why: &str| Error::Archive { entry: entry.clone(), why: why.to_owned() };
        let sum: u32 = self.block.iter().map(|b| u32::from(*b)).sum();
        // The checksum counts its own eight bytes as spaces.
        let own: u32 = self.block[148..156].iter().map(|b| u32::from(*b)).sum();
        if header.cksum().ok() != Some(sum - own + 8 * u32::from(b' ')) {
            return Err(bad("its header's checksum is wrong"));
        }
        let size = header.entry_size().map_err(|_| bad("its size is unreadable"))?;
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        sink.entry(header, size)?;
        if size == 0 {
            self.state = State::Padding(0);
            return self.after_contents(sink);
        }
        self.state = State::Contents { left: size, padding };
        Ok(())
    }

    fn after_contents(&mut self, sink: &mut impl Sink) -> Result<(), Error> {
        if matches!(self.state, State::Padding(0)) {
            self.state = State::Header;
        }
        sink.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Seen {
        done: Vec<(String, Vec<u8>)>,
        now: Option<(String, Vec<u8>)>,
    }

    impl Sink for Seen {
        fn entry(&mut self, header: &Header, _: u64) -> Result<(), Error> {
            assert!(self.now.is_none());
            self.now = Some((String::from_utf8_lossy(&header.path_bytes()).into_owned(), Vec::new()));
            Ok(())
        }
        fn data(&mut self, piece: &[u8]) -> Result<(), Error> {
            self.now.iter_mut().for_each(|now| now.1.extend(piece));
            Ok(())
        }
        fn end(&mut self) -> Result<(), Error> {
            self.done.extend(self.now.take());
            Ok(())
        }
    }

    fn archive() -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
        let files: Vec<(String, Vec<u8>)> = [0usize, 1, 511, 512, 513, 1024, 3000]
            .into_iter()
            .map(|n| (format!("f{n}"), (0..n).map(|i| i as u8).collect()))
            .collect();
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in &files {
            let mut header = Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, &content[..]).unwrap();
        }
        (builder.into_inner().unwrap(), files)
    }

    #[test]
    fn pieces_of_any_size_give_the_same_files() {
        let (bytes, files) = archive();
        for size in [1, 2, 7, 100, 511, 512, 513, 2000, bytes.len()] {
            let (mut untar, mut seen) = (Untar::new(), Seen::default());
            bytes.chunks(size).for_each(|piece| untar.push(piece, &mut seen).unwrap());
            assert_eq!(seen.done, files, "pieces of {size}");
            assert!(untar.is_complete());
        }
    }

    #[test]
    fn a_cut_archive_is_not_complete() {
        let (bytes, _) = archive();
        for length in 0..bytes.len() - 1024 {
            let (mut untar, mut seen) = (Untar::new(), Seen::default());
            untar.push(&bytes[..length], &mut seen).unwrap();
            assert!(!untar.is_complete(), "cut at {length}");
        }
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let (mut bytes, _) = archive();
        bytes[0] ^= 1;
        assert!(Untar::new().push(&bytes, &mut Seen::default()).is_err());
    }
}
