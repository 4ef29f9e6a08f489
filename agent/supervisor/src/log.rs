//! A few JSON lines on standard error, written by a thread of their own.
//!
//! The reader of the container's log may hang; whoever writes to it then hangs too. So the server only queues, and drops
//! lines when the queue is full.

use std::{
    fmt::{Display, Write as _},
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
    line("info", message, fields);
}

/// Something a person should look at.
pub(crate) fn warn(message: &str, fields: &[(&str, &dyn Display)]) {
    line("warn", message, fields);
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
    let mut text = String::with_capacity(160);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    text.push_str("{\"ts\":");
    quote(&mut text, &timestamp(since));
    for (key, value) in [("level", level), ("msg", message)] {
        pair(&mut text, key, value);
    }
    for (key, value) in fields {
        pair(&mut text, key, &value.to_string());
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        pair(&mut text, "dropped_lines", &dropped.to_string());
    }
    text.push_str("}\n");
    QUEUED.fetch_add(1, Ordering::Release);
    if LINES.get().is_none_or(|lines| lines.try_send(text).is_err()) {
        QUEUED.fetch_sub(1, Ordering::Release);
        DROPPED.fetch_add(1 + dropped, Ordering::Relaxed);
    }
}

fn pair(out: &mut String, key: &str, value: &str) {
    out.push(',');
    quote(out, key);
    out.push(':');
    quote(out, value);
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// RFC 3339 in UTC. Days to date after Howard Hinnant's `civil_from_days`.
fn timestamp(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        let at = |s: u64, ms: u64| timestamp(Duration::from_millis(s * 1000 + ms));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_826_154, 7), "2000-02-29T12:09:14.007Z");
        assert_eq!(at(1_735_689_599, 999), "2024-12-31T23:59:59.999Z");
        assert_eq!(at(1_740_787_200, 0), "2025-03-01T00:00:00.000Z");
    }

    #[test]
    fn quotes() {
        let mut out = String::new();
        quote(&mut out, "a\"b\\c\nd\u{1}é");
        assert_eq!(out, "\"a\\\"b\\\\c\\u000ad\\u0001é\"");
    }
}
