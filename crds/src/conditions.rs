//! Conditions of a PgReplicaSet and their reasons. Each has one writer; `docs/reference/conditions.md` explains each.

/// Every member that is asked for is attached, the rule in force is the one asked for, and clients are served.
pub const READY: &str = "Ready";
/// The set is on its way to what the spec asks (kstatus: `Reconciling`).
pub const RECONCILING: &str = "Reconciling";
/// The set cannot get there without a person (kstatus: `Stalled`).
pub const STALLED: &str = "Stalled";
/// Parameters, image and resources of the spec are in force; when false, the message says which are not yet, and why.
pub const CONFIGURED: &str = "Configured";

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
    /// The PgTerm of a set that has data is gone.
    pub const TERM_LOST: &str = "TermLost";
    /// An object that the set needs exists already and belongs to somebody else.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// Objects of an earlier set of this name are still going.
    pub const WAITING_FOR_DELETION: &str = "WaitingForDeletion";
    /// The API server, or Kubernetes itself, refuses what the spec asks for.
    pub const REFUSED: &str = "Refused";
    /// Nothing is wrong.
    pub const NONE: &str = "AsExpected";
}
