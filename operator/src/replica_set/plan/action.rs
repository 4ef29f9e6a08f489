//! What a plan consists of.

use crate::kinds::{Kind, Object};
use pgconvoy_terms::MemberName;
use serde_json::Value;
use std::collections::BTreeMap;

/// Something to do. Each is safe to do twice, and safe to be the last one that is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make it; nothing happens to one that is there. Never changed afterwards.
    Create(Object),
    /// Make it so (server-side apply).
    Apply(Object),
    /// Change these fields (merge patch) of the object with this UID.
    Patch {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// The fields, `metadata.uid` among them.
        body: Value,
    },
    /// Delete the object with this UID.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Why, for the log and the event.
        why: String,
    },
    /// Delete a member's pod, so that it is made anew as the spec asks. Done only if a fresh look finds these very pods,
    /// none of them going, and the term as it was planned for: never two at a time.
    Restart {
        /// The member.
        member: MemberName,
        /// The pods of all members, by name, with their UIDs.
        pods: BTreeMap<String, String>,
        /// Why, for the log and the event.
        why: String,
    },
    /// Have another image's agent run in a member's pod, in place of the one that runs there: the kubelet restarts that container
    /// alone. Done only with the pod of this UID.
    ReplaceAgent {
        /// The member.
        member: MemberName,
        /// UID of its pod.
        uid: String,
        /// The image.
        image: String,
        /// The container that runs now; the replacement is another one.
        before: String,
    },
    /// Take a member away: its pod, and its volume if there is one to delete. Done only if a fresh read of the PgTerm
    /// still lets go of it.
    Remove {
        /// The member.
        member: MemberName,
        /// UID of its pod.
        pod: Option<String>,
        /// Name and UID of its claim, if that goes too.
        claim: Option<(String, String)>,
        /// Its certificates.
        secret: Option<(String, String)>,
    },
    /// Drop what a member that is gone said of itself from the status.
    Forget(MemberName),
}

/// The stages in which actions are done; within one, the order does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What everything else leans on: the term, the lease, the authority; the role, without which the API server refuses
    /// its binding.
    Ground,
    /// All that pods mount or speak through.
    Surroundings,
    /// Pods, and what goes.
    Pods,
}

impl Action {
    /// Whether it ends the pod of this name.
    pub fn takes_pod(&self, pod: &str) -> bool {
        match self {
            Action::Remove { member, .. } | Action::Restart { member, .. } => member.to_string() == pod,
            Action::Delete { kind, name, .. } => *kind == Kind::Pod && name == pod,
            _ => false,
        }
    }

    /// When to do it.
    pub fn stage(&self) -> Stage {
        match self {
            Action::Create(o) if matches!(o.kind, Kind::Term | Kind::Lease) || is_authority(o) => Stage::Ground,
            Action::Apply(o) if o.kind == Kind::Role => Stage::Ground,
            Action::Create(o) if matches!(o.kind, Kind::Pod | Kind::Puller) => Stage::Pods,
            Action::Create(_) | Action::Apply(_) => Stage::Surroundings,
            Action::Patch { kind, .. } if *kind != Kind::Pod => Stage::Surroundings,
            Action::Patch { .. }
            | Action::Delete { .. }
            | Action::Restart { .. }
            | Action::ReplaceAgent { .. }
            | Action::Remove { .. }
            | Action::Forget(_) => Stage::Pods,
        }
    }
}

fn is_authority(object: &Object) -> bool {
    object.kind == Kind::Secret && object.name.ends_with("-ca")
}
