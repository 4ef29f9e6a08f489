//! A base backup, unpacked, checked and durable.
//!
//! The connection is read on the runtime; everything that touches the disk happens on a blocking thread at the other end
//! of a short queue, so a slow disk slows the server down and nobody else.

mod flush;
mod manifest;
mod unpack;
mod untar;

pub use manifest::{Manifest, ManifestFile, ManifestProblem, WalRange};
pub use unpack::Durability;

use crate::{
    backup::{BackupEvent, BackupPosition, BaseBackup},
    error::Error,
};
use pgconvoy_terms::SystemId;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use unpack::{Item, Root, Unpacked};

/// Pieces (of 32 KiB) between the connection and the disk.
const QUEUE: usize = 64;
/// How often progress is told, in bytes.
const PROGRESS_STEP: u64 = 1 << 20;
/// How long a restore that is given up waits for its last write to end.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// How the files are made to survive a power cut.
    pub durability: Durability,
    /// For each tablespace's location on the server, the (empty) directory here that takes its place. A tablespace that
    /// is not named here is refused before anything is written.
    pub tablespaces: BTreeMap<PathBuf, PathBuf>,
    /// How long the disk may take to make room in the queue. Too short: a slow disk counts as a dead one.
    pub stall_timeout: Duration,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            tablespaces: BTreeMap::new(),
            stall_timeout: Duration::from_secs(120),
        }
    }
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Bytes received.
    pub done: u64,
    /// About how many there will be, if it was asked for. WAL is not in it, so `done` may get past it.
    pub total: Option<u64>,
}

/// A restored backup. It becomes consistent when WAL from `start` to `end` is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where the backup began.
    pub start: BackupPosition,
    /// Where it ended.
    pub end: BackupPosition,
    /// Files written.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// The cluster's system identifier as the manifest has it (PostgreSQL 17 and later).
    pub system_id: Option<SystemId>,
    /// The WAL that the backup needs, by timeline.
    pub wal_ranges: Vec<WalRange>,
}

impl BaseBackup {
    /// Unpacks the backup into `dir` (an empty directory, or none yet), checks every file against the manifest, writes
    /// `backup_manifest` and makes it all durable. Files get mode 0600, directories 0700, and the owner is whoever we
    /// are.
    ///
    /// When it fails or is dropped, nobody writes to `dir` any more, but what was unpacked is still there: remove it.
    /// Only a directory for which this returned `Ok` may ever be started. The final flush has no deadline of its own.
    ///
    /// # Errors
    /// [`Error::Target`] before anything was written; [`Error::Disk`], [`Error::Archive`], [`Error::Manifest`],
    /// [`Error::Damaged`]; everything that [`BaseBackup::next`] returns.
    pub async fn restore_into(
        &mut self,
        dir: &Path,
        options: &RestoreOptions,
        mut progress: impl FnMut(RestoreProgress) + Send,
    ) -> Result<Restored, Error> {
        let mut worker = Worker::start(dir, self.roots(dir, options)?, options.durability).await?;
        let total = self.estimated_size();
        let (mut done, mut told) = (0, 0);
        let end = loop {
            let item = match self.next().await? {
                Some(BackupEvent::Archive { name, .. }) => Item::Archive(worker.root(&name)?),
                Some(BackupEvent::Manifest) => Item::Manifest,
                Some(BackupEvent::Data(data)) => {
                    done += data.len() as u64;
                    Item::Data(data)
                }
                Some(BackupEvent::Progress(_)) => continue,
                Some(BackupEvent::End(end)) => break end,
                None => return Err(Error::Invalid("the backup was read to its end before".into())),
            };
            worker.give(item, options.stall_timeout).await?;
            if done - told >= PROGRESS_STEP {
                told = done;
                progress(RestoreProgress { done, total });
            }
        };
        progress(RestoreProgress { done, total });
        worker.give(Item::End, options.stall_timeout).await?;
        let unpacked = worker.finish().await?;
        Ok(Restored {
            start: self.start(),
            end,
            files: unpacked.files,
            bytes: unpacked.bytes,
            system_id: unpacked.manifest.system_id,
            wal_ranges: unpacked.manifest.wal_ranges,
        })
    }

    /// Where each archive goes, by its name.
    fn roots(&self, dir: &Path, options: &RestoreOptions) -> Result<HashMap<String, Root>, Error> {
        let mut links = HashMap::new();
        let mut roots = HashMap::new();
        for (oid, location) in self.tablespaces().iter().filter_map(|t| t.location.as_ref()) {
            let Some(here) = options.tablespaces.get(location) else {
                let why =
                    format!("the server has a tablespace at {} and no place was given for it", location.display());
                return Err(Error::Target { dir: dir.to_owned(), why });
            };
            let prefix = PathBuf::from(format!("pg_tblspc/{oid}"));
            links.insert(prefix.clone(), here.clone());
            let root = Root { dir: here.clone(), prefix, links: HashMap::new() };
            roots.insert(format!("{oid}.tar"), root);
        }
        roots.insert("base.tar".to_owned(), Root { dir: dir.to_owned(), prefix: PathBuf::new(), links });
        Ok(roots)
    }
}

/// The thread at the other end of the queue.
struct Worker {
    roots: HashMap<String, Root>,
    queue: Option<mpsc::Sender<Item>>,
    thread: Option<JoinHandle<Result<Option<Unpacked>, Error>>>,
    /// Closed once the thread writes no more.
    writing: std::sync::mpsc::Receiver<()>,
    dir: PathBuf,
}

impl Worker {
    async fn start(dir: &Path, roots: HashMap<String, Root>, durability: Durability) -> Result<Self, Error> {
        let dirs: Vec<_> = roots.values().map(|root| root.dir.clone()).collect();
        let prepare = move || dirs.iter().map(|dir| unpack::prepare(dir)).collect::<Result<Vec<_>, _>>();
        let dir = dir.to_owned();
        let opened = spawn_blocking(prepare).await.map_err(|e| died(&dir, e))??;
        let (queue, items) = mpsc::channel(QUEUE);
        let (signal, writing) = std::sync::mpsc::channel();
        let data_dir = dir.clone();
        let thread = spawn_blocking(move || unpack::run(&data_dir, opened, durability, items, signal));
        Ok(Self { roots, queue: Some(queue), thread: Some(thread), writing, dir })
    }

    fn root(&mut self, archive: &str) -> Result<Root, Error> {
        // Each archive comes once.
        self.roots.remove(archive).ok_or_else(|| Error::Archive {
            entry: archive.to_owned(),
            why: "it is an archive of no tablespace that was announced, or comes twice".into(),
        })
    }

    async fn give(&mut self, item: Item, stall: Duration) -> Result<(), Error> {
        let Some(queue) = &self.queue else { return Ok(()) };
        match timeout(stall, queue.send(item)).await {
            Ok(Ok(())) => Ok(()),
            // The thread has stopped early, and knows why.
            Ok(Err(_)) => self.finish().await.map(drop),
            Err(_) => Err(Error::disk("write to", &self.dir)(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn finish(&mut self) -> Result<Unpacked, Error> {
        self.queue = None;
        let Some(thread) = &mut self.thread else { return Err(died(&self.dir, "it was asked twice")) };
        // Taken only once it has ended: when this future is dropped, the thread is still waited for.
        let ended = thread.await;
        self.thread = None;
        match ended {
            Ok(Ok(Some(unpacked))) => Ok(unpacked),
            Ok(Ok(None)) => Err(died(&self.dir, "it was stopped")),
            Ok(Err(e)) => Err(e),
            Err(e) => Err(died(&self.dir, e)),
        }
    }
}

fn died(dir: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::disk("unpack into", dir)(io::Error::other(why))
}

impl Drop for Worker {
    /// Waits until the thread writes no more, so that the caller can remove the directory: the thread sees the closed
    /// queue at once, so this is the time of one write.
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.is_some() {
            let _ = self.writing.recv_timeout(LAST_WRITE);
        }
    }
}
