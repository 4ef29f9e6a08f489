//! What an agent asks.

use super::{
    MAX_REQUEST, MAX_STDIN, Permit, Signal,
    words::{self, Fields, Malformed, Words},
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    time::Duration,
};

/// A program of the container's image, and how to run it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Its path. A name without a slash is looked up in `PATH` (of `env`, else of the container).
    pub exec: OsString,
    /// The working directory.
    pub cwd: OsString,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// What is laid over the container's environment: `NAME=value` sets, `NAME` alone removes.
    pub env: Vec<OsString>,
    /// A file (made if it is not there) that the program must be alone in locking, by `flock`. The lock lasts until the
    /// last process that came of the program has ended, so it outlives a postmaster as long as its backends do.
    pub lock: Option<OsString>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Agrees on a version: the supervisor answers with the highest that both speak.
    Hello {
        /// The highest version of the agent, from 1.
        version: u32,
    },
    /// Asks what runs.
    Status,
    /// Starts the PostgreSQL of this container, if none runs. Its output goes to the container's log.
    Start {
        /// A name for the log.
        id: String,
        /// The epoch it runs in.
        epoch: String,
        /// Set before the process exists.
        permit: Permit,
        /// What to run.
        program: Program,
    },
    /// Runs a tool and sends its output back as [`super::Done`]. A tool whose connection closes is killed.
    Run {
        /// Comes back in [`super::Done`].
        id: String,
        /// After this time the tool is killed. At least 1 ms.
        timeout: Duration,
        /// What to run.
        program: Program,
        /// Its standard input, at most 32 KiB; empty without.
        stdin: Option<Vec<u8>>,
    },
    /// Renews or shortens the permission of the running PostgreSQL.
    Permit {
        /// Must be the epoch that it runs in.
        epoch: String,
        /// The new permission.
        until: Permit,
    },
    /// A promotion: the same process goes on in a later epoch.
    Epoch {
        /// Must be the epoch that it runs in.
        from: String,
        /// The epoch that it runs in from now on.
        to: String,
        /// The new permission.
        until: Permit,
    },
    /// Signals PostgreSQL's first process.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// Kills every process of the container but the supervisor; answered when none is left.
    Fence,
    /// Sends [`super::Event`]s to this connection from now on.
    Watch,
    /// Answers [`super::Event::Term`]: the agent stops PostgreSQL itself. Needs an open watching connection.
    Ack,
    /// The supervisor may end as soon as no PostgreSQL runs.
    Exit,
}

impl Request {
    /// Reads a line, given without its newline.
    ///
    /// # Errors
    /// When the line is not a request of this version.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        if line.len() >= MAX_REQUEST {
            return Err(Malformed::TooLong { what: "a request", limit: MAX_REQUEST });
        }
        let (verb, mut words) = Words::of(line)?;
        match verb {
            "HELLO" => {
                let version = words::number("version", words.word("version")?)?;
                if version == 0 {
                    return Err(words::value("version", "at least 1", "0"));
                }
                words.end(Self::Hello { version })
            }
            "STATUS" => words.end(Self::Status),
            "FENCE" => words.end(Self::Fence),
            "WATCH" => words.end(Self::Watch),
            "ACK" => words.end(Self::Ack),
            "EXIT" => words.end(Self::Exit),
            "START" => {
                let f = words.fields(&["id", "epoch", "permit", "cwd", "exec", "arg", "env", "lock"])?;
                Ok(Self::Start {
                    id: words::decode_name("id", f.one("id")?)?,
                    epoch: words::decode_name("epoch", f.one("epoch")?)?,
                    permit: Permit::parse("permit", f.one("permit")?)?,
                    program: Program::from_fields(&f)?,
                })
            }
            "RUN" => {
                Self::parse_run(&words.fields(&["id", "timeout_ms", "cwd", "exec", "arg", "env", "lock", "stdin"])?)
            }
            "PERMIT" => {
                let f = words.fields(&["epoch", "until"])?;
                Ok(Self::Permit {
                    epoch: words::decode_name("epoch", f.one("epoch")?)?,
                    until: Permit::parse("until", f.one("until")?)?,
                })
            }
            "EPOCH" => {
                let f = words.fields(&["from", "to", "until"])?;
                Ok(Self::Epoch {
                    from: words::decode_name("from", f.one("from")?)?,
                    to: words::decode_name("to", f.one("to")?)?,
                    until: Permit::parse("until", f.one("until")?)?,
                })
            }
            "SIGNAL" => {
                let f = words.fields(&["to", "sig"])?;
                match f.one("to")? {
                    "postgres" => Ok(Self::Signal { signal: Signal::parse("sig", f.one("sig")?)? }),
                    other => Err(words::value("to", "\"postgres\"", other)),
                }
            }
            other => Err(Malformed::Verb(words::excerpt(other))),
        }
    }

    fn parse_run(f: &Fields<'_>) -> Result<Self, Malformed> {
        let millis: u32 = words::number("timeout_ms", f.one("timeout_ms")?)?;
        if millis == 0 {
            return Err(words::value("timeout_ms", "at least 1", "0"));
        }
        let stdin = f.maybe("stdin")?.map(|s| words::decode("stdin", s)).transpose()?;
        if stdin.as_ref().is_some_and(|s| s.len() > MAX_STDIN) {
            return Err(Malformed::TooLong { what: "stdin", limit: MAX_STDIN });
        }
        Ok(Self::Run {
            id: words::decode_name("id", f.one("id")?)?,
            timeout: Duration::from_millis(u64::from(millis)),
            program: Program::from_fields(f)?,
            stdin,
        })
    }

    /// The line for this request, its newline included.
    ///
    /// # Errors
    /// When it is longer than [`MAX_REQUEST`] or one of its values is not what [`Request::parse`] takes.
    pub fn to_line(&self) -> Result<String, Malformed> {
        let mut line = String::new();
        match self {
            Self::Hello { version } => line.push_str(&format!("HELLO {version}")),
            Self::Status => line.push_str("STATUS"),
            Self::Fence => line.push_str("FENCE"),
            Self::Watch => line.push_str("WATCH"),
            Self::Ack => line.push_str("ACK"),
            Self::Exit => line.push_str("EXIT"),
            Self::Start { id, epoch, permit, program } => {
                line.push_str("START");
                words::field(&mut line, "id", id.as_bytes());
                words::field(&mut line, "epoch", epoch.as_bytes());
                line.push_str(&format!(" permit={permit}"));
                program.to_fields(&mut line);
            }
            Self::Run { id, timeout, program, stdin } => {
                line.push_str("RUN");
                words::field(&mut line, "id", id.as_bytes());
                line.push_str(&format!(" timeout_ms={}", timeout.as_millis()));
                program.to_fields(&mut line);
                if let Some(stdin) = stdin {
                    words::field(&mut line, "stdin", stdin);
                }
            }
            Self::Permit { epoch, until } => {
                line.push_str("PERMIT");
                words::field(&mut line, "epoch", epoch.as_bytes());
                line.push_str(&format!(" until={until}"));
            }
            Self::Epoch { from, to, until } => {
                line.push_str("EPOCH");
                words::field(&mut line, "from", from.as_bytes());
                words::field(&mut line, "to", to.as_bytes());
                line.push_str(&format!(" until={until}"));
            }
            Self::Signal { signal } => line.push_str(&format!("SIGNAL to=postgres sig={signal}")),
        }
        // What cannot be read must not be sent: the answer would come late and far from the mistake.
        Self::parse(line.as_bytes())?;
        line.push('\n');
        Ok(line)
    }
}

impl Program {
    fn from_fields(f: &Fields<'_>) -> Result<Self, Malformed> {
        let read = |field, text: &str| {
            let bytes = words::decode(field, text)?;
            if bytes.contains(&0) {
                return Err(words::value(field, "without zero bytes", text));
            }
            Ok(OsString::from_vec(bytes))
        };
        let filled = |field, text: &str| {
            if text.is_empty() { Err(words::value(field, "not empty", text)) } else { read(field, text) }
        };
        let nameless = |e: &OsString| e.is_empty() || e.as_bytes().starts_with(b"=");
        let program = Self {
            exec: filled("exec", f.one("exec")?)?,
            cwd: filled("cwd", f.one("cwd")?)?,
            args: f.many("arg").map(|a| read("arg", a)).collect::<Result<_, _>>()?,
            env: f.many("env").map(|e| read("env", e)).collect::<Result<_, _>>()?,
            lock: f.maybe("lock")?.map(|l| filled("lock", l)).transpose()?,
        };
        match program.env.iter().find(|e| nameless(e)) {
            None => Ok(program),
            Some(e) => Err(words::value("env", "NAME=value or NAME", &e.to_string_lossy())),
        }
    }

    fn to_fields(&self, line: &mut String) {
        let mut field = |name, value: &OsStr| words::field(line, name, value.as_bytes());
        field("cwd", &self.cwd);
        field("exec", &self.exec);
        self.args.iter().for_each(|a| field("arg", a));
        self.env.iter().for_each(|e| field("env", e));
        self.lock.iter().for_each(|l| field("lock", l));
    }
}
