//! What the supervisor says.

use super::{
    Exit, MAX_MESSAGE, Permit,
    words::{self, Malformed, Words},
};
use crate::clock::Boottime;
use std::fmt;

/// Any line that the supervisor sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The answer to the oldest request of this connection that has none yet.
    Response(Response),
    /// A tool that this connection asked for has ended.
    Done(Done),
    /// Something happened; this connection watches.
    Event(Event),
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To `HELLO`.
    Hello {
        /// The version to speak: the lower of the two highest.
        version: u32,
        /// When this supervisor started. Another value later is another supervisor: nothing of the old one runs.
        boot: Boottime,
    },
    /// To `STATUS`.
    Status(Status),
    /// To `START`: the program runs. The permission is armed.
    Start {
        /// Process id in the container's namespace.
        pid: i32,
    },
    /// To `RUN`: the program runs; [`Done`] follows.
    Run {
        /// Process id in the container's namespace.
        pid: i32,
    },
    /// To `PERMIT`: the timer thread has taken the new permission.
    Permit,
    /// To `EPOCH`: the timer thread has taken the new permission.
    Epoch,
    /// To `SIGNAL`: it was sent.
    Signal,
    /// To `FENCE`: no process is left in the container but the supervisor.
    Fence,
    /// To `WATCH`.
    Watch,
    /// To `ACK`.
    Ack,
    /// To `EXIT`.
    Exit,
    /// The request was not done.
    Error(Refusal),
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// PostgreSQL's first process, until it *and everything it left behind* is gone.
    pub postgres: Option<i32>,
    /// The epoch of the running PostgreSQL, or of the last one.
    pub epoch: Option<String>,
    /// The permission; none when nothing runs that needs one.
    pub permit: Option<Permit>,
    /// When the running PostgreSQL was started.
    pub started: Option<Boottime>,
    /// How the last PostgreSQL ended.
    pub last_exit: Option<Exit>,
    /// The container was asked to stop.
    pub stopping: bool,
    /// Tools that run.
    pub tools: usize,
}

/// A request that was not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub sentence: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Refusal {}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Not a request of this protocol version.
    Malformed,
    /// A line that is too long; the connection is closed.
    Long,
    /// A line that was begun and not ended; the connection is closed.
    Slow,
    /// Too many connections; this one is closed.
    Busy,
    /// The peer runs as another user; the connection is closed.
    Peer,
    /// `START`: PostgreSQL runs, or something it left behind does.
    Running,
    /// No PostgreSQL runs.
    Stopped,
    /// PostgreSQL runs in another epoch.
    Epoch,
    /// The permission had run out before the request came.
    Expired,
    /// A fence is under way, or killed what was being started.
    Fenced,
    /// The program could not be executed.
    Exec,
    /// Too many tools run.
    Tools,
    /// The container is being stopped.
    Stopping,
    /// `ACK` without a watching connection.
    Watch,
    /// `ACK` although nobody asked the container to stop.
    Nothing,
    /// The kernel refused (out of processes, of memory), or the timer thread does not answer.
    System,
    /// A code of a later version.
    Other(String),
}

impl ErrorCode {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Malformed, "malformed"),
        (Self::Long, "long"),
        (Self::Slow, "slow"),
        (Self::Busy, "busy"),
        (Self::Peer, "peer"),
        (Self::Running, "running"),
        (Self::Stopped, "stopped"),
        (Self::Epoch, "epoch"),
        (Self::Expired, "expired"),
        (Self::Fenced, "fenced"),
        (Self::Exec, "exec"),
        (Self::Tools, "tools"),
        (Self::Stopping, "stopping"),
        (Self::Watch, "watch"),
        (Self::Nothing, "nothing"),
        (Self::System, "system"),
    ];

    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(code) => code,
            known => Self::ALL.iter().find(|(c, _)| c == known).map_or("system", |(_, name)| name),
        }
    }

    fn parse(text: &str) -> Self {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map_or_else(|| Self::Other(text.to_owned()), |(c, _)| c.clone())
    }
}

/// How a tool ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The id of its `RUN`.
    pub id: String,
    /// How.
    pub exit: Exit,
    /// What it wrote to standard output.
    pub out: Output,
    /// What it wrote to standard error.
    pub err: Output,
}

/// The end of what a tool wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The last bytes.
    pub bytes: Vec<u8>,
    /// Bytes before them that were not kept.
    pub lost: u64,
}

impl Output {
    /// The output as text, for a message: what was cut is said, what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.lost == 0 { text.into_owned() } else { format!("[{} bytes not kept] {text}", self.lost) }
    }

    /// Appends the fields. Binary output triples when it is encoded: what exceeds half a message goes, from its head.
    fn to_fields(&self, line: &mut String, name: &str) {
        const BUDGET: usize = MAX_MESSAGE / 2 - 1024;
        let mut room = BUDGET;
        let mut from = self.bytes.len();
        while from > 0 {
            let Some(left) = room.checked_sub(words::encoded_length(self.bytes[from - 1])) else { break };
            room = left;
            from -= 1;
        }
        words::field(line, name, &self.bytes[from..]);
        line.push_str(&format!(" {name}_lost={}", self.lost + from as u64));
    }
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// PostgreSQL ended and nothing that it started is left.
    Exit {
        /// How.
        exit: Exit,
    },
    /// Everything was killed, by `FENCE` or because the permission ran out. An [`Event::Exit`] follows if PostgreSQL
    /// was running.
    Fenced {
        /// When nothing was left.
        at: Boottime,
    },
    /// The container was asked to stop: hand over, stop PostgreSQL. Without `ACK` in time the supervisor stops it.
    Term,
}

impl Message {
    /// Reads a line, given without its newline.
    ///
    /// # Errors
    /// When it is not a line that a supervisor of this version sends. Fields of later versions are skipped.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        if line.len() >= MAX_MESSAGE {
            return Err(Malformed::TooLong { what: "a message", limit: MAX_MESSAGE });
        }
        let (kind, mut words) = Words::of(line)?;
        match kind {
            "OK" => Response::parse(words).map(Self::Response),
            "ERR" => {
                let code = ErrorCode::parse(words.word("code")?);
                let sentence = words::decode_text("sentence", words.word("sentence")?)?;
                words.end(Self::Response(Response::Error(Refusal { code, sentence })))
            }
            "DONE" => {
                let f = words.any_fields();
                let output = |bytes: &'static str, lost: &'static str| -> Result<Output, Malformed> {
                    Ok(Output {
                        bytes: words::decode(bytes, f.one(bytes)?)?,
                        lost: f.maybe(lost)?.map_or(Ok(0), |n| words::number(lost, n))?,
                    })
                };
                Ok(Self::Done(Done {
                    id: words::decode_name("id", f.one("id")?)?,
                    exit: Exit::parse("exit", f.one("exit")?)?,
                    out: output("out", "out_lost")?,
                    err: output("err", "err_lost")?,
                }))
            }
            "EVENT" => Event::parse(words).map(Self::Event),
            other => Err(Malformed::Verb(words::excerpt(other))),
        }
    }

    /// The line for this message, its newline included; never longer than [`MAX_MESSAGE`].
    pub fn to_line(&self) -> String {
        let mut line = match self {
            Self::Response(response) => response.to_words(),
            Self::Event(Event::Exit { exit }) => format!("EVENT EXIT exit={exit}"),
            Self::Event(Event::Fenced { at }) => format!("EVENT FENCED at={at}"),
            Self::Event(Event::Term) => "EVENT TERM".to_owned(),
            Self::Done(done) => {
                let mut line = "DONE".to_owned();
                words::field(&mut line, "id", done.id.as_bytes());
                line.push_str(&format!(" exit={}", done.exit));
                done.out.to_fields(&mut line, "out");
                done.err.to_fields(&mut line, "err");
                line
            }
        };
        line.push('\n');
        line
    }
}

impl Event {
    fn parse(mut words: Words<'_>) -> Result<Self, Malformed> {
        match words.word("event")? {
            "EXIT" => Ok(Self::Exit { exit: Exit::parse("exit", words.any_fields().one("exit")?)? }),
            "FENCED" => Ok(Self::Fenced { at: Boottime(words::number("at", words.any_fields().one("at")?)?) }),
            "TERM" => Ok(Self::Term),
            other => Err(Malformed::Verb(words::excerpt(other))),
        }
    }
}

impl Response {
    fn parse(mut words: Words<'_>) -> Result<Self, Malformed> {
        let pid = |words: Words<'_>| words::number("pid", words.any_fields().one("pid")?);
        match words.word("verb")? {
            "HELLO" => {
                let version = words::number("version", words.word("version")?)?;
                let boot = Boottime(words::number("boot", words.any_fields().one("boot")?)?);
                Ok(Self::Hello { version, boot })
            }
            "STATUS" => Status::parse(words).map(Self::Status),
            "START" => Ok(Self::Start { pid: pid(words)? }),
            "RUN" => Ok(Self::Run { pid: pid(words)? }),
            "PERMIT" => Ok(Self::Permit),
            "EPOCH" => Ok(Self::Epoch),
            "SIGNAL" => Ok(Self::Signal),
            "FENCE" => Ok(Self::Fence),
            "WATCH" => Ok(Self::Watch),
            "ACK" => Ok(Self::Ack),
            "EXIT" => Ok(Self::Exit),
            other => Err(Malformed::Verb(words::excerpt(other))),
        }
    }

    fn to_words(&self) -> String {
        match self {
            Self::Hello { version, boot } => format!("OK HELLO {version} boot={boot}"),
            Self::Status(status) => status.to_words(),
            Self::Start { pid } => format!("OK START pid={pid}"),
            Self::Run { pid } => format!("OK RUN pid={pid}"),
            Self::Permit => "OK PERMIT".to_owned(),
            Self::Epoch => "OK EPOCH".to_owned(),
            Self::Signal => "OK SIGNAL".to_owned(),
            Self::Fence => "OK FENCE".to_owned(),
            Self::Watch => "OK WATCH".to_owned(),
            Self::Ack => "OK ACK".to_owned(),
            Self::Exit => "OK EXIT".to_owned(),
            Self::Error(refusal) => {
                let mut line = format!("ERR {} ", refusal.code.as_str());
                words::encode(&mut line, refusal.sentence.as_bytes());
                line
            }
        }
    }
}

impl Status {
    fn parse(words: Words<'_>) -> Result<Self, Malformed> {
        let f = words.any_fields();
        Ok(Self {
            postgres: words::optional(f.one("postgres")?, |t| words::number("postgres", t))?,
            epoch: words::optional(f.one("epoch")?, |t| words::decode_name("epoch", t))?,
            permit: match f.one("permit")? {
                "none" => None,
                text => Some(Permit::parse("permit", text)?),
            },
            started: words::optional(f.one("started")?, |t| Ok(Boottime(words::number("started", t)?)))?,
            last_exit: words::optional(f.one("last_exit")?, |t| Exit::parse("last_exit", t))?,
            stopping: words::number::<u8>("stopping", f.one("stopping")?)? != 0,
            tools: f.maybe("tools")?.map_or(Ok(0), |t| words::number("tools", t))?,
        })
    }

    fn to_words(&self) -> String {
        fn or_dash<T: fmt::Display>(value: Option<T>) -> String {
            value.map_or_else(|| "-".to_owned(), |v| v.to_string())
        }
        let mut line = format!("OK STATUS postgres={}", or_dash(self.postgres));
        words::field(&mut line, "epoch", self.epoch.as_deref().unwrap_or("-").as_bytes());
        line.push_str(&format!(
            " permit={} started={} last_exit={} stopping={} tools={}",
            self.permit.map_or_else(|| "none".to_owned(), |p| p.to_string()),
            or_dash(self.started),
            or_dash(self.last_exit),
            u8::from(self.stopping),
            self.tools
        ));
        line
    }
}
