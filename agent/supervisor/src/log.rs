//! The supervisor's own lines: a few, on standard error, written by a thread of their own. Their keys are the agent's.
//!
//! The reader of the container's log may hang; whoever writes to it then hangs too. So the server only queues, and drops
//! lines when the queue is full.

use crate::json::Line;
use std::{
    fmt::Display,
    io::{self, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const QUEUE: usize = 128;

static LINES: OnceLock<SyncSender<String>> = OnceLock::new();
static QUEUED: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Starts the thread.
pub(crate) fn start() -> io::Result<()> {
    let (send, receive) = sync_channel::<String>(QUEUE);
    thread::Builder::new().name("log".into()).stack_size(64 * 1024).spawn(move || {
        for line in receive {
            // A log that cannot be written cannot be complained about.
            drop(io::stderr().write_all(line.as_bytes()));
            QUEUED.fetch_sub(1, Ordering::Release);
        }
    })?;
    LINES.get_or_init(|| send);
    Ok(())
}

/// Something happened that is as it should be.
pub(crate) fn info(message: &str, fields: &[(&str, &dyn Display)]) {
    line("INFO", message, fields);
}

/// Something a person should look at.
pub(crate) fn warn(message: &str, fields: &[(&str, &dyn Display)]) {
    line("WARN", message, fields);
}

/// Waits until the queue is written, at most 200 ms.
pub(crate) fn flush() {
    for _ in 0..200 {
        if QUEUED.load(Ordering::Acquire) == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[expect(clippy::disallowed_methods, reason = "a log is for people")]
fn line(level: &str, message: &str, fields: &[(&str, &dyn Display)]) {
    let mut line = Line::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    for (key, value) in [("level", level), ("message", message), ("target", "pgconvoy_supervisor")] {
        line.text(key, value);
    }
    for (key, value) in fields {
        line.text(key, &value.to_string());
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        line.text("dropped_lines", &dropped.to_string());
    }
    QUEUED.fetch_add(1, Ordering::Release);
    if LINES.get().is_none_or(|lines| lines.try_send(line.end()).is_err()) {
        QUEUED.fetch_sub(1, Ordering::Release);
        DROPPED.fetch_add(1 + dropped, Ordering::Relaxed);
    }
}
