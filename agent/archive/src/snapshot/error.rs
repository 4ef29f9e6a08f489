//! What can go wrong with a snapshot, in sentences.

use crate::{layout, store};
use std::{io, path::PathBuf};

/// Why a snapshot could not be taken or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed, or what lies in it is damaged.
    #[error(transparent)]
    Archive(#[from] layout::Error),
    /// The server failed.
    #[error("cannot take a snapshot: {0}")]
    Server(#[from] pgconvoy_wire::Error),
    /// The server answered something unexpected.
    #[error("cannot take a snapshot: the answer to {call} is {answer:?}")]
    Answer {
        /// What was called.
        call: &'static str,
        /// What came.
        answer: String,
    },
    /// The data directory holds something that snapshots cannot carry.
    #[error("cannot take a snapshot: {} {why}", .path.display())]
    Unsupported {
        /// What.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The id is in use, or no id.
    #[error("{0}")]
    Id(String),
    /// The directory that is to be restored into is not empty.
    #[error("{} is not empty; a snapshot is restored into an empty directory only", .0.display())]
    NotEmpty(PathBuf),
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
}

impl From<store::Error> for Error {
    fn from(e: store::Error) -> Self {
        Self::Archive(e.into())
    }
}

impl Error {
    pub(super) fn disk(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { doing, path, source }
    }

    /// The reason, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Archive(e) => e.reason(),
            Self::Server(e) => e.reason(),
            Self::Answer { .. } => "Answer",
            Self::Unsupported { .. } => "Unsupported",
            Self::Id(_) => "Id",
            Self::NotEmpty(_) => "NotEmpty",
            Self::Disk { .. } => "Disk",
        }
    }
}
