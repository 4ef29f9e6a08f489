//! PgSnapshot: a copy of a set's data in its archive.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A copy of a replica set's data in its archive, taken once, by a follower if there is one. Deleting the object leaves what
/// lies in the archive.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pgconvoy.dev",
    version = "v1alpha1",
    kind = "PgSnapshot",
    plural = "pgsnapshots",
    shortname = "pgsnap",
    namespaced,
    status = "PgSnapshotStatus",
    printcolumn(name = "Set", type_ = "string", json_path = ".spec.set"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "By", type_ = "string", json_path = ".status.member"),
    printcolumn(name = "Start", type_ = "string", json_path = ".status.start"),
    printcolumn(name = "Stop", type_ = "string", json_path = ".status.stop"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.bytes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct PgSnapshotSpec {
    /// The PgReplicaSet, in the same namespace. It must have an archive.
    pub set: String,
}

/// What is. Written by the member that takes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PgSnapshotStatus {
    /// How far it is; absent while nobody has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SnapshotPhase>,
    /// The member that takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// UID of that member's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// PostgreSQL's system identifier: the folder of the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// The epoch in which it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Where recovery begins: an LSN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Up to where recovery must go at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// What it takes in the archive, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// What the files are unpacked, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked_bytes: Option<i64>,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it was complete, with its WAL up to `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SnapshotPhase {
    /// A member takes it.
    Running,
    /// It is in the archive, and so is the WAL that it needs.
    Completed,
    /// It is not usable; the message says why. Make another one.
    Failed,
    /// It was complete, and retention has removed it from the archive.
    Expired,
}
