//! One part on its way: files, tar, zstd, and a multipart upload.

use super::{error::Error, manifest::PartInfo, pace::Pace, pg_manifest::FileSum};
use crate::{
    checksum::Crc32c,
    layout,
    store::{Put, Store, patiently},
};
use bytes::Bytes;
use std::{
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// Bytes of one upload; S3 allows 10,000 of them in an object.
const CHUNK: usize = 8 << 20;

/// What a part holds.
pub(super) enum Content {
    /// Directories, which restore needs first.
    Directories(Vec<PathBuf>),
    /// Files of the data directory.
    Files(Vec<PathBuf>),
    /// Files that are given.
    Given(Vec<(PathBuf, Vec<u8>)>),
}

/// Stores a part. The answer says what the object is, and what files it holds.
pub(super) async fn store_part(
    store: &dyn Store,
    key: &str,
    number: u32,
    data: &Path,
    content: Vec<Content>,
    pace: Arc<Pace>,
) -> Result<(PartInfo, Vec<FileSum>), Error> {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let data = data.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack(&data, content, sender, &pace));
    let sent = send(store, key, receiver).await;
    // When sending fails the receiver is gone, and packing ends with an error of its own.
    let packed = packing.await.map_err(|e| Error::disk("pack", key)(io::Error::other(e)))?;
    let (size, crc32c) = sent?;
    let (sums, unpacked) = packed?;
    Ok((PartInfo { number, size, crc32c, unpacked }, sums))
}

/// How long one call is waited for whose store is away: a snapshot that takes hours does not end for a minute's trouble. Too long:
/// a store that does not come back is told late, and the server keeps the backup open.
const PATIENCE: Duration = Duration::from_secs(300);

/// For [`patiently`].
pub(super) fn patience(e: &crate::store::Error) -> Duration {
    if e.reason().is_transient() { PATIENCE } else { Duration::ZERO }
}

async fn send(store: &dyn Store, key: &str, mut chunks: mpsc::Receiver<Bytes>) -> Result<(u64, u32), Error> {
    let upload = patiently(patience, || store.begin_upload(key)).await?;
    let sending = async {
        let (mut parts, mut size, mut crc32c) = (Vec::new(), 0, Crc32c::new());
        while let Some(chunk) = chunks.recv().await {
            size += chunk.len() as u64;
            crc32c.update(&chunk);
            let number = parts.len() as u32 + 1;
            parts.push(patiently(patience, || store.upload_part(key, &upload, number, chunk.clone())).await?);
        }
        Ok((patiently(patience, || store.finish_upload(key, &upload, parts.clone())).await?, size, crc32c.value()))
    };
    match sending.await {
        Ok((Put::Stored, size, crc32c)) => Ok((size, crc32c)),
        // Under a name of its own there is nobody else: it is this upload, whose answer was lost. The manifest has its
        // checksum, and whoever restores compares.
        Ok((Put::Exists, size, crc32c)) => Ok((size, crc32c)),
        Err(e) => {
            let e: crate::store::Error = e;
            if let Err(e) = store.abort_upload(key, &upload).await {
                tracing::info!("an unfinished upload stays: {e}");
            }
            Err(layout::Error::from(e).into())
        }
    }
}

/// Cuts what is written into chunks.
struct Chunks {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
}

impl Chunks {
    fn give(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(chunk.into()).map_err(|_| given_up())
    }
}

fn given_up() -> io::Error {
    io::Error::other("the upload was given up")
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..take).unwrap_or_default());
        if self.buffer.len() == CHUNK {
            self.give()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pack(
    data: &Path,
    content: Vec<Content>,
    sender: mpsc::Sender<Bytes>,
    pace: &Pace,
) -> Result<(Vec<FileSum>, u64), Error> {
    let failed = |e: io::Error| Error::disk("pack", data)(e);
    let upload = sender.clone();
    let gate = |bytes: usize| {
        if upload.is_closed() {
            return Err(given_up());
        }
        pace.read(bytes);
        Ok(())
    };
    let chunks = Chunks { buffer: Vec::with_capacity(CHUNK), sender };
    let mut encoder = zstd::stream::write::Encoder::new(chunks, 1).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    let mut tar = tar::Builder::new(encoder);
    let (mut sums, mut unpacked) = (Vec::new(), 0);
    for content in content {
        match content {
            Content::Directories(directories) => {
                for path in directories {
                    let mut header = header(0, tar::EntryType::Directory, now());
                    header.set_mode(0o700);
                    tar.append_data(&mut header, &path, io::empty()).map_err(Error::disk("pack", &path))?;
                }
            }
            Content::Files(files) => {
                for path in files {
                    if let Some(sum) = append(&mut tar, data, &path, &gate)? {
                        unpacked += sum.size;
                        sums.push(sum);
                    }
                }
            }
            Content::Given(files) => {
                for (path, bytes) in files {
                    let modified = now();
                    let mut header = header(bytes.len() as u64, tar::EntryType::Regular, modified);
                    tar.append_data(&mut header, &path, &bytes[..]).map_err(Error::disk("pack", &path))?;
                    unpacked += bytes.len() as u64;
                    let crc32c = crate::checksum::crc32c(&bytes);
                    sums.push(FileSum { path, size: bytes.len() as u64, crc32c, modified });
                }
            }
        }
    }
    let encoder = tar.into_inner().map_err(failed)?;
    let mut chunks = encoder.finish().map_err(failed)?;
    if !chunks.buffer.is_empty() {
        chunks.give().map_err(failed)?;
    }
    Ok((sums, unpacked))
}

#[expect(clippy::disallowed_methods, reason = "a backup manifest shows file times to people")]
fn now() -> i64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0))
}

fn header(size: u64, kind: tar::EntryType, modified: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(modified).unwrap_or(0));
    header
}

/// A file under change: exactly as many bytes as it had when it was opened. What is missing of them was cut off
/// meanwhile, and WAL knows of it; zeros take its place, as in pg_basebackup.
struct Fixed<'a> {
    file: &'a mut fs::File,
    left: u64,
    crc32c: Crc32c,
    /// Keeps the pace.
    gate: &'a dyn Fn(usize) -> io::Result<()>,
}

impl Read for Fixed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..want).filter(|b| !b.is_empty()) else { return Ok(0) };
        (self.gate)(buffer.len())?;
        let mut got = self.file.read(buffer)?;
        if got == 0 {
            buffer.fill(0);
            got = buffer.len();
        }
        self.crc32c.update(buffer.get(..got).unwrap_or_default());
        self.left -= got as u64;
        Ok(got)
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    data: &Path,
    path: &Path,
    gate: &dyn Fn(usize) -> io::Result<()>,
) -> Result<Option<FileSum>, Error> {
    let full = data.join(path);
    let mut file = match fs::File::open(&full) {
        Ok(file) => file,
        // Dropped since it was seen.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::disk("read", full)(e)),
    };
    let meta = file.metadata().map_err(Error::disk("look at", &full))?;
    let modified = seconds(meta.modified().unwrap_or(UNIX_EPOCH));
    let mut header = header(meta.len(), tar::EntryType::Regular, modified);
    let mut fixed = Fixed { file: &mut file, left: meta.len(), crc32c: Crc32c::new(), gate };
    tar.append_data(&mut header, path, &mut fixed).map_err(Error::disk("pack", &full))?;
    Ok(Some(FileSum { path: path.to_owned(), size: meta.len(), crc32c: fixed.crc32c.value(), modified }))
}
