//! START_REPLICATION: WAL as it is written.

use crate::{
    client::{Client, columns},
    commands::{parse, slot_name},
    error::Error,
    frames::{Frame, within},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use pgconvoy_terms::{Lsn, TimelineId};
use postgres_protocol::message::{backend::Message, frontend};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, timeout_at};

const DOING: &str = "streaming WAL";
/// PostgreSQL's clock begins at 2000-01-01.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// Where to stream from.
#[derive(Debug, Clone)]
pub struct ReplicationOptions {
    /// The slot that keeps the WAL; `None`: only what the server happens to have.
    pub slot: Option<String>,
    /// The first byte wanted.
    pub start: Lsn,
    /// The timeline it belongs to; `None`: the server's current one.
    pub timeline: Option<TimelineId>,
    /// Silence after which the server counts as dead. Half-way through it is asked for a sign of life. Too short: a
    /// loaded server is given up; too long: a dead one is noticed late.
    pub idle_timeout: Duration,
}

impl ReplicationOptions {
    /// From `start` on the server's current timeline, no slot, 60 s of silence.
    pub fn new(start: Lsn) -> Self {
        Self { slot: None, start, timeline: None, idle_timeout: Duration::from_secs(60) }
    }

    fn command(&self) -> Result<String, Error> {
        let mut command = String::from("START_REPLICATION");
        if let Some(slot) = &self.slot {
            command += &format!(" SLOT \"{}\"", slot_name(slot)?);
        }
        command += &format!(" PHYSICAL {}", self.start);
        if let Some(timeline) = self.timeline {
            command += &format!(" TIMELINE {timeline}");
        }
        Ok(command)
    }
}

/// How far this receiver is. The server trusts `flush`: it may acknowledge commits up to there, and a slot lets go of
/// WAL before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Received.
    pub write: Lsn,
    /// Safe.
    pub flush: Lsn,
    /// Replayed; the same as `flush` for a receiver that replays nothing.
    pub apply: Lsn,
}

impl Status {
    /// The same position for all three.
    pub fn all(position: Lsn) -> Self {
        Self { write: position, flush: position, apply: position }
    }
}

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of WAL, at most 128 KiB. It may cross the border of a segment, and begin or end within a record.
    Wal {
        /// Position of its first byte.
        start: Lsn,
        /// How far the server has WAL to send.
        end: Lsn,
        /// When the server sent it.
        sent: SystemTime,
        /// The bytes.
        data: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// How far the server has sent.
        end: Lsn,
        /// When the server sent it.
        sent: SystemTime,
        /// The server wants to hear from us. The last status has been repeated already; a newer one is welcome.
        reply_requested: bool,
    },
    /// The timeline ends here: all of it has been received. [`Replication::into_client`] gives the connection back.
    EndOfTimeline {
        /// The timeline that follows.
        next: TimelineId,
        /// Where it begins.
        start: Lsn,
    },
    /// The server is shutting down and has sent all WAL that it had. The connection is closed.
    ServerStopped,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Streaming,
    /// CopyDone was received and answered; the next timeline is being told.
    Ending(Option<(TimelineId, Lsn)>),
    /// The server takes commands again.
    Ended,
    Stopped,
}

/// A stream of WAL. Dropping it closes the connection.
#[derive(Debug)]
pub struct Replication {
    client: Client,
    state: State,
    status: Status,
    idle_timeout: Duration,
    /// When the server was last heard of.
    heard: Instant,
    /// When it has been asked for a sign of life since then.
    asked: Option<Instant>,
    /// The server takes nothing more. What it has sent before is still read: the last of it says why.
    deaf: bool,
}

impl Client {
    /// Starts streaming WAL. That the position is ahead of the server, or its WAL gone (`58P01`), the server says only
    /// after the start, as an error of the first [`Replication::next`].
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Server`]: the slot is in use (`55006`) or unknown (`42704`), the position is not on
    /// that timeline; [`Error::Timeout`], [`Error::Cut`].
    pub async fn start_replication(mut self, options: &ReplicationOptions) -> Result<Replication, Error> {
        const DOING: &str = "starting to stream WAL";
        let command = options.command()?;
        let peer = self.frames.peer();
        let state = within(self.command_timeout, &peer, DOING, async {
            self.send(&command, DOING).await?;
            loop {
                match self.answer(DOING).await? {
                    Frame::CopyBoth => return Ok(State::Streaming),
                    // Asked for the very end of an old timeline: the server streams nothing and tells the next one.
                    Frame::Other(Message::RowDescription(_)) => return Ok(State::Ending(None)),
                    Frame::Other(Message::ParameterStatus(_)) => {}
                    other => return Err(self.frames.unexpected(DOING, &other)),
                }
            }
        })
        .await?;
        // Nothing is confirmed before the caller has confirmed it: 0/0 tells the server nothing.
        let status = Status::default();
        let idle_timeout = options.idle_timeout;
        Ok(Replication { client: self, state, status, idle_timeout, heard: Instant::now(), asked: None, deaf: false })
    }
}

impl Replication {
    /// The next event. Cancel-safe: nothing is lost when the future is dropped, so it fits into `select!`.
    ///
    /// The server is answered only in here: whoever stays away for longer than its `wal_sender_timeout` is dropped by
    /// it.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the server was silent for `idle_timeout`; [`Error::Server`], [`Error::Cut`],
    /// [`Error::Protocol`]; [`Error::Invalid`] when called again after the end.
    pub async fn next(&mut self) -> Result<Event, Error> {
        if matches!(self.state, State::Ended | State::Stopped) {
            return Err(Error::Invalid("the stream of WAL has ended".into()));
        }
        loop {
            if self.client.frames.unsent() {
                self.flush().await?;
            }
            // A caller that was busy elsewhere for long finds the server asked now, not given up at once.
            let until = self.asked.unwrap_or(self.heard) + self.idle_timeout / 2;
            let frame = match timeout_at(until, self.client.answer(DOING)).await {
                Ok(frame) => frame?,
                Err(_) if self.asked.is_some() => {
                    let peer = self.client.frames.peer();
                    return Err(Error::Timeout { peer, doing: DOING, after: self.idle_timeout });
                }
                Err(_) => {
                    self.asked = Some(Instant::now());
                    self.queue_status(true);
                    continue;
                }
            };
            self.heard = Instant::now();
            self.asked = None;
            if let Some(event) = self.take(frame)? {
                return Ok(event);
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Event>, Error> {
        match (&mut self.state, frame) {
            (State::Streaming, Frame::Data(data)) => {
                let Some(event) = message(data) else {
                    return Err(self.client.frames.protocol(DOING, "a replication message of no known form"));
                };
                if matches!(event, Event::Keepalive { reply_requested: true, .. }) {
                    self.queue_status(false);
                }
                Ok(Some(event))
            }
            (State::Streaming, Frame::Other(Message::CopyDone)) => {
                frontend::copy_done(self.client.frames.outgoing());
                self.state = State::Ending(None);
                Ok(None)
            }
            // A walsender that shuts down completes the command without ending the copy.
            (State::Streaming, Frame::Other(Message::CommandComplete(_))) => {
                self.state = State::Stopped;
                Ok(Some(Event::ServerStopped))
            }
            (State::Ending(next), Frame::Other(Message::DataRow(row))) => {
                *next = columns(&row).ok().and_then(|row| Some((TimelineId(parse(&row, 0)?), parse(&row, 1)?)));
                Ok(None)
            }
            (State::Ending(_), Frame::Other(Message::RowDescription(_) | Message::CommandComplete(_))) => Ok(None),
            (State::Ending(next), Frame::Other(Message::ReadyForQuery(_))) => {
                let Some((next, start)) = next.take() else {
                    return Err(self.client.frames.protocol(DOING, "the timeline ended and no next one was told"));
                };
                self.state = State::Ended;
                self.client.ready();
                Ok(Some(Event::EndOfTimeline { next, start }))
            }
            (_, Frame::Other(Message::ParameterStatus(_))) => Ok(None),
            (_, other) => Err(self.client.frames.unexpected(DOING, &other)),
        }
    }

    /// Tells the server how far this receiver is. Positions must not go back. That the server has closed the
    /// connection is no error here: [`Replication::next`] first gives all that it had sent.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the server takes nothing for `idle_timeout`.
    pub async fn send_status(&mut self, status: Status) -> Result<(), Error> {
        self.status = status;
        if self.state != State::Streaming {
            return Ok(());
        }
        self.queue_status(false);
        self.flush().await
    }

    /// The status that was sent last.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Ends the stream from our side and gives the connection back. WAL that is still on the way is thrown away.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Cut`], [`Error::Server`].
    pub async fn stop(mut self) -> Result<Client, Error> {
        const DOING: &str = "ending a stream of WAL";
        if self.state == State::Streaming {
            frontend::copy_done(self.client.frames.outgoing());
        }
        let peer = self.client.frames.peer();
        within(self.client.command_timeout, &peer, DOING, async {
            self.client.frames.flush(DOING).await?;
            while self.state != State::Ended {
                if let Frame::Other(Message::ReadyForQuery(_)) = self.client.answer(DOING).await? {
                    self.state = State::Ended;
                    self.client.ready();
                }
            }
            Ok(())
        })
        .await?;
        Ok(self.client)
    }

    /// The connection back, after [`Event::EndOfTimeline`]; before, it takes no more commands ([`Error::Abandoned`]).
    pub fn into_client(self) -> Client {
        self.client
    }

    #[expect(clippy::disallowed_methods, reason = "PostgreSQL shows it to people")]
    fn queue_status(&mut self, reply: bool) {
        let status = self.status;
        let now = SystemTime::now().duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default();
        let mut body = BytesMut::with_capacity(34);
        body.put_u8(b'r');
        body.put_u64(status.write.0);
        body.put_u64(status.flush.0);
        body.put_u64(status.apply.0);
        body.put_i64(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        body.put_u8(u8::from(reply));
        if let Ok(copy) = frontend::CopyData::new(body) {
            copy.write(self.client.frames.outgoing());
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let peer = self.client.frames.peer();
        if self.deaf {
            self.client.frames.forget();
            return Ok(());
        }
        match within(self.idle_timeout, &peer, DOING, self.client.frames.flush(DOING)).await {
            Err(Error::Cut { source, .. }) => {
                tracing::debug!(%peer, "the server takes no more answers ({source}); reading what it had sent");
                self.deaf = true;
                self.client.frames.forget();
                Ok(())
            }
            done => done,
        }
    }
}

fn message(mut data: Bytes) -> Option<Event> {
    match data.try_get_u8().ok()? {
        b'w' if data.len() >= 24 => {
            let (start, end) = (Lsn(data.get_u64()), Lsn(data.get_u64()));
            Some(Event::Wal { start, end, sent: time(data.get_i64()), data })
        }
        b'k' if data.len() == 17 => {
            let end = Lsn(data.get_u64());
            Some(Event::Keepalive { end, sent: time(data.get_i64()), reply_requested: data.get_u8() == 1 })
        }
        _ => None,
    }
}

/// A time of PostgreSQL's, microseconds since 2000. Nonsense becomes 1970 rather than a panic.
fn time(microseconds: i64) -> SystemTime {
    let distance = Duration::from_micros(microseconds.unsigned_abs());
    let epoch = UNIX_EPOCH + EPOCH;
    let at = if microseconds < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    at.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_or_refused() {
        let mut wal = BytesMut::from(&b"w"[..]);
        wal.put_u64(0x300_0000);
        wal.put_u64(0x300_0002);
        wal.put_i64(1_000_000);
        wal.put_slice(b"ab");
        let sent = UNIX_EPOCH + Duration::from_secs(946_684_801);
        let event = Event::Wal { start: Lsn(0x300_0000), end: Lsn(0x300_0002), sent, data: Bytes::from_static(b"ab") };
        assert_eq!(message(wal.clone().freeze()), Some(event));
        for length in 0..25 {
            assert_eq!(message(wal.clone().freeze().slice(..length)), None, "{length}");
        }
        assert_eq!(message(Bytes::from_static(b"k\0\0")), None);
        assert_eq!(message(Bytes::from_static(b"x")), None);
    }

    #[test]
    fn no_time_panics() {
        assert_eq!(time(0), UNIX_EPOCH + EPOCH);
        let _ = (time(i64::MIN), time(i64::MAX));
    }

    #[test]
    fn commands_are_postgresqls() {
        let mut o = ReplicationOptions::new(Lsn(0x5_0300_0000));
        assert_eq!(o.command().unwrap(), "START_REPLICATION PHYSICAL 5/3000000");
        o.slot = Some("m1_a".into());
        o.timeline = Some(TimelineId(7));
        assert_eq!(o.command().unwrap(), "START_REPLICATION SLOT \"m1_a\" PHYSICAL 5/3000000 TIMELINE 7");
        o.slot = Some("a\" PHYSICAL".into());
        assert!(o.command().is_err());
    }
}
