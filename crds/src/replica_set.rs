//! PgReplicaSet: what a user asks for.

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A PostgreSQL replica set: one leader that takes the writes, and followers that take over.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pgconvoy.dev",
    version = "v1alpha1",
    kind = "PgReplicaSet",
    plural = "pgreplicasets",
    shortname = "pgrs",
    namespaced,
    status = "PgReplicaSetStatus",
    scale(
        spec_replicas_path = ".spec.members",
        status_replicas_path = ".status.members",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Durability", type_ = "string", json_path = ".status.durability"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Archive",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Archiving\")].reason"
    ),
    printcolumn(
        name = "Archived",
        type_ = "string",
        priority = 1,
        json_path = ".status.memberStates[?(@.role==\"Leader\")].archive.archived"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PgReplicaSetSpec {
    /// Any stock PostgreSQL image, 15 to 18.
    pub image: String,
    /// When to pull the image. Default: `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets to pull images with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// User and group id that PostgreSQL runs as: 999 in Debian images (default), 70 in Alpine ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
    /// How many members: one leader and its followers. 1 = a single instance.
    pub members: i32,
    /// Where the data lies.
    pub storage: Storage,
    /// When a commit is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// What happens when the leader is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// PostgreSQL's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgresql: Option<PostgreSql>,
    /// How the first data comes to be. Default: an empty database `app`, owned by `app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// Where WAL is archived. It can be added, changed and taken away at any time; no pod is made anew for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Seconds that a pod has to stop in (its grace period). Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout_seconds: Option<i64>,
    /// CPU and memory of the `postgres` container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// What else the pods should carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Annotations of the Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Services>,
    /// How a change that needs new pods, or a restart of PostgreSQL, is brought about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
}

/// How a change that needs new pods, or a restart of PostgreSQL, is brought about: another image, resources, pod template,
/// parameters that are read at a start only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// Default: `Automatic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<UpdateStrategy>,
}

/// How a change that needs new pods is brought about. Default: `Automatic`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStrategy {
    /// Pods are made anew one at a time, each once all others are attached: followers first, then the leader, which hands
    /// over to a follower before it stops. What would leave fewer members than writes need waits for a person.
    Automatic,
    /// Nothing is made anew until a person deletes the pods.
    Manual,
}

/// When to pull the image. Default: `IfNotPresent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// The node must have it.
    Never,
}

/// Where the data lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of each member's volume. It can grow, not shrink.
    pub size: Quantity,
    /// Storage class; default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes when the set is deleted or scaled down. Default: `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<WhenDeleted>,
}

/// What happens to the volumes when the set is deleted or scaled down. Default: `Keep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenDeleted {
    /// It stays, for a person to decide.
    Keep,
    /// It is deleted.
    Delete,
}

/// When a commit is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Durability {
    /// `quorum` (default): once enough followers have flushed it. `async`: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DurabilityMode>,
    /// How many followers must have flushed a commit. Default: 1, or 0 with a single member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgements: Option<i32>,
    /// What happens while fewer followers keep up than must flush a commit. `wait` (default): commits wait. `degrade`: after ten
    /// seconds they wait for those that are left only, or for none; what the leader acknowledges alone is lost if the leader is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_short: Option<WhenShort>,
}

/// `wait` (default): commits wait until enough followers are back. `degrade`: they wait no longer than some seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WhenShort {
    /// Nothing is acknowledged that a leader alone has.
    Wait,
    /// The leader goes on with those that are left, or alone. It is written down before, ends by itself, and while it lasts nobody
    /// takes over from a leader that was alone without a person's word.
    Degrade,
}

/// `quorum` (default): a commit is acknowledged once enough followers have flushed it. `async`: at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DurabilityMode {
    /// They wait.
    Quorum,
    /// They do not; what a dead leader had not sent is lost.
    Async,
}

/// What happens when the leader is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// `automatic` (default): another member leads. `manual`: a person is told, and decides. It can be changed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FailoverMode>,
}

/// `automatic` (default): another member leads in place of a leader that is gone. `manual`: a person is told, and decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FailoverMode {
    /// At once.
    Automatic,
    /// Only when a person has said so, by a PgRequest. The same leader comes back by itself, also as the leader of the next epoch;
    /// when its pod is deleted in order (a drained node, a roll-out) it hands over.
    Manual,
}

/// PostgreSQL's own settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgreSql {
    /// Settings as in `postgresql.conf`, text or integer. Those that pgconvoy owns are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, IntOrString>,
    /// Lines of `pg_hba.conf` for clients, in order, instead of the default (`hostssl all all all scram-sha-256`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hba: Vec<String>,
}

/// How the first data comes to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// A new, empty database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initdb: Option<InitDb>,
    /// What another set's archive holds. The new set begins with epoch 1 and a system identifier of its own; nothing is
    /// written into that archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_archive: Option<FromArchive>,
    /// The data on volumes that an earlier set of this name has left behind. Nothing of it is lost: the set goes on in the next
    /// epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
}

/// Kept volumes whose data the set goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// The system identifier of that data, as the condition `ForeignVolume` shows it. Other data is left alone.
    pub system_id: String,
}

/// What another set's archive holds. Unchangeable once made. The application's database and its owner are `app`; the owner's
/// password becomes that of the new Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FromArchive {
    /// The PgArchive, in the same namespace.
    #[serde(rename = "ref")]
    pub reference: ArchiveReference,
    /// What the keys of that set's archive begin with: `<namespace>/<replica set>`, unless its PgArchive says another. Default:
    /// the PgArchive's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Name of the snapshot. Default: the newest one from which the target lies ahead; for xid and name, which nobody knows
    /// before the WAL is read, the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Where to stop. Default: at the end of what is archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RecoveryTarget>,
}

/// Where to stop: one of these, as in PostgreSQL's `recovery_target_…`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryTarget {
    /// Before the first transaction that committed later: `2026-01-31 12:00:00+00`, with the offset from UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// After this position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// After this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<String>,
    /// At this restore point (`pg_create_restore_point`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As soon as the snapshot is consistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immediate: Option<bool>,
}

/// A new, empty database. Unchangeable once made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitDb {
    /// Name of the application database. Default: `app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Role that owns it. Default: the database's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether pages carry checksums. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_checksums: Option<bool>,
    /// Locale. Default: `C.UTF-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Encoding. Default: `UTF8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// Where WAL is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// A PgArchive in the same namespace.
    #[serde(rename = "ref")]
    pub reference: ArchiveReference,
}

/// A PgArchive in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveReference {
    /// Its name.
    pub name: String,
}

/// What else the pods should carry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels, besides pgconvoy's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Nodes that may be used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Affinity, instead of the default (members on different nodes where possible).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Tolerations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Spread over zones and the like, instead of the default (zones, where possible).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// Annotations of the Services.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// Of `<set>-rw`, which leads to the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rw: Option<ServiceTemplate>,
    /// Of `<set>-ro`, which leads to the followers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ro: Option<ServiceTemplate>,
    /// Of `<set>-r`, which leads to every member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r: Option<ServiceTemplate>,
}

/// What a Service should carry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is. Every field has one writer: the operator, but `memberStates[]`, where each agent writes its own entry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PgReplicaSetStatus {
    /// The generation that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Configured; Archiving if there is an archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The names of the members that the set should have now. Agents take it as the roster; a member leaves the roster
    /// first, then the rule, then its pod is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roster: Vec<String>,
    /// How many members are attached, for `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<i32>,
    /// Attached / asked for, like `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// The member that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The epoch in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The last change of the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<LastFailover>,
    /// Whose flush a commit waits for now. `quorum 1/2`: that of the leader and of 1 of 2 followers; `leader only`: no
    /// follower counts, because there is none yet or the set has a single member; `async`: none, as the spec asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// Label selector of the pods, for `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// PostgreSQL's system identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// What each member says of itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_states: Vec<MemberState>,
}

/// The last change of the leader, planned or not. Why it was, the Events `EpochOpened` and `LeaderChanged` say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailover {
    /// The epoch that began with it.
    pub epoch: i64,
    /// Who led before.
    pub from: String,
    /// Who leads since.
    pub to: String,
    /// When the operator saw it. Clients were served before that.
    pub at: Time,
    /// Whether commits that were acknowledged before may be missing. False: none is.
    #[serde(default)]
    pub lossy: bool,
}

/// What a member says of itself; written by its agent when something happened, never periodically.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberState {
    /// The member.
    pub name: String,
    /// `Leader` or `Follower`; absent while it is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<MemberRole>,
    /// One word: what it is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<MemberPhase>,
    /// A sentence: what it waits for or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// One word for what the sentence is about, when it is something that a person can mend: a reason of
    /// [the conditions](conditions.md), like `VolumeFull`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The name of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// The epoch it is attached in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// UID of the pod that wrote this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// PostgreSQL's version, like `17.6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// PostgreSQL's system identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Parameters of the spec that wait for a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restart: Vec<String>,
    /// Why PostgreSQL refuses the configuration of the spec; the last good one stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_error: Option<String>,
    /// How its archiving stands; the leader's only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<MemberArchive>,
}

/// How archiving stands. Written when something happened, and once a minute while WAL is archived.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberArchive {
    /// Up to where WAL is in the archive, when this was written: an LSN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<String>,
    /// One word for how it stands: a reason of [the conditions](conditions.md), like `Archiving` or `StoreUnreachable`.
    pub reason: String,
    /// A sentence: what is in the way, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when it stands so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// A member's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberRole {
    /// It takes the writes.
    Leader,
    /// It replays the leader's log.
    Follower,
}

/// What a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberPhase {
    /// It looks at its volume, or waits for a term.
    Starting,
    /// It makes the first database.
    Initializing,
    /// It copies the data of another member.
    Cloning,
    /// PostgreSQL replays its own log.
    Recovering,
    /// It is not attached to a leader yet, or has a long way to go.
    CatchingUp,
    /// It takes part in this epoch.
    Attached,
    /// PostgreSQL was stopped because leadership is in doubt or is elsewhere.
    Fenced,
    /// A person must look; the message says at what.
    Failed,
    /// It was asked to stop.
    Stopping,
}

/// Defaults that are part of the contract, and what follows from the spec alone.
impl PgReplicaSetSpec {
    /// User and group of PostgreSQL.
    pub fn uid(&self) -> i64 {
        self.run_as_user.unwrap_or(999)
    }

    /// W: how many followers must have flushed a commit before it is acknowledged.
    pub fn acknowledgements(&self) -> u32 {
        let durability = self.durability.as_ref();
        if durability.and_then(|d| d.mode) == Some(DurabilityMode::Async) {
            return 0;
        }
        let wanted = durability.and_then(|d| d.acknowledgements).unwrap_or(1);
        u32::try_from(wanted.min(self.members - 1)).unwrap_or(0)
    }

    /// Whether commits do not wait for followers that are not there.
    pub fn degrades(&self) -> bool {
        self.durability.as_ref().and_then(|d| d.when_short) == Some(WhenShort::Degrade)
    }

    /// Whether another member leads only when a person has said so.
    pub fn fails_over_by_hand(&self) -> bool {
        self.failover.as_ref().and_then(|f| f.mode) == Some(FailoverMode::Manual)
    }

    /// The initdb options, with their defaults filled in.
    pub fn initdb(&self) -> InitDb {
        let given = self.bootstrap.as_ref().and_then(|b| b.initdb.clone()).unwrap_or_default();
        let database = given.database.unwrap_or_else(|| "app".to_owned());
        InitDb {
            owner: Some(given.owner.unwrap_or_else(|| database.clone())),
            database: Some(database),
            data_checksums: Some(given.data_checksums.unwrap_or(true)),
            locale: Some(given.locale.unwrap_or_else(|| "C.UTF-8".to_owned())),
            encoding: Some(given.encoding.unwrap_or_else(|| "UTF8".to_owned())),
        }
    }

    /// The archive that the first data comes from, if it does.
    pub fn from_archive(&self) -> Option<&FromArchive> {
        self.bootstrap.as_ref()?.from_archive.as_ref()
    }

    /// The system identifier of the kept data that the set is to go on with, if it is.
    pub fn adopt(&self) -> Option<&str> {
        Some(&self.bootstrap.as_ref()?.adopt.as_ref()?.system_id)
    }

    /// Seconds that a pod has to stop in.
    pub fn stop_timeout_seconds(&self) -> i64 {
        self.stop_timeout_seconds.unwrap_or(60)
    }
}
