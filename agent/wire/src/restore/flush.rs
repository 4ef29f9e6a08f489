//! Begins writing to the disk while the rest is still coming, so that the flush at the end finds little left to do.

use std::{
    fs::File,
    sync::mpsc::{SyncSender, sync_channel},
};

/// Files that may wait. When more do, they are left to the flush at the end.
const QUEUE: usize = 16;

/// A thread that flushes the files it is given. It reports nothing: what cannot be written is noticed by the flush at
/// the end, which sees every failure since the restore began.
pub(super) struct Flusher(Option<SyncSender<File>>);

impl Flusher {
    /// Starts the thread; without one (no more threads to be had) everything is left to the end.
    pub(super) fn start() -> Self {
        let (queue, files) = sync_channel::<File>(QUEUE);
        let work = move || files.iter().for_each(|file| drop(file.sync_data()));
        // Not waited for: once its queue is closed it ends after the file in hand.
        let started = std::thread::Builder::new().name("pgconvoy-flush".into()).spawn(work);
        Self(started.ok().map(|_| queue))
    }

    /// Does nothing of the kind.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// What has been written to `file` so far should go to the disk soon.
    pub(super) fn give(&self, file: &File) {
        if let (Some(queue), Ok(file)) = (&self.0, file.try_clone()) {
            let _ = queue.try_send(file);
        }
    }
}
