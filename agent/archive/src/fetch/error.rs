//! Why a file cannot be given, in sentences.

use crate::{layout, store};
use pgconvoy_terms::{Lsn, SegmentName};
use std::{io, path::PathBuf};

/// Why a file could not be fetched. Absence is none of these: it is an answer.
///
/// `restore_command` must tell the two apart: PostgreSQL takes a status of 1 to 125 for *there is no such file*, and ends
/// recovery with what it has. For an error it must see 126 or more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed, or what lies in it is damaged.
    #[error(transparent)]
    Archive(#[from] layout::Error),
    /// WAL is missing in the middle.
    #[error(
        "the archive has a gap: {segment} is there up to {covered} only, and there is WAL of a later time; recovery \
         would end too early. Restore to a point before {covered}, or from a later snapshot"
    )]
    Gap {
        /// The segment.
        segment: SegmentName,
        /// Up to where there is WAL.
        covered: Lsn,
    },
    /// WAL is missing, and what lies behind it may have been stored before it.
    #[error("{segment} is there up to {covered} only, and what is behind it is on its way, or was when writing ended")]
    Unfinished {
        /// The segment.
        segment: SegmentName,
        /// Up to where there is WAL.
        covered: Lsn,
    },
    /// There is no such epoch in the archive.
    #[error("{what} is not in {store}")]
    Unknown {
        /// What was looked for.
        what: String,
        /// Where.
        store: String,
    },
    /// Two epochs of one number, and nothing says which is meant.
    #[error(
        "there are two epochs of timeline {timeline} in the archive, {first} and {second}; name the one that is meant"
    )]
    Ambiguous {
        /// Their number.
        timeline: u32,
        /// One.
        first: String,
        /// The other.
        second: String,
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
}

impl From<store::Error> for Error {
    fn from(e: store::Error) -> Self {
        Self::Archive(e.into())
    }
}

impl Error {
    /// The reason, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Archive(e) => e.reason(),
            Self::Gap { .. } => "Gap",
            Self::Unfinished { .. } => "Unfinished",
            Self::Unknown { .. } => "Unknown",
            Self::Ambiguous { .. } => "Ambiguous",
            Self::Disk { .. } => "Disk",
        }
    }

    /// Whether it may go away by itself. A gap may: segments of a backlog are stored side by side.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Archive(layout::Error::Store(e)) => e.reason().is_transient(),
            other => matches!(other, Self::Gap { .. } | Self::Unfinished { .. }),
        }
    }

    pub(super) fn disk(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { doing, path, source }
    }
}
