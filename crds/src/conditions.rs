//! Conditions of a PgReplicaSet and their reasons. Each has one writer; `docs/reference/conditions.md` explains each.

/// Every member that is asked for is attached, the rule in force is the one asked for, and clients are served.
pub const READY: &str = "Ready";
/// The set is on its way to what the spec asks (kstatus: `Reconciling`).
pub const RECONCILING: &str = "Reconciling";
/// The set cannot get there without a person (kstatus: `Stalled`).
pub const STALLED: &str = "Stalled";
/// Parameters, image and resources of the spec are in force; when false, the message says which are not yet, and why.
pub const CONFIGURED: &str = "Configured";
/// WAL is archived as it is written; when false, the message says what is in the way. Only of sets with `spec.archive`.
pub const ARCHIVING: &str = "Archiving";

/// Reasons, as they stand in `conditions[].reason`, in `memberStates[].reason` and in Events.
pub mod reasons {
    /// All members are attached.
    pub const ALL_MEMBERS_ATTACHED: &str = "AllMembersAttached";
    /// Members are being made or are catching up.
    pub const MEMBERS_STARTING: &str = "MembersStarting";
    /// No leader is active.
    pub const NO_LEADER: &str = "NoLeader";
    /// The rule in force has fewer acknowledgements than asked for.
    pub const WAITING_FOR_FOLLOWERS: &str = "WaitingForFollowers";
    /// The leader goes on with fewer acknowledgements than asked for, as `durability.whenShort: degrade` wants it. Ends by itself.
    pub const DEGRADED: &str = "Degraded";
    /// More members are there than asked for; they leave the rule first.
    pub const SCALING_DOWN: &str = "ScalingDown";
    /// Kept volumes of an earlier set with this name are in the way.
    pub const FOREIGN_VOLUME: &str = "ForeignVolume";
    /// The image cannot be pulled, holds no PostgreSQL, or one of a version that pgconvoy does not run.
    pub const IMAGE_UNUSABLE: &str = "ImageUnusable";
    /// A pod cannot be scheduled or its volume cannot be provisioned.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The storage class that the spec names is not there, so no volume can be made.
    pub const NO_STORAGE_CLASS: &str = "NoStorageClass";
    /// A member's volume is full. The others go on; the member comes back by itself once there is room.
    pub const VOLUME_FULL: &str = "VolumeFull";
    /// Copies of the data that commits wait for are gone: the set reads, but does not write before a person has decided.
    pub const COPIES_LOST: &str = "CopiesLost";
    /// The leader is gone, and failover is manual, or it had acknowledged alone: the message says who could lead, what would be lost,
    /// and the command.
    pub const WAITS_FOR_TAKEOVER: &str = "WaitsForTakeover";
    /// The PostgreSQL configuration is refused by PostgreSQL itself.
    pub const CONFIGURATION_REFUSED: &str = "ConfigurationRefused";
    /// Some parameters need a restart to take effect.
    pub const RESTART_REQUIRED: &str = "RestartRequired";
    /// Pods were made by an earlier spec or operator, and have not been made again since.
    pub const ROLLOUT_PENDING: &str = "RolloutPending";
    /// Pods are being made anew one at a time.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Everything in the spec is in force.
    pub const IN_FORCE: &str = "InForce";
    /// A member reports an error that a person must look at.
    pub const MEMBER_FAILED: &str = "MemberFailed";
    /// The spec cannot be planned for: it was taken before a rule against it was there.
    pub const SPEC_INVALID: &str = "SpecInvalid";
    /// The PgTerm of the set's name was made for another replica set.
    pub const FOREIGN_TERM: &str = "ForeignTerm";
    /// The PgTerm cannot be read; nobody obeys it.
    pub const TERM_UNREADABLE: &str = "TermUnreadable";
    /// The PgTerm of a set that has data was deleted. What runs goes on; `kubectl pgconvoy term repair` puts it right.
    pub const TERM_LOST: &str = "TermLost";
    /// The PgTerm is older than what members go by: the API server was restored from a backup. The same puts it right.
    pub const TERM_ROLLED_BACK: &str = "TermRolledBack";
    /// The PgTerm does not descend from what a member goes by: it was set back and went on from there, or was edited.
    pub const TERM_FOREIGN: &str = "TermForeign";
    /// An object that the set needs exists already and belongs to somebody else.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// Objects of an earlier set of this name are still going.
    pub const WAITING_FOR_DELETION: &str = "WaitingForDeletion";
    /// The API server, or Kubernetes itself, refuses what the spec asks for.
    pub const REFUSED: &str = "Refused";
    /// The PgArchive that the spec names is not there.
    pub const NO_ARCHIVE: &str = "NoArchive";
    /// A Secret that the PgArchive names is not there, or lacks a key.
    pub const NO_ARCHIVE_SECRET: &str = "NoArchiveSecret";
    /// Archiving has not begun yet: no leader is active, or it has just become one.
    pub const ARCHIVE_STARTING: &str = "ArchiveStarting";
    /// WAL is archived as it is written.
    pub const ARCHIVE_CURRENT: &str = "Archiving";
    /// WAL is written faster than it is archived, or there is still a backlog from before.
    pub const ARCHIVE_BEHIND: &str = "ArchiveBehind";
    /// WAL is archived, but some from before is missing in the archive and gone everywhere: what was archived up to there
    /// cannot be replayed beyond it. The leader takes a snapshot behind it by itself, with which this ends.
    pub const ARCHIVE_GAP: &str = "ArchiveGap";
    /// There is no connection to the store, or to whoever lends the keys for it.
    pub const STORE_UNREACHABLE: &str = "StoreUnreachable";
    /// The store's certificate is not trusted.
    pub const STORE_UNTRUSTED: &str = "StoreUntrusted";
    /// The store does not answer in time, or is overloaded.
    pub const STORE_BUSY: &str = "StoreBusy";
    /// There is no such bucket.
    pub const NO_BUCKET: &str = "NoBucket";
    /// The store does not accept the access key, nobody lends one, or the key may not do what archiving needs.
    pub const STORE_DENIES: &str = "StoreDenies";
    /// The store refuses in another way: region, clock, a call that it does not know.
    pub const STORE_REFUSES: &str = "StoreRefuses";
    /// The settings of the PgArchive cannot be used.
    pub const ARCHIVE_UNUSABLE: &str = "ArchiveUnusable";
    /// The prefix holds the archive of another replica set. Nothing is written.
    pub const ARCHIVE_OF_ANOTHER_SET: &str = "ArchiveOfAnotherSet";
    /// Somebody else writes this epoch's WAL; this member has stopped.
    pub const ARCHIVE_FENCED: &str = "ArchiveFenced";
    /// WAL that is not archived is gone from the leader, mostly because the archive was away for too long.
    pub const WAL_GONE: &str = "WalGone";
    /// What lies in the archive is damaged, or was written by a later version.
    pub const ARCHIVE_DAMAGED: &str = "ArchiveDamaged";
    /// Archiving fails for another reason.
    pub const ARCHIVE_FAILING: &str = "ArchiveFailing";
    /// Nothing is wrong.
    pub const NONE: &str = "AsExpected";
}

/// The reasons of [`ARCHIVING`] that a member may give.
pub const ARCHIVE_REASONS: [&str; 15] = [
    reasons::ARCHIVE_STARTING,
    reasons::ARCHIVE_CURRENT,
    reasons::ARCHIVE_BEHIND,
    reasons::ARCHIVE_GAP,
    reasons::STORE_UNREACHABLE,
    reasons::STORE_UNTRUSTED,
    reasons::STORE_BUSY,
    reasons::NO_BUCKET,
    reasons::STORE_DENIES,
    reasons::STORE_REFUSES,
    reasons::ARCHIVE_UNUSABLE,
    reasons::ARCHIVE_OF_ANOTHER_SET,
    reasons::ARCHIVE_FENCED,
    reasons::WAL_GONE,
    reasons::ARCHIVE_DAMAGED,
];
