//! What can go wrong, in sentences.

use crate::restore::ManifestProblem;
use std::{fmt, io, path::PathBuf, time::Duration};

/// An error that the server reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`; the last two end the connection.
    pub severity: String,
    /// The SQLSTATE, five characters (`55006`: object in use).
    pub code: String,
    /// The message.
    pub message: String,
    /// The DETAIL line.
    pub detail: Option<String>,
    /// The HINT line.
    pub hint: Option<String>,
}

impl ServerError {
    /// Whether the server closes the connection after it.
    pub fn is_fatal(&self) -> bool {
        self.severity == "FATAL" || self.severity == "PANIC"
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// Why a call failed. The variant's name ([`Error::reason`]) is the reason in events and the label in metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made.
    #[error("cannot connect to PostgreSQL at {peer}: {source}")]
    Connect {
        /// Where.
        peer: String,
        /// Why.
        source: io::Error,
    },
    /// The server did not do its part in time. It may be down, overloaded or cut off.
    #[error("PostgreSQL at {peer} did not answer within {after:?} ({doing}); it may be down, overloaded or cut off")]
    Timeout {
        /// Who.
        peer: String,
        /// What was waited for.
        doing: &'static str,
        /// How long.
        after: Duration,
    },
    /// The TLS handshake failed: wrong name, unknown authority, expired or refused certificate.
    #[error("no TLS connection to PostgreSQL at {peer}: {source}")]
    Tls {
        /// Who.
        peer: String,
        /// Why.
        source: io::Error,
    },
    /// The server speaks no TLS, and we do not go on without.
    #[error("PostgreSQL at {peer} refuses TLS (`ssl` is off there); nothing was sent to it")]
    TlsUnavailable {
        /// Who.
        peer: String,
    },
    /// The certificates or the key that we were given are unusable.
    #[error("the TLS configuration is unusable: {0}")]
    TlsMaterial(String),
    /// The server lets us in by no method that we speak, or the password does not fit.
    #[error("PostgreSQL at {peer} did not authenticate us: {why}")]
    Authentication {
        /// Who.
        peer: String,
        /// Why.
        why: String,
    },
    /// The server is too old.
    #[error("PostgreSQL at {peer} is version {version}; pgconvoy speaks to 15 and later")]
    Version {
        /// Who.
        peer: String,
        /// What it calls itself.
        version: String,
    },
    /// The server reported an error.
    #[error("PostgreSQL at {peer} refused ({doing}): {error}")]
    Server {
        /// Who.
        peer: String,
        /// What was asked.
        doing: &'static str,
        /// What it said.
        error: Box<ServerError>,
    },
    /// The connection ended in the middle.
    #[error("the connection to PostgreSQL at {peer} was cut ({doing}): {source}")]
    Cut {
        /// Who.
        peer: String,
        /// What was going on.
        doing: &'static str,
        /// How.
        source: io::Error,
    },
    /// The server sent something that does not belong there.
    #[error("PostgreSQL at {peer} broke the protocol ({doing}): {what}")]
    Protocol {
        /// Who.
        peer: String,
        /// What was going on.
        doing: &'static str,
        /// What came.
        what: String,
    },
    /// An earlier command on this connection was given up before its end, so its answer may still be on the way.
    #[error("an earlier command on this connection to PostgreSQL at {peer} was abandoned; connect again")]
    Abandoned {
        /// Who.
        peer: String,
    },
    /// What the caller asked for cannot be sent.
    #[error("refused before it was sent: {0}")]
    Invalid(String),
    /// The target directory is not an empty directory.
    #[error("{} cannot take a restore: {why}", .dir.display())]
    Target {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The backup holds an entry that we do not unpack.
    #[error("the backup's entry {entry:?} is refused: {why}")]
    Archive {
        /// The entry's name in the archive.
        entry: String,
        /// Why.
        why: String,
    },
    /// The manifest itself cannot be relied on.
    #[error("the backup's manifest is refused: {0}")]
    Manifest(String),
    /// Received files are not what the manifest says.
    #[error("the received backup is damaged and must not be used: {}", list(.problems))]
    Damaged {
        /// What differs, at most [`Error::PROBLEM_LIMIT`] of them.
        problems: Vec<ManifestProblem>,
    },
}

fn list(problems: &[ManifestProblem]) -> String {
    let shown: Vec<_> = problems.iter().take(3).map(ToString::to_string).collect();
    let rest = problems.len().saturating_sub(3);
    shown.join("; ") + &if rest > 0 { format!("; and {rest} more") } else { String::new() }
}

impl Error {
    /// How many differences between a backup and its manifest are kept.
    pub const PROBLEM_LIMIT: usize = 100;

    /// The server's own report, when that is what failed.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The SQLSTATE, when the server reported the error.
    pub fn code(&self) -> Option<&str> {
        self.server().map(|e| e.code.as_str())
    }

    /// The variant's name: the reason in an event, the label of a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "Connect",
            Self::Timeout { .. } => "Timeout",
            Self::Tls { .. } => "Tls",
            Self::TlsUnavailable { .. } => "TlsUnavailable",
            Self::TlsMaterial(_) => "TlsMaterial",
            Self::Authentication { .. } => "Authentication",
            Self::Version { .. } => "Version",
            Self::Server { .. } => "Server",
            Self::Cut { .. } => "Cut",
            Self::Protocol { .. } => "Protocol",
            Self::Abandoned { .. } => "Abandoned",
            Self::Invalid(_) => "Invalid",
            Self::Target { .. } => "Target",
            Self::Disk { .. } => "Disk",
            Self::Archive { .. } => "Archive",
            Self::Manifest(_) => "Manifest",
            Self::Damaged { .. } => "Damaged",
        }
    }

    pub(crate) fn disk(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { doing, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_keeps_all_its_lines() {
        let e = Error::Server {
            peer: "a-1".into(),
            doing: "creating slot",
            error: Box::new(ServerError {
                severity: "ERROR".into(),
                code: "42710".into(),
                message: "replication slot \"x\" already exists".into(),
                detail: Some("d".into()),
                hint: Some("h".into()),
            }),
        };
        assert_eq!(
            e.to_string(),
            "PostgreSQL at a-1 refused (creating slot): replication slot \"x\" already exists (42710); d; hint: h"
        );
        assert_eq!((e.code(), e.reason()), (Some("42710"), "Server"));
    }
}
