//! Messages in and out.

use crate::{
    error::{Error, ServerError},
    stream::{Stream, is_tls},
};
use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{ErrorFields, Header, Message};
use std::{future::Future, io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// How much is read at once. Large enough that a backup costs few system calls, small enough for an idle connection.
const READ_AHEAD: usize = 256 << 10;
/// No message that we ask for is longer (the longest, a history file, is some kilobytes; WAL comes in 128 KiB).
const MESSAGE_LIMIT: usize = 16 << 20;

/// What the server sends.
pub(crate) enum Frame {
    /// Bytes of a copy.
    Data(Bytes),
    /// A copy in both directions begins.
    CopyBoth,
    /// Anything else.
    Other(Message),
}

/// A connection that has been opened: whole messages over a stream.
pub(crate) struct Frames {
    stream: Box<dyn Stream>,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Something was written that TLS may still hold back.
    unflushed: bool,
    peer: String,
}

impl Frames {
    pub(crate) fn new(stream: Box<dyn Stream>, peer: String) -> Self {
        Self { stream, incoming: BytesMut::new(), outgoing: BytesMut::new(), unflushed: false, peer }
    }

    pub(crate) fn peer(&self) -> String {
        self.peer.clone()
    }

    /// What will be sent by the next [`Frames::flush`].
    pub(crate) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    pub(crate) fn unsent(&self) -> bool {
        self.unflushed || !self.outgoing.is_empty()
    }

    /// Drops what is waiting, when there is nobody to take it.
    pub(crate) fn forget(&mut self) {
        self.outgoing.clear();
        self.unflushed = false;
    }

    /// Sends what is waiting. Cancel-safe: what was not sent goes first the next time.
    pub(crate) async fn flush(&mut self, doing: &'static str) -> Result<(), Error> {
        while self.outgoing.has_remaining() {
            self.unflushed = true;
            match self.stream.write_buf(&mut self.outgoing).await {
                Ok(0) => return Err(self.cut(doing, io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) => return Err(self.cut(doing, e)),
            }
        }
        self.stream.flush().await.map_err(|e| self.cut(doing, e))?;
        self.unflushed = false;
        Ok(())
    }

    /// The next message. Notices are logged and skipped, errors are returned as such. Cancel-safe, no deadline.
    pub(crate) async fn receive(&mut self, doing: &'static str) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.parse(doing)? {
                match frame {
                    Frame::Other(Message::NoticeResponse(notice)) => {
                        let notice = server_error(notice.fields());
                        tracing::debug!(peer = %self.peer, code = %notice.code, "notice: {}", notice.message);
                    }
                    Frame::Other(Message::ErrorResponse(error)) => {
                        let error = Box::new(server_error(error.fields()));
                        return Err(Error::Server { peer: self.peer(), doing, error });
                    }
                    Frame::Other(Message::NotificationResponse(_)) => {}
                    frame => return Ok(frame),
                }
                continue;
            }
            // Bytes handed out share this buffer; reserving then begins a new one, so nothing is copied but a rest.
            if self.incoming.capacity() - self.incoming.len() < READ_AHEAD / 8 {
                self.incoming.reserve(READ_AHEAD);
            }
            match self.stream.read_buf(&mut self.incoming).await {
                Ok(0) => return Err(self.cut(doing, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(e) => return Err(self.cut(doing, e)),
            }
        }
    }

    fn parse(&mut self, doing: &'static str) -> Result<Option<Frame>, Error> {
        let broken = |peer: &str, what: String| Error::Protocol { peer: peer.to_owned(), doing, what };
        let header = Header::parse(&self.incoming).map_err(|e| broken(&self.peer, e.to_string()))?;
        let Some(header) = header else { return Ok(None) };
        let body = usize::try_from(header.len()).unwrap_or(usize::MAX);
        if body > MESSAGE_LIMIT {
            let tag = char::from(header.tag());
            return Err(broken(&self.peer, format!("a message {tag:?} of {body} bytes")));
        }
        let length = body + 1;
        if self.incoming.len() < length {
            return Ok(None);
        }
        match header.tag() {
            b'd' => {
                let mut message = self.incoming.split_to(length);
                message.advance(5);
                Ok(Some(Frame::Data(message.freeze())))
            }
            b'W' => {
                self.incoming.advance(length);
                Ok(Some(Frame::CopyBoth))
            }
            _ => match Message::parse(&mut self.incoming) {
                Ok(message) => Ok(message.map(Frame::Other)),
                Err(e) => Err(broken(&self.peer, e.to_string())),
            },
        }
    }

    pub(crate) fn cut(&self, doing: &'static str, source: io::Error) -> Error {
        let peer = self.peer();
        if is_tls(&source) { Error::Tls { peer, source } } else { Error::Cut { peer, doing, source } }
    }

    pub(crate) fn protocol(&self, doing: &'static str, what: impl Into<String>) -> Error {
        Error::Protocol { peer: self.peer(), doing, what: what.into() }
    }

    /// For a frame that does not belong where it came.
    pub(crate) fn unexpected(&self, doing: &'static str, frame: &Frame) -> Error {
        self.protocol(doing, format!("{} does not belong here", name(frame)))
    }
}

/// Runs a step of the protocol with a deadline.
pub(crate) async fn within<T>(
    after: Duration,
    peer: &str,
    doing: &'static str,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout(after, step).await {
        Ok(done) => done,
        Err(_) => Err(Error::Timeout { peer: peer.to_owned(), doing, after }),
    }
}

fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut e =
        ServerError { severity: String::new(), code: String::new(), message: String::new(), detail: None, hint: None };
    // A report that is itself malformed is still an error: what was readable is kept.
    while let Ok(Some(field)) = fields.next() {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            // `V` is the severity without translation.
            b'V' => e.severity = text,
            b'C' => e.code = text,
            b'M' => e.message = text,
            b'D' => e.detail = Some(text),
            b'H' => e.hint = Some(text),
            _ => {}
        }
    }
    e
}

fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Data(_) => "CopyData",
        Frame::CopyBoth => "CopyBothResponse",
        Frame::Other(m) => match m {
            Message::AuthenticationOk => "AuthenticationOk",
            Message::BackendKeyData(_) => "BackendKeyData",
            Message::CommandComplete(_) => "CommandComplete",
            Message::CopyDone => "CopyDone",
            Message::CopyInResponse(_) => "CopyInResponse",
            Message::CopyOutResponse(_) => "CopyOutResponse",
            Message::DataRow(_) => "DataRow",
            Message::EmptyQueryResponse => "EmptyQueryResponse",
            Message::ParameterStatus(_) => "ParameterStatus",
            Message::ReadyForQuery(_) => "ReadyForQuery",
            Message::RowDescription(_) => "RowDescription",
            _ => "a message of another kind",
        },
    }
}
