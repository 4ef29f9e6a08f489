//! What keeps the operator from doing what the spec asks.

use crate::kinds::Kind;
use pgconvoy_crds::conditions::reasons;
use pgconvoy_terms::MemberName;
use thiserror::Error;

/// One such thing. Its text is a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// The spec is wrong.
    #[error("the spec cannot be used: {0}")]
    SpecInvalid(String),
    /// The PgTerm was made for another set.
    #[error(
        "the PgTerm {name} was made for another replica set (UID {set_uid}), so no pod is made: delete the PgTerm {name} if that set's data is not needed, and this set starts with its own"
    )]
    ForeignTerm {
        /// The PgTerm.
        name: String,
        /// The other set.
        set_uid: String,
    },
    /// The PgTerm is not what the agents write.
    #[error("the PgTerm {name} cannot be read, so no member is removed and nobody obeys it: {why}")]
    TermUnreadable {
        /// The PgTerm.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The PgTerm of a set with data is gone.
    #[error(
        "the PgTerm {name} was lost although the set is in epoch {epoch}: what runs goes on, and no other leader can be elected until it is made again from what the members keep on their volumes: kubectl pgconvoy term repair {name} (runbook: The term is lost or rolled back)"
    )]
    TermLost {
        /// The PgTerm.
        name: String,
        /// The last epoch known.
        epoch: i64,
    },
    /// The PgTerm was put back to an older state.
    #[error("{message} (runbook: The term is lost or rolled back)")]
    TermRolledBack {
        /// What a member says, with what to type.
        message: String,
    },
    /// Kept volumes of an earlier set.
    #[error(
        "the volume claims {} hold data of an earlier replica set, so {} will not be made: to go on with that data, delete this set and make it again with spec.bootstrap: {{adopt: {{systemId: \"{}\"}}}}; or delete these claims to let the members start empty (the data is lost then), or give the set another name",
        list(claims),
        list(members),
        system.as_deref().unwrap_or("<the data's system identifier>")
    )]
    ForeignVolumes {
        /// The claims.
        claims: Vec<String>,
        /// The members that they are in the way of.
        members: Vec<MemberName>,
        /// The system identifier of that data, if it is known.
        system: Option<String>,
    },
    /// An object of an earlier set, which Kubernetes is about to remove.
    #[error(
        "{kind} {name} still belongs to an earlier replica set of this name; waiting until Kubernetes has removed it"
    )]
    InTheWay {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// An object that is not pgconvoy's.
    #[error(
        "{kind} {name} exists and does not belong to this replica set: delete or rename it, or give the set another name"
    )]
    NameTaken {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// A volume that should shrink.
    #[error(
        "spec.storage.size is smaller than the volume claim {claim} already is ({is}); volumes cannot shrink, it stays as it is"
    )]
    Shrinks {
        /// The claim.
        claim: String,
        /// Its size.
        is: String,
    },
    /// The API server refused something.
    #[error("{0}")]
    Refused(String),
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Problem {
    /// The reason in conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Problem::SpecInvalid(_) => reasons::SPEC_INVALID,
            Problem::ForeignTerm { .. } => reasons::FOREIGN_TERM,
            Problem::TermUnreadable { .. } => reasons::TERM_UNREADABLE,
            Problem::TermLost { .. } => reasons::TERM_LOST,
            Problem::TermRolledBack { .. } => reasons::TERM_ROLLED_BACK,
            Problem::ForeignVolumes { .. } => reasons::FOREIGN_VOLUME,
            Problem::InTheWay { .. } => reasons::WAITING_FOR_DELETION,
            Problem::NameTaken { .. } => reasons::NAME_TAKEN,
            Problem::Shrinks { .. } | Problem::Refused(_) => reasons::REFUSED,
        }
    }

    /// Whether it takes a person to get on.
    pub fn stalls(&self) -> bool {
        !matches!(self, Problem::InTheWay { .. } | Problem::Shrinks { .. })
    }
}

/// The annotation by which a volume claim says which set it was made for.
pub const ANNOTATION_SET_UID: &str = "pgconvoy.dev/set-uid";
/// The annotation by which a volume claim says which data is on it.
pub const ANNOTATION_SYSTEM_ID: &str = "pgconvoy.dev/system-id";
/// The annotation by which a pod says which spec it was made by.
pub const ANNOTATION_POD_SPEC: &str = "pgconvoy.dev/pod-spec";
/// The annotation by which a Secret says what its certificates were made for.
pub const ANNOTATION_CERTIFICATE: &str = "pgconvoy.dev/certificate";
