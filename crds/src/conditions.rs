//! Conditions of a PgReplicaSet and their reasons. Each has one writer; `docs/reference/conditions.md` explains each.

/// Every member that is asked for is attached, the rule in force is the one asked for, and clients are served.
pub const READY: &str = "Ready";
/// The set is on its way to what the spec asks (kstatus: `Reconciling`).
pub const RECONCILING: &str = "Reconciling";
/// The set cannot get there without a person (kstatus: `Stalled`).
pub const STALLED: &str = "Stalled";
/// Parameters, image and resources of the spec are in force; when false, the message says which are not yet, and why.
pub const CONFIGURED: &str = "Configured";

/// Reasons, as they stand in `conditions[].reason` and in Events.
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
    /// The image cannot be pulled or is not PostgreSQL.
    pub const IMAGE_UNUSABLE: &str = "ImageUnusable";
    /// A pod cannot be scheduled or its volume cannot be provisioned.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The PostgreSQL configuration is refused by PostgreSQL itself.
    pub const CONFIGURATION_REFUSED: &str = "ConfigurationRefused";
    /// Some parameters need a restart to take effect.
    pub const RESTART_REQUIRED: &str = "RestartRequired";
    /// Everything in the spec is in force.
    pub const IN_FORCE: &str = "InForce";
    /// A member reports an error that a person must look at.
    pub const MEMBER_FAILED: &str = "MemberFailed";
    /// Nothing is wrong.
    pub const NONE: &str = "AsExpected";
}
