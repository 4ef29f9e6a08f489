//! One container's log as lines, bounded in number and length.

use super::line::{Source, split};
use crate::words::clean;
use futures::io::{AsyncBufRead, AsyncBufReadExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use pgconvoy_crds::pod::{CONTAINER_AGENT, CONTAINER_POSTGRES};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// How long the API server may take to begin, and, when the log is not followed, to send the next piece.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before a log that ended or cannot be had yet is asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines longer than this are cut, in bytes.
const LINE_LIMIT: usize = 64 << 10;

/// A container of a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) member: String,
    pub(super) source: Source,
}

impl Key {
    fn container(&self) -> &'static str {
        match self.source {
            Source::Agent => CONTAINER_AGENT,
            Source::Postgres => CONTAINER_POSTGRES,
        }
    }
}

/// A line, when it was written by the node's clock, and when it came here.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) at: Timestamp,
    pub(super) came: Instant,
    pub(super) text: String,
}

/// What of a log is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) tail: Option<i64>,
    /// Seconds.
    pub(super) since: Option<i64>,
}

/// The end of a stream to which lines are sent.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    pub(super) lines: mpsc::Sender<Line>,
    /// Rung after each line.
    pub(super) bell: Arc<Notify>,
}

/// How reading a log ended.
pub(super) struct End {
    pub(super) key: Key,
    /// The last line that was sent.
    pub(super) last: Option<Timestamp>,
    /// Why nothing (more) could be read.
    pub(super) problem: Option<String>,
}

/// Reads one container's log until it ends; when it is followed, until its pod is gone.
pub(super) async fn read(pods: Api<Pod>, key: Key, wanted: Wanted, mut last: Option<Timestamp>, to: Outlet) -> End {
    let mut told: Option<String> = None;
    loop {
        let outcome = once(&pods, &key, wanted, &mut last, &to).await;
        let problem = match outcome {
            // Who reads has gone.
            Ok(Ended::Unwanted) => None,
            Ok(Ended::AtItsEnd) if !wanted.follow => None,
            Ok(Ended::AtItsEnd) => {
                told = None;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(Failure { gone: false, why }) if wanted.follow => {
                // A container that is not there yet will be; said once.
                if told.as_ref() != Some(&why) {
                    say(&key, &why);
                    told = Some(why);
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(failure) => Some(failure.why),
        };
        return End { key, last, problem };
    }
}

/// Tells a person, beside the lines.
pub(super) fn say(key: &Key, why: &str) {
    // Without stderr nobody is left to be told.
    drop(std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("[{}] {}: {}\n", key.member, key.container(), clean(why)),
    ));
}

enum Ended {
    AtItsEnd,
    Unwanted,
}

struct Failure {
    /// The pod is not there (any more).
    gone: bool,
    why: String,
}

fn failure(why: impl ToString) -> Failure {
    Failure { gone: false, why: why.to_string() }
}

async fn once(
    pods: &Api<Pod>,
    key: &Key,
    wanted: Wanted,
    last: &mut Option<Timestamp>,
    to: &Outlet,
) -> Result<Ended, Failure> {
    let params = LogParams {
        container: Some(key.container().to_owned()),
        follow: wanted.follow,
        previous: wanted.previous,
        timestamps: true,
        // What was shown already is not asked for again.
        since_time: *last,
        tail_lines: wanted.tail.filter(|_| last.is_none()),
        since_seconds: wanted.since.filter(|_| last.is_none()),
        ..LogParams::default()
    };
    let opened = tokio::time::timeout(PATIENCE, pods.log_stream(&key.member, &params)).await;
    let reader = match opened {
        Err(_) => return Err(failure(format!("the API server did not begin within {} s", PATIENCE.as_secs()))),
        Ok(Err(kube::Error::Api(status))) => {
            return Err(Failure { gone: status.code == 404, why: status.message.clone() });
        }
        Ok(Err(why)) => return Err(failure(why)),
        Ok(Ok(reader)) => reader,
    };
    let mut reader = std::pin::pin!(reader);
    let resumed = *last;
    loop {
        let piece = line(&mut reader);
        let raw = if wanted.follow {
            piece.await
        } else {
            let late = |_| failure(format!("the log stopped coming for {} s", PATIENCE.as_secs()));
            tokio::time::timeout(PATIENCE, piece).await.map_err(late)?
        };
        let Some(raw) = raw.map_err(failure)? else { return Ok(Ended::AtItsEnd) };
        // What has no stamp is not a line of the container but the kubelet's complaint about it.
        let Some((at, text)) = split(&raw) else { return Err(failure(raw)) };
        // The API takes whole seconds: what was shown of that second comes again.
        if resumed.is_some_and(|resumed| at <= resumed) {
            continue;
        }
        let line = Line { at, came: Instant::now(), text: text.to_owned() };
        if to.lines.send(line).await.is_err() {
            return Ok(Ended::Unwanted);
        }
        *last = Some(at);
        to.bell.notify_one();
    }
}

/// The next line without its end, at most [`LINE_LIMIT`] bytes of it; nothing at the end.
async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut line: Vec<u8> = vec![];
    let mut cut = false;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            if line.is_empty() {
                return Ok(None);
            }
            break;
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let piece = chunk.iter().take(end.unwrap_or(chunk.len()));
        let room = LINE_LIMIT.saturating_sub(line.len());
        cut |= piece.len() > room;
        line.extend(piece.take(room));
        let used = end.map_or(chunk.len(), |e| e + 1);
        reader.consume_unpin(used);
        if end.is_some() {
            break;
        }
    }
    let mut text = String::from_utf8_lossy(&line).into_owned();
    if cut {
        text.push_str(" [cut]");
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<String> {
        // Pieces of 3 bytes, so that lines end within and between them.
        let mut reader = futures::io::BufReader::with_capacity(3, text);
        let mut lines = vec![];
        while let Some(line) = line(&mut reader).await.unwrap() {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn lines_end_where_they_end() {
        assert_eq!(lines(b"ab\n\nabcd\nlast").await, ["ab", "", "abcd", "last"]);
        assert_eq!(lines(b"abc\n").await, ["abc"]);
        assert!(lines(b"").await.is_empty());
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let mut text = vec![b'x'; LINE_LIMIT + 10];
        text.extend(b"\nnext\n");
        let lines = lines(&text).await;
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() == LINE_LIMIT + 6 && lines[0].ends_with("x [cut]"), "{}", lines[0].len());
        assert_eq!(lines[1], "next");
    }
}
