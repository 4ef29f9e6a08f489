//! Restoring a snapshot into an empty directory.

use super::{
    error::Error,
    manifest::{Manifest, PartInfo, SnapshotId, part_key, pg_manifest_key},
};
use crate::{
    checksum::Crc32c,
    layout,
    store::{Download, Store, read},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use pgconvoy_terms::SystemId;
use std::{
    fs, io,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{RwLock, mpsc};

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Parts at the same time.
    pub parallel: usize,
    /// How often a part is fetched before it is given up.
    pub tries: u32,
    /// Counts the bytes of parts that have come, those of a part that is fetched again included.
    pub received: Arc<AtomicU64>,
    /// Held, together with others, by every thread that unpacks. A restore that was dropped leaves threads behind that may still
    /// write for a moment: whoever wants the directory for something else takes it alone before.
    pub unpacking: Arc<RwLock<()>>,
}

impl Default for RestoreOptions {
    /// 4 parts at the same time, each tried 3 times.
    fn default() -> Self {
        Self { parallel: 4, tries: 3, received: Arc::default(), unpacking: Arc::default() }
    }
}

/// Restores a snapshot. On return the directory is durable; PostgreSQL makes it consistent when it replays WAL up to the
/// manifest's `stop`. `backup_manifest` lies in it, so `pg_verifybackup` can check it. After an error nothing writes there any more.
///
/// # Errors
/// [`Error::NotEmpty`]; [`Error::Archive`] names the part that is damaged or missing. The directory is then to be thrown
/// away.
pub async fn restore(
    store: Arc<dyn Store>,
    system: SystemId,
    id: &SnapshotId,
    manifest: &Manifest,
    into: &Path,
    options: &RestoreOptions,
) -> Result<(), Error> {
    let full = fs::read_dir(into).map_err(Error::disk("read", into))?.next().is_some();
    if full {
        return Err(Error::NotEmpty(into.to_owned()));
    }
    // They own what they need: a future that borrows from a closure's argument cannot be spawned.
    let tries = options.tries;
    let parts = manifest.parts.clone().into_iter().map(|part| {
        let (store, key, into) = (store.clone(), part_key(system, id, part.number), into.to_owned());
        let (received, unpacking) = (options.received.clone(), options.unpacking.clone());
        async move { restore_part(&*store, &key, &part, &into, tries, (&received, &unpacking)).await }
    });
    let done: Result<(), Error> = stream::iter(parts).buffer_unordered(options.parallel.max(1)).try_collect().await;
    if let Err(e) = done {
        drop(options.unpacking.write().await);
        return Err(e);
    }

    let key = pg_manifest_key(system, id);
    let packed = read(&*store, &key).await?.ok_or_else(|| layout::Error::damaged(&key, "it is missing"))?;
    let text = zstd::decode_all(&packed[..]).map_err(|e| layout::Error::damaged(&key, e.to_string()))?;
    let path = into.join("backup_manifest");
    fs::write(&path, text).map_err(Error::disk("write", &path))?;
    // One flush for all of it.
    let dir = fs::File::open(into).map_err(Error::disk("open", into))?;
    nix::unistd::syncfs(dir.as_fd()).map_err(|e| Error::disk("flush", into)(e.into()))
}

async fn restore_part(
    store: &dyn Store,
    key: &str,
    part: &PartInfo,
    into: &Path,
    tries: u32,
    shared: (&AtomicU64, &Arc<RwLock<()>>),
) -> Result<(), Error> {
    let mut tried = 0;
    loop {
        tried += 1;
        // A part is unpacked over what a try before it left: the same files.
        match once(store, key, part, into, shared).await {
            Err(e) if tried < tries && !matches!(e, Error::Disk { .. }) => {
                tracing::warn!("{key} is fetched again: {e}");
            }
            done => return done,
        }
    }
}

async fn once(
    store: &dyn Store,
    key: &str,
    part: &PartInfo,
    into: &Path,
    (count, unpacking): (&AtomicU64, &Arc<RwLock<()>>),
) -> Result<(), Error> {
    let Some(download) = store.open(key).await? else {
        return Err(layout::Error::damaged(key, "it is missing").into());
    };
    if download.size() != part.size {
        let why = format!("it has {} bytes, the manifest says {}", download.size(), part.size);
        return Err(layout::Error::damaged(key, why).into());
    }
    let (sender, receiver) = mpsc::channel(16);
    let target = into.to_owned();
    let busy = unpacking.clone().read_owned().await;
    let unpacking = tokio::task::spawn_blocking(move || {
        let done = unpack(receiver, &target);
        drop(busy);
        done
    });
    let received = receive(download, sender, count).await;
    let unpacked = unpacking.await.map_err(|e| Error::disk("unpack", key)(io::Error::other(e)))?;
    let sum = received?;
    if sum != part.crc32c {
        return Err(layout::Error::damaged(key, "its checksum differs").into());
    }
    unpacked.map_err(|e| match e {
        Unpack::Damaged(why) => layout::Error::damaged(key, why).into(),
        Unpack::Disk(path, e) => Error::disk("write", path)(e),
    })
}

async fn receive(
    mut download: Box<dyn Download>,
    sender: mpsc::Sender<Bytes>,
    count: &AtomicU64,
) -> Result<u32, Error> {
    let mut sum = Crc32c::new();
    let mut listening = true;
    while let Some(chunk) = download.chunk().await? {
        sum.update(&chunk);
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        // Also when unpacking has stopped: what the checksum says counts more than what tar says.
        listening = listening && sender.send(chunk).await.is_ok();
    }
    Ok(sum.value())
}

enum Unpack {
    Damaged(String),
    Disk(PathBuf, io::Error),
}

struct Received {
    chunks: mpsc::Receiver<Bytes>,
    now: Bytes,
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.now.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.now = chunk,
                None => return Ok(0),
            }
        }
        let take = self.now.len().min(buffer.len());
        let bytes = self.now.split_to(take);
        if let Some(buffer) = buffer.get_mut(..take) {
            buffer.copy_from_slice(&bytes);
        }
        Ok(take)
    }
}

fn unpack(chunks: mpsc::Receiver<Bytes>, into: &Path) -> Result<(), Unpack> {
    let damaged = |e: io::Error| Unpack::Damaged(e.to_string());
    let decoder = zstd::stream::read::Decoder::new(Received { chunks, now: Bytes::new() }).map_err(damaged)?;
    let mut tar = tar::Archive::new(decoder);
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        // Parts come in any order, so a file may be quicker than its directory.
        let full = into.join(&path);
        if let Some(parent) = full.parent() {
            directory(parent).map_err(|e| Unpack::Disk(parent.to_owned(), e))?;
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => directory(&full).map_err(|e| Unpack::Disk(full.clone(), e))?,
            tar::EntryType::Regular => {
                // It refuses what would lie outside.
                let inside = entry.unpack_in(into).map_err(|e| Unpack::Disk(full.clone(), cause(&e)))?;
                if !inside {
                    return Err(Unpack::Damaged(format!("{} does not lie inside", path.display())));
                }
            }
            other => return Err(Unpack::Damaged(format!("{} is of kind {other:?}", path.display()))),
        }
    }
    Ok(())
}

/// What the system said: `tar` puts words of its own before it, which leave it out.
fn cause(e: &io::Error) -> io::Error {
    let mut last: &dyn std::error::Error = e;
    while let Some(next) = last.source() {
        last = next;
    }
    io::Error::new(e.kind(), last.to_string())
}

/// PostgreSQL wants its directories closed to others.
fn directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
