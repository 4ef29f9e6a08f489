//! One walsender connection, and the simple query under every command.

use crate::{
    auth,
    config::Config,
    error::Error,
    frames::{Frame, Frames, within},
    stream,
};
use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{
    backend::{DataRowBody, Message},
    frontend,
};
use std::time::Duration;

/// The oldest server whose BASE_BACKUP and CREATE_REPLICATION_SLOT take our grammar.
const OLDEST: u32 = 15;

/// How long a server may take from an error to taking commands again. Afterwards the connection is given up.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server said of itself at the start.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) version: String,
    pub(crate) process_id: i32,
}

/// A connection to a walsender. Dropping it closes the connection; [`Client::close`] also says good-bye.
pub struct Client {
    pub(crate) frames: Frames,
    pub(crate) command_timeout: Duration,
    session: Session,
    major: u32,
    /// A command has been sent whose ReadyForQuery has not come.
    busy: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("peer", &self.frames.peer()).field("session", &self.session).finish()
    }
}

/// One row of text columns; `None` is NULL.
pub(crate) type Row = Vec<Option<Bytes>>;

/// Takes a DataRow apart.
pub(crate) fn columns(row: &DataRowBody) -> std::io::Result<Row> {
    row.ranges().map(|range| Ok(range.map(|r| row.buffer_bytes().slice(r)))).collect()
}

impl Client {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Timeout`], [`Error::Tls`], [`Error::TlsUnavailable`], [`Error::Authentication`],
    /// [`Error::Server`] (refused by pg_hba.conf, too many connections, starting up, wrong password),
    /// [`Error::Version`] below 15.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let peer = config.target.to_string();
        within(config.connect_timeout, &peer, "connecting", async {
            let mut frames = Frames::new(stream::open(config).await?, peer.clone());
            let session = auth::log_in(&mut frames, config).await?;
            let major = major(&session.version);
            if major < OLDEST {
                return Err(Error::Version { peer: peer.clone(), version: session.version });
            }
            Ok(Self { frames, command_timeout: config.command_timeout, session, major, busy: false })
        })
        .await
    }

    /// The server's version as it writes it (`17.5 (Debian …)`).
    pub fn server_version(&self) -> &str {
        &self.session.version
    }

    /// The server's major version.
    pub fn server_major(&self) -> u32 {
        self.major
    }

    /// The process id of the walsender, as in `pg_stat_replication`.
    pub fn process_id(&self) -> i32 {
        self.session.process_id
    }

    /// Ends the connection politely, so that the server logs no lost client.
    ///
    /// # Errors
    /// The connection is gone already; nothing has to be done about it.
    pub async fn close(mut self) -> Result<(), Error> {
        const DOING: &str = "closing the connection";
        frontend::terminate(self.frames.outgoing());
        within(self.command_timeout, &self.frames.peer(), DOING, self.frames.flush(DOING)).await
    }

    /// Runs SQL, for connections of [`crate::Mode::Database`]: the rows of all its statements, as text. Not for large
    /// results: all rows are held in memory.
    ///
    /// # Errors
    /// [`Error::Server`] as the server reports it, [`Error::Timeout`] after `command_timeout`.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let text = |b: Bytes| String::from_utf8_lossy(&b).into_owned();
        let rows = self.rows(sql, "running a query").await?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(|column| column.map(text)).collect()).collect())
    }

    /// Sends a command and collects its rows.
    pub(crate) async fn rows(&mut self, sql: &str, doing: &'static str) -> Result<Vec<Row>, Error> {
        let peer = self.frames.peer();
        within(self.command_timeout, &peer, doing, async {
            self.send(sql, doing).await?;
            let mut rows = Vec::new();
            loop {
                match self.answer(doing).await? {
                    Frame::Other(Message::DataRow(row)) => {
                        rows.push(columns(&row).map_err(|e| self.frames.protocol(doing, e.to_string()))?);
                    }
                    Frame::Other(Message::ReadyForQuery(_)) => {
                        self.ready();
                        return Ok(rows);
                    }
                    Frame::Other(
                        Message::RowDescription(_)
                        | Message::CommandComplete(_)
                        | Message::EmptyQueryResponse
                        | Message::ParameterStatus(_),
                    ) => {}
                    other => return Err(self.frames.unexpected(doing, &other)),
                }
            }
        })
        .await
    }

    /// Sends a command; from here to [`Client::ready`] the connection can take no other.
    pub(crate) async fn send(&mut self, sql: &str, doing: &'static str) -> Result<(), Error> {
        if self.busy {
            return Err(Error::Abandoned { peer: self.frames.peer() });
        }
        frontend::query(sql, self.frames.outgoing())
            .map_err(|_| Error::Invalid("a command contains a zero byte".into()))?;
        self.busy = true;
        self.frames.flush(doing).await
    }

    /// The next message of an answer. A server's error is returned once the server takes commands again, so that the
    /// connection stays usable.
    pub(crate) async fn answer(&mut self, doing: &'static str) -> Result<Frame, Error> {
        match self.frames.receive(doing).await {
            Err(error) if error.server().is_some_and(|e| !e.is_fatal()) => {
                // The error is what counts: a server that closes, or hangs, instead of going on changes nothing of it.
                let peer = self.frames.peer();
                let ready = within(RECOVERY_TIMEOUT, &peer, doing, async {
                    loop {
                        if let Frame::Other(Message::ReadyForQuery(_)) = self.frames.receive(doing).await? {
                            return Ok(());
                        }
                    }
                });
                if ready.await.is_ok() {
                    self.ready();
                }
                Err(error)
            }
            other => other,
        }
    }

    /// The answer to a command is complete.
    pub(crate) fn ready(&mut self) {
        self.busy = false;
    }
}

fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_major_version_is_what_comes_first() {
        for (text, major) in [("15.18 (Debian 15.18-0+deb12u1)", 15), ("18beta1", 18), ("9.6.24", 9), ("", 0)] {
            assert_eq!(super::major(text), major, "{text}");
        }
    }
}
