//! An object of WAL becomes a file, without being held in memory.

use super::error::Error;
use crate::{
    checksum::Crc32c,
    layout::{self, HEADER_LENGTH, Header},
    store::Download,
};
use bytes::Bytes;
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// So many chunks are on their way from the network to the decoder.
const CHUNKS: usize = 16;

/// Unpacks an object into `file` at `offset`: the position of its first byte within its segment, whose start is `base`.
/// All of it is checked: the header, each frame, the length, the checksum over all.
pub(super) async fn unpack(
    key: &str,
    mut download: Box<dyn Download>,
    path: &Path,
    base: pgconvoy_terms::Lsn,
    limit: u64,
) -> Result<Header, Error> {
    let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS);
    let (key, path) = (key.to_owned(), path.to_owned());
    let decoding = tokio::task::spawn_blocking(move || decode(&key, receiver, &path, base, limit));
    let mut failed = None;
    loop {
        match download.chunk().await {
            Ok(Some(chunk)) => {
                // The decoder has seen an error, and says so below.
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    drop(sender);
    let decoded = decoding.await.map_err(|e| Error::Disk {
        doing: "unpack",
        path: PathBuf::new(),
        source: io::Error::other(e),
    })?;
    // What the network says comes first: a torn body is no damaged object.
    match failed {
        Some(e) => Err(e.into()),
        None => decoded,
    }
}

struct Counted<'a> {
    file: &'a mut File,
    crc32c: Crc32c,
    written: u64,
    limit: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.limit {
            return Err(io::Error::other("it holds more WAL than its header announces"));
        }
        let written = self.file.write(bytes)?;
        self.crc32c.update(bytes.get(..written).unwrap_or_default());
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn decode(
    key: &str,
    mut chunks: mpsc::Receiver<Bytes>,
    path: &Path,
    base: pgconvoy_terms::Lsn,
    limit: u64,
) -> Result<Header, Error> {
    let damaged = |why: String| Error::from(layout::Error::damaged(key, why));
    let mut begin = Vec::new();
    while begin.len() < HEADER_LENGTH {
        let Some(chunk) = chunks.blocking_recv() else { break };
        begin.extend_from_slice(&chunk);
    }
    let header = Header::parse(&begin).map_err(damaged)?;
    let offset = header.start.bytes_since(base);
    if header.start < base || offset + header.length() > limit {
        return Err(damaged(format!("its WAL from {} to {} does not belong there", header.start, header.end)));
    }
    let mut file =
        File::options().write(true).create(true).truncate(false).open(path).map_err(Error::disk("open", path))?;
    file.seek(SeekFrom::Start(offset)).map_err(Error::disk("seek in", path))?;
    let counted = Counted { file: &mut file, crc32c: Crc32c::new(), written: 0, limit: header.length() };
    let mut decoder = zstd::stream::write::Decoder::new(counted).map_err(|e| damaged(e.to_string()))?;
    let mut write = |bytes: &[u8]| {
        decoder.write_all(bytes).map_err(|e| match e.raw_os_error() {
            // The disk's own errors are none of the object's.
            Some(_) => Error::disk("write", path)(e),
            None => damaged(e.to_string()),
        })
    };
    write(&begin)?;
    while let Some(chunk) = chunks.blocking_recv() {
        write(&chunk)?;
    }
    decoder.flush().map_err(Error::disk("write", path))?;
    let counted = decoder.into_inner();
    if counted.written != header.length() {
        return Err(damaged(format!(
            "it holds {} bytes of WAL, its header announces {}",
            counted.written,
            header.length()
        )));
    }
    if counted.crc32c.value() != header.crc32c {
        return Err(damaged("the checksum of its WAL differs".into()));
    }
    Ok(header)
}
