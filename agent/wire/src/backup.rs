//! BASE_BACKUP: a copy of a whole cluster as tar archives and a manifest, over one connection.

use crate::{
    client::{Client, Row, columns},
    commands::{optional, parse},
    error::Error,
    frames::{Frame, within},
};
use bytes::{Buf, Bytes};
use pgconvoy_terms::{Lsn, TimelineId};
use postgres_protocol::message::backend::Message;
use std::{path::PathBuf, time::Duration};

const DOING: &str = "taking a base backup";

/// What kind of backup is wanted.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Stands in `backup_label` and in the server's progress view.
    pub label: String,
    /// Begin with an immediate checkpoint instead of waiting for a spread one (up to `checkpoint_timeout` x 0.9).
    pub fast_checkpoint: bool,
    /// Send the WAL between start and end with it, so that the copy starts without any other source. Without it, keep
    /// the WAL with a slot made before.
    pub wal: bool,
    /// Send a manifest, with a CRC32C per file. [`BaseBackup::restore_into`] needs it.
    pub manifest: bool,
    /// At most this many kilobytes a second, 32 to 1048576; `None`: as fast as it goes.
    pub max_rate: Option<u32>,
    /// Let the server verify page checksums while it reads (only where the cluster has them).
    pub verify_checksums: bool,
    /// Ask how large it will be. The server then looks at every file once before it begins.
    pub progress: bool,
    /// Let the server wait at the end until the WAL is archived. May take for ever where archiving is broken.
    pub wait_for_archive: bool,
    /// For the start: the checkpoint and, with `progress`, the estimate. Too short: no backup of a busy server.
    pub start_timeout: Duration,
    /// Between two messages. Too short: a slow disk on the server's side is taken for a dead server. Too long: a dead
    /// server is noticed late.
    pub idle_timeout: Duration,
}

impl BackupOptions {
    /// Fast checkpoint, WAL, manifest, page checksums and progress; 5 minutes to start, 1 minute of silence.
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            fast_checkpoint: true,
            wal: true,
            manifest: true,
            max_rate: None,
            verify_checksums: true,
            progress: true,
            wait_for_archive: false,
            start_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(60),
        }
    }

    fn command(&self) -> Result<String, Error> {
        if self.label.contains('\0') || self.label.len() > 1023 {
            return Err(Error::Invalid("a backup's label is at most 1023 bytes without zero bytes".into()));
        }
        let mut options = vec![
            format!("LABEL '{}'", self.label.replace('\'', "''")),
            format!("CHECKPOINT '{}'", if self.fast_checkpoint { "fast" } else { "spread" }),
            format!("WAL {}", self.wal),
            format!("PROGRESS {}", self.progress),
            format!("VERIFY_CHECKSUMS {}", self.verify_checksums),
            format!("WAIT {}", self.wait_for_archive),
        ];
        if self.manifest {
            options.push("MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C'".to_owned());
        }
        if let Some(rate) = self.max_rate {
            if !(32..=1_048_576).contains(&rate) {
                return Err(Error::Invalid(format!("a backup's rate is 32 to 1048576 kB/s, got {rate}")));
            }
            options.push(format!("MAX_RATE {rate}"));
        }
        Ok(format!("BASE_BACKUP ({})", options.join(", ")))
    }
}

/// Where a backup begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupPosition {
    /// The position in the log.
    pub lsn: Lsn,
    /// The timeline of that position.
    pub timeline: TimelineId,
}

/// A tablespace of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID and location on the server; `None`: the data directory itself.
    pub location: Option<(u32, PathBuf)>,
    /// About how large it is, in bytes, if progress was asked for.
    pub size: Option<u64>,
}

/// What a backup brings, in this order: for each archive its name and its data, then the manifest and its data, then
/// the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupEvent {
    /// An archive begins: `base.tar`, or `<oid>.tar` for a tablespace.
    Archive {
        /// Its name.
        name: String,
        /// The tablespace's location on the server; empty for the data directory.
        location: String,
    },
    /// The manifest begins.
    Manifest,
    /// Bytes of what has begun last.
    Data(Bytes),
    /// How much of the current archive the server has sent, in bytes (not counting headers).
    Progress(u64),
    /// All was sent. The copy is consistent once WAL is replayed up to here.
    End(BackupPosition),
}

enum State {
    Copying,
    Ending(Option<BackupPosition>),
    Ended,
}

/// A base backup under way.
pub struct BaseBackup {
    pub(crate) client: Client,
    start: BackupPosition,
    tablespaces: Vec<Tablespace>,
    idle_timeout: Duration,
    state: State,
}

impl std::fmt::Debug for BaseBackup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseBackup")
            .field("client", &self.client)
            .field("start", &self.start)
            .field("tablespaces", &self.tablespaces)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a base backup. Several can run at once on one server, each on its own connection (`max_wal_senders`).
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Server`] (no right to replicate, `wal_level` too low); [`Error::Timeout`],
    /// [`Error::Cut`].
    pub async fn base_backup(mut self, options: BackupOptions) -> Result<BaseBackup, Error> {
        const DOING: &str = "starting a base backup";
        let peer = self.frames.peer();
        let command = options.command()?;
        within(options.start_timeout, &peer, DOING, async {
            self.send(&command, DOING).await?;
            let first = self.result_set(DOING).await?;
            let start = first.first().and_then(position);
            let start = start.ok_or_else(|| self.frames.protocol(DOING, "no start position"))?;
            let rows = self.result_set(DOING).await?;
            let tablespaces: Option<Vec<_>> = rows.iter().map(tablespace).collect();
            let tablespaces = tablespaces.ok_or_else(|| self.frames.protocol(DOING, "an unreadable tablespace"))?;
            match self.answer(DOING).await? {
                Frame::Other(Message::CopyOutResponse(_)) => {}
                other => return Err(self.frames.unexpected(DOING, &other)),
            }
            let idle_timeout = options.idle_timeout;
            Ok(BaseBackup { client: self, start, tablespaces, idle_timeout, state: State::Copying })
        })
        .await
    }

    /// One result set up to its CommandComplete.
    async fn result_set(&mut self, doing: &'static str) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        loop {
            match self.answer(doing).await? {
                Frame::Other(Message::RowDescription(_) | Message::ParameterStatus(_)) => {}
                Frame::Other(Message::DataRow(row)) => {
                    rows.push(columns(&row).map_err(|e| self.frames.protocol(doing, e.to_string()))?);
                }
                Frame::Other(Message::CommandComplete(_)) => return Ok(rows),
                other => return Err(self.frames.unexpected(doing, &other)),
            }
        }
    }
}

fn position(row: &Row) -> Option<BackupPosition> {
    Some(BackupPosition { lsn: parse(row, 0)?, timeline: TimelineId(parse(row, 1)?) })
}

fn tablespace(row: &Row) -> Option<Tablespace> {
    let location = match (optional(row, 0), optional(row, 1)) {
        (None, _) => None,
        (Some(oid), Some(path)) => Some((oid.parse().ok()?, PathBuf::from(path))),
        (Some(_), None) => return None,
    };
    // The server counts in kilobytes.
    let size = match optional(row, 2) {
        Some(kilobytes) => Some(kilobytes.parse::<u64>().ok()?.checked_mul(1024)?),
        None => None,
    };
    Some(Tablespace { location, size })
}

impl BaseBackup {
    /// Where the backup begins: WAL from here on is needed.
    pub fn start(&self) -> BackupPosition {
        self.start
    }

    /// The tablespaces, in the order in which their archives come.
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// About how many bytes will come, if progress was asked for.
    pub fn estimated_size(&self) -> Option<u64> {
        self.tablespaces.iter().try_fold(0u64, |sum, t| Some(sum.saturating_add(t.size?)))
    }

    /// The next piece; `None` after [`BackupEvent::End`]. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Timeout`] when nothing comes for `idle_timeout`; [`Error::Server`], for example when a page's checksum
    /// is wrong or WAL that is needed is gone; [`Error::Cut`], [`Error::Protocol`]. The backup is of no use then.
    pub async fn next(&mut self) -> Result<Option<BackupEvent>, Error> {
        let (idle, peer) = (self.idle_timeout, self.client.frames.peer());
        within(idle, &peer, DOING, async {
            loop {
                if matches!(self.state, State::Ended) {
                    return Ok(None);
                }
                let frame = self.client.answer(DOING).await?;
                if let Some(event) = self.take(frame)? {
                    return Ok(Some(event));
                }
            }
        })
        .await
    }

    fn take(&mut self, frame: Frame) -> Result<Option<BackupEvent>, Error> {
        match (&mut self.state, frame) {
            (State::Copying, Frame::Data(data)) => {
                let broken = || self.client.frames.protocol(DOING, "a piece of the backup is of no known form");
                piece(data).map(Some).ok_or_else(broken)
            }
            (State::Copying, Frame::Other(Message::CopyDone)) => {
                self.state = State::Ending(None);
                Ok(None)
            }
            (State::Ending(end), Frame::Other(Message::DataRow(row))) => {
                *end = columns(&row).ok().as_ref().and_then(position);
                Ok(None)
            }
            (
                State::Ending(_),
                Frame::Other(Message::RowDescription(_) | Message::CommandComplete(_) | Message::ParameterStatus(_)),
            ) => Ok(None),
            (State::Ending(end), Frame::Other(Message::ReadyForQuery(_))) => {
                let Some(end) = *end else {
                    return Err(self.client.frames.protocol(DOING, "no end position"));
                };
                self.state = State::Ended;
                self.client.ready();
                Ok(Some(BackupEvent::End(end)))
            }
            (_, other) => Err(self.client.frames.unexpected(DOING, &other)),
        }
    }

    /// The connection back. Before [`BackupEvent::End`] it takes no more commands ([`Error::Abandoned`]).
    pub fn into_client(self) -> Client {
        self.client
    }
}

/// A CopyData message of BASE_BACKUP, PostgreSQL 15 and later.
fn piece(mut data: Bytes) -> Option<BackupEvent> {
    match data.try_get_u8().ok()? {
        b'd' => Some(BackupEvent::Data(data)),
        b'n' => {
            let name = c_string(&mut data)?;
            Some(BackupEvent::Archive { name, location: c_string(&mut data)? })
        }
        b'm' if data.is_empty() => Some(BackupEvent::Manifest),
        b'p' if data.len() == 8 => Some(BackupEvent::Progress(data.get_u64())),
        _ => None,
    }
}

fn c_string(data: &mut Bytes) -> Option<String> {
    let end = data.iter().position(|b| *b == 0)?;
    let text = String::from_utf8(data.split_to(end).to_vec()).ok()?;
    data.advance(1);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        let command = BackupOptions::new("it's', WAL false --").command().unwrap();
        assert!(command.starts_with("BASE_BACKUP (LABEL 'it''s'', WAL false --', CHECKPOINT 'fast', WAL true"));
        assert!(BackupOptions::new("a\0b").command().is_err());
        let slow = BackupOptions { max_rate: Some(1), ..BackupOptions::new("x") };
        assert!(slow.command().is_err());
    }

    #[test]
    fn pieces_are_read_or_refused() {
        let p = |b: &'static [u8]| piece(Bytes::from_static(b));
        let base = BackupEvent::Archive { name: "base.tar".into(), location: String::new() };
        assert_eq!(p(b"nbase.tar\0\0"), Some(base));
        assert_eq!(p(b"m"), Some(BackupEvent::Manifest));
        assert_eq!(p(b"d"), Some(BackupEvent::Data(Bytes::new())));
        assert_eq!(p(b"p\0\0\0\0\0\0\x01\0"), Some(BackupEvent::Progress(256)));
        for bad in [&b""[..], b"nbase.tar", b"nbase.tar\0", b"mx", b"p\0", b"x"] {
            assert_eq!(p(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_kilobytes_and_optional() {
        let text = |s: &str| Some(Bytes::copy_from_slice(s.as_bytes()));
        let t = tablespace(&vec![None, None, text("3")]).unwrap();
        assert_eq!(t, Tablespace { location: None, size: Some(3072) });
        let t = tablespace(&vec![text("16385"), text("/ts"), None]).unwrap();
        assert_eq!(t, Tablespace { location: Some((16385, "/ts".into())), size: None });
        assert_eq!(tablespace(&vec![text("16385"), None, None]), None);
    }
}
