//! What can be wrong with an archive, in sentences.

use crate::store;
use pgconvoy_terms::Epoch;

/// Why the archive cannot be used, or a part of it. The variant's name ([`Error::reason`]) is the reason in conditions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The prefix holds another replica set's archive.
    #[error(
        "{key} in {store} says that this archive belongs to replica set {owner}, uid {uid}; nothing was written. Choose \
         another prefix, or adopt the archive if that set is gone for ever"
    )]
    AnotherOwner {
        /// The object that says so.
        key: String,
        /// Where.
        store: String,
        /// Namespace and name of the owner.
        owner: String,
        /// Its uid.
        uid: String,
    },
    /// Another member leads the epoch, or wrote its WAL.
    #[error("epoch {epoch} belongs to another leader: {why}; nothing more is archived from here")]
    Fenced {
        /// The epoch.
        epoch: Epoch,
        /// How that was seen.
        why: String,
    },
    /// The archive was written by a later version.
    #[error("{key} is of format {found}, this version of pgconvoy reads up to {}", super::FORMAT)]
    Newer {
        /// The object.
        key: String,
        /// Its format.
        found: u32,
    },
    /// An object is not what it should be.
    #[error("{key} is damaged: {why}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// The variant's name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Store(e) => e.reason().name(),
            Self::AnotherOwner { .. } => "AnotherOwner",
            Self::Fenced { .. } => "Fenced",
            Self::Newer { .. } => "Newer",
            Self::Damaged { .. } => "Damaged",
        }
    }

    pub(crate) fn damaged(key: &str, why: impl Into<String>) -> Self {
        Self::Damaged { key: key.to_owned(), why: why.into() }
    }
}
