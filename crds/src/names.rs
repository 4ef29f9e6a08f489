//! Names and labels of what belongs to a replica set.

use pgconvoy_terms::MemberName;

/// Label on every object of a set: the set's name.
pub const LABEL_SET: &str = "pgconvoy.dev/set";
/// Label on pods, volumes and certificates: the member's name.
pub const LABEL_MEMBER: &str = "pgconvoy.dev/member";
/// Label on pods, for people only (nothing decides by it): `leader` or `follower`. Written by the operator.
pub const LABEL_ROLE: &str = "pgconvoy.dev/role";
/// Label on pods that bring an image to a node before anybody needs it: the set's name. They are no members.
pub const LABEL_PULLS_FOR: &str = "pgconvoy.dev/pulls-for";
/// Annotation on pods whose agent was replaced in place: the container that ran before.
pub const ANNOTATION_AGENT_BEFORE: &str = "pgconvoy.dev/agent-before";
/// Annotation on the EndpointSlices: the epoch (`<number>.<id>`) whose leader wrote them.
pub const ANNOTATION_EPOCH: &str = "pgconvoy.dev/epoch";
/// Annotation on pods: a fingerprint of the archive Secret. That it changes makes the kubelet look at the Secret at once.
pub const ANNOTATION_ARCHIVE: &str = "pgconvoy.dev/archive";
/// Field manager of the operator.
pub const MANAGER_OPERATOR: &str = "pgconvoy-operator";
/// Prefix of an agent's field manager; the member's name follows.
pub const MANAGER_AGENT_PREFIX: &str = "pgconvoy-agent-";

/// The member's data volume claim.
pub fn data_claim(member: &MemberName) -> String {
    format!("{member}-data")
}

/// The member's Secret with its keys and certificates (keys: [`crate::pod::tls`]).
pub fn member_tls(member: &MemberName) -> String {
    format!("{member}-tls")
}

/// The pod that brings the next agent's image to this member's node.
pub fn puller(member: &MemberName) -> String {
    format!("{member}-pull")
}

/// The Secret with the set's certificate authority (`ca.crt`, `ca.key`); mounted nowhere.
pub fn ca(set: &str) -> String {
    format!("{set}-ca")
}

/// The Secret for applications: user, password, host, port, dbname, uri, jdbc-uri.
pub fn app_secret(set: &str) -> String {
    format!("{set}-app")
}

/// The Secret with all that the agents need to reach the archive (keys: [`crate::pod::archive`]); made by the operator.
pub fn archive(set: &str) -> String {
    format!("{set}-archive")
}

/// The ConfigMap that every pod mounts (key `passwd`).
pub fn pod_config(set: &str) -> String {
    format!("{set}-pod")
}

/// Which members a Service leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The leader.
    Rw,
    /// Followers that are attached and not too far behind.
    Ro,
    /// Every attached member, the leader included.
    R,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 3] = [Service::Rw, Service::Ro, Service::R];

    /// The Service's name; its EndpointSlice has the same (one per address family, `-v6` behind the second).
    pub fn name(self, set: &str) -> String {
        let suffix = match self {
            Service::Rw => "rw",
            Service::Ro => "ro",
            Service::R => "r",
        };
        format!("{set}-{suffix}")
    }
}
