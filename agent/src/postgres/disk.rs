//! Files: one thread does every operation, in order.
//!
//! Steps are dropped when a newer want comes. What a dropped step had begun to write is then still ended before anything
//! that comes later, so an older configuration can never overwrite a newer one. A disk that hangs holds up this thread,
//! not the runtime: whoever waits has a deadline.

use super::Error;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};
use tokio::sync::oneshot;

/// Operations that may wait for the thread.
const QUEUE: usize = 64;

type Work = Box<dyn FnOnce() + Send>;

/// The thread that touches files.
#[derive(Clone)]
pub(crate) struct Disk {
    queue: mpsc::SyncSender<Work>,
}

impl Disk {
    pub(crate) fn start() -> io::Result<Self> {
        let (queue, work) = mpsc::sync_channel::<Work>(QUEUE);
        std::thread::Builder::new().name("disk".into()).spawn(move || work.into_iter().for_each(|w| w()))?;
        Ok(Self { queue })
    }

    /// Runs `work` after everything that was given before. It is done even when nobody waits any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        within: Duration,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let hung = || Error::Timeout { doing, after: within };
        let (send, receive) = oneshot::channel();
        // A full queue is a disk that hangs: nothing is gained by waiting for it here.
        self.queue.try_send(Box::new(move || drop(send.send(work())))).map_err(|_| hung())?;
        match tokio::time::timeout(within, receive).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(hung()),
        }
    }
}

/// Reads a file; none if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::disk("read", path)(e)),
    }
}

fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&beside, path)
    };
    written().map_err(Error::disk("write", path))
}

/// Puts a file there as a whole, or leaves the old one: written beside it, fsynced, renamed, directory fsynced.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes, true)?;
    sync_parent(path)
}

/// As [`write`], unless the file holds exactly this already.
pub(crate) fn write_if_other(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if read(path)?.as_deref() == Some(bytes) { Ok(()) } else { write(path, bytes) }
}

/// Puts a file there as a whole for every reader, but not for a crash of the machine: for what is written anew, or
/// distrusted, after one. A failover does not wait for a slow disk then.
pub(crate) fn show(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if read(path)?.as_deref() == Some(bytes) { Ok(()) } else { replace(path, bytes, false) }
}

/// Removes a file that may be there; durable.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::disk("remove", path)(e)),
    }
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes the names in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(Error::disk("sync", directory))
}

/// Makes a directory for us alone, if it is not there.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::disk("make", path))
}

/// Removes everything in a directory, and keeps the directory. What is in it may be a mount point's own.
pub(crate) fn empty_directory(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::disk("list", path)(e)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::disk("list", path))?;
        if entry.file_name() == "lost+found" {
            continue;
        }
        let kind = entry.file_type().map_err(Error::disk("look at", entry.path()))?;
        let removed = if kind.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.map_err(Error::disk("remove", entry.path()))?;
    }
    sync_directory(path)
}

/// Makes everything on the file system of `path` durable.
pub(crate) fn sync_filesystem(path: &Path) -> Result<(), Error> {
    let directory = File::open(path).map_err(Error::disk("open", path))?;
    nix::unistd::syncfs(&directory).map_err(|e| Error::disk("sync the file system of", path)(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_given_first_is_done_first_even_when_nobody_waits() {
        let (disk, dir) = (Disk::start().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join("f");
        let (p, q) = (path.clone(), path.clone());
        let second = Duration::from_secs(5);
        {
            let slow = disk.run("writing", second, move || {
                std::thread::sleep(Duration::from_millis(50));
                write(&p, b"old")
            });
            assert!(tokio::time::timeout(Duration::from_millis(5), slow).await.is_err());
        }
        disk.run("writing", second, move || write(&q, b"new")).await.unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"new");
    }

    #[test]
    fn a_directory_is_emptied_but_for_lost_and_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("l")).unwrap();
        empty_directory(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["lost+found"]);
    }
}
