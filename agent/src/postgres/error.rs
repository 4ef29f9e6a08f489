//! What can go wrong with one PostgreSQL, in sentences.

use super::supervisor;
use std::{io, path::PathBuf, time::Duration};

/// Why a step failed. The variant's name ([`Error::reason`]) is the reason in logs and the label in metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The supervisor cannot be asked, or refuses.
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
    /// PostgreSQL reported an error.
    #[error("PostgreSQL refused ({doing}): {}", sql_sentence(.source))]
    Sql {
        /// What was asked.
        doing: &'static str,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// Something did not happen in time.
    #[error("{doing} did not end within {after:?}; it is tried again")]
    Timeout {
        /// What was waited for.
        doing: &'static str,
        /// How long.
        after: Duration,
    },
    /// PostgreSQL answered with something that does not belong there.
    #[error("PostgreSQL's answer is unreadable ({doing}): {what}")]
    Answer {
        /// What was asked.
        doing: &'static str,
        /// What came.
        what: String,
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
    /// A program of the image failed.
    #[error("{program} failed ({exit}): {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// How it ended.
        exit: String,
        /// The end of what it wrote.
        said: String,
    },
    /// PostgreSQL ended right after it was started.
    #[error("PostgreSQL ended while it was starting ({0}); its log says why")]
    Died(String),
    /// PostgreSQL refuses the user's hba lines.
    #[error("{0}")]
    Hba(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// The replication protocol's side of a clone failed.
    #[error(transparent)]
    Wire(#[from] pgconvoy_wire::Error),
    /// The timelines on disk do not allow what is wanted. A person must look.
    #[error("{0}")]
    Timeline(String),
    /// The image holds no PostgreSQL that can be run here. A person must name another.
    #[error("{0}")]
    Image(String),
    /// The archive did not give what was to be had from it. It is tried again, or another way is taken.
    #[error("{0}")]
    Archive(String),
    /// What is wanted does not fit what is there; the decision is the core's.
    #[error("{0}")]
    Unfit(String),
    /// Another step must come first; nothing is wrong.
    #[error("{0}")]
    NotYet(String),
}

fn sql_sentence(e: &tokio_postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|d| format!("; {d}")).unwrap_or_default();
            format!("{} ({}){detail}", db.message(), db.code().code())
        }
        None => {
            // The crate's own text ("error connecting to server") says less than what lies under it.
            let mut text = e.to_string();
            let mut source = std::error::Error::source(e);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        }
    }
}

impl Error {
    /// The variant's name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Supervisor(_) => "Supervisor",
            Self::Sql { .. } => "Sql",
            Self::Timeout { .. } => "Timeout",
            Self::Answer { .. } => "Answer",
            Self::Disk { .. } => "Disk",
            Self::Program { .. } => "Program",
            Self::Died(_) => "Died",
            Self::Hba(_) => "Hba",
            Self::Configuration(_) => "Configuration",
            Self::Wire(_) => "Wire",
            Self::Timeline(_) => "Timeline",
            Self::Image(_) => "Image",
            Self::Archive(_) => "Archive",
            Self::Unfit(_) => "Unfit",
            Self::NotYet(_) => "NotYet",
        }
    }

    pub(crate) fn disk(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { doing, path, source }
    }
}
