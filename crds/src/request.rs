//! PgRequest: a deed that a person asks for, once.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A deed that a replica set is asked to do once: a planned change of its leader, the end of an epoch that nobody can end
/// by the rules, or the repair of its PgTerm. It cannot be changed; its status tells what came of it. Keep it as a record, or delete it.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pgconvoy.dev",
    version = "v1alpha1",
    kind = "PgRequest",
    plural = "pgrequests",
    shortname = "pgreq",
    namespaced,
    status = "PgRequestStatus",
    selectable = ".spec.set",
    printcolumn(name = "Set", type_ = "string", json_path = ".spec.set"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct PgRequestSpec {
    /// The PgReplicaSet, in this namespace.
    pub set: String,
    /// Another member is to lead. While it lasts (half a second, mostly) no writes are taken; none is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
    /// The leader is gone, and another is to lead: by the rules, as far as those who are left can show that they have everything, or,
    /// with acceptLoss, whoever is left and has most; what only the lost members had is then lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<Takeover>,
    /// The PgTerm was lost or rolled back: it is made again from the records that the members keep on their volumes. Nothing that
    /// was acknowledged is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
}

/// A planned change of the leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Switchover {
    /// The member that is to lead, like orders-2. Default: whichever is nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The end of an epoch whose leader is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Takeover {
    /// The epoch that it ends, as `kubectl get pgrs` shows it. Nothing happens once a later one became active, so that it
    /// cannot act twice.
    pub epoch: i64,
    /// That commits may be lost which were acknowledged and are on no member that is left. Default false: then nobody leads who may
    /// lack any. Only that much is needed with failover.mode: manual, while the quorum is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
}

/// The making again of a PgTerm that was lost or rolled back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// That commits may be lost which were acknowledged and are only on members that cannot be asked. Needed when too few can be
    /// asked to go on without; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
}

/// What came of a request. Written by the members' agents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PgRequestStatus {
    /// How far it is; absent: no member has taken it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RequestState>,
    /// What happened, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The epoch in which it was taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Who led then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// When it was taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestState {
    /// Taken up.
    Running,
    /// Done as asked.
    Complete,
    /// Not done, or not as asked; the message says why.
    Failed,
}

impl RequestState {
    /// Whether nothing more will come of it.
    pub fn ended(self) -> bool {
        self != RequestState::Running
    }
}
