//! PgSnapshotSchedule: snapshots by the clock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes a PgSnapshot of a replica set at each time that a cron expression names. The PgSnapshots are named after the schedule
/// and the time, in UTC, and go with the schedule; what lies in the archive stays.
///
/// Never two snapshots of a set are taken at once, whoever asks for them: a run that is due waits. Runs that were missed,
/// because no operator ran or because one took too long, are made up for by one snapshot.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pgconvoy.dev",
    version = "v1alpha1",
    kind = "PgSnapshotSchedule",
    plural = "pgsnapshotschedules",
    shortname = "pgsched",
    namespaced,
    status = "PgSnapshotScheduleStatus",
    printcolumn(name = "Set", type_ = "string", json_path = ".spec.set"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.timeZone"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastScheduleTime"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PgSnapshotScheduleSpec {
    /// The PgReplicaSet, in the same namespace. It must have an archive.
    pub set: String,
    /// When: five fields of cron (minute, hour, day of the month, month, day of the week), or @hourly, @daily, @weekly,
    /// @monthly, @yearly. A time that the change to summer time leaves out is taken right behind it; one that comes twice is
    /// taken once.
    pub schedule: String,
    /// The zone in which the schedule's times are meant, like Europe/Berlin. Default: Etc/UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// No snapshots for now. What would have been due meanwhile is not made up for. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How many PgSnapshot objects of this schedule stay. It concerns the objects only: what lies in the archive goes by
    /// `spec.retention` of the PgArchive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<SnapshotHistory>,
}

/// How many objects stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotHistory {
    /// Of those that were completed. Default: 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<i32>,
    /// Of those that failed. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<i32>,
}

impl SnapshotHistory {
    /// How many completed ones and failed ones stay.
    pub fn limits(&self) -> (usize, usize) {
        let limit = |given: Option<i32>, default| given.and_then(|n| usize::try_from(n).ok()).unwrap_or(default);
        (limit(self.completed, 7), limit(self.failed, 3))
    }
}

/// What is. Written by the operator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PgSnapshotScheduleStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The time for which the last PgSnapshot was made: when it was due, not when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<String>,
    /// That PgSnapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot: Option<String>,
    /// When the newest PgSnapshot of this schedule that is complete was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_completed_time: Option<String>,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<String>,
    /// How many runs before the last one fell to it, because they were missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_runs: Option<i64>,
    /// Times up to this one are not looked at: the schedule was made, changed or resumed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts_from: Option<String>,
    /// The expression and the zone since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<String>,
    /// `Ready`: snapshots are made when they are due, and the last one was completed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
