//! PgArchive: where WAL and snapshots go, and with whose keys.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A part of a bucket in an S3 store, where replica sets archive their WAL. A set names it in `spec.archive.ref`. What lies
/// there afterwards is read with stock tools: docs/archive-format.md.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pgconvoy.dev",
    version = "v1alpha1",
    kind = "PgArchive",
    plural = "pgarchives",
    shortname = "pgarc",
    namespaced,
    status = "PgArchiveStatus",
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.bucket"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PgArchiveSpec {
    /// The bucket. It must be there.
    pub bucket: String,
    /// What all keys begin with, without a slash at its ends. Default: `<namespace>/<replica set>`. An archive has one owner:
    /// a second set that comes with the same prefix is refused by what it finds there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `https://host:port` of a store that is not AWS. Default: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region. Default: `us-east-1`, which stores other than AWS mostly do not care about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; most stores that are not AWS want it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Who we are to the store: an access key, or someone who lends them.
    pub credentials: ArchiveCredentials,
    /// Authorities to trust instead of the public ones, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretKey>,
    /// How many seconds WAL may wait before it is sent. Less: less is lost with the whole cluster. More: fewer requests,
    /// which cost money. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay_seconds: Option<i32>,
    /// How the store encrypts what it keeps. Default: as the bucket's own setting has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<ServerSideEncryption>,
    /// The storage class of what stays for long: whole segments of WAL and snapshots. It must be one that is read at once, like
    /// `STANDARD_IA` or `GLACIER_IR`. Pieces of segments, which go again soon, are in the bucket's default class. Default: the
    /// bucket's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Tags that every object gets, up to ten. The keys need `s3:PutObjectTagging` for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How snapshots are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<ArchiveSnapshots>,
    /// What stays of what is archived. Default: all of it, for ever. The newest complete snapshot always stays, and with each
    /// snapshot that stays all WAL since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// How snapshots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveSnapshots {
    /// So many bytes of the data are read in a second at most. It counts for those that begin later. Default: as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_second: Option<i64>,
}

/// How the store encrypts what it keeps. What is there already stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSideEncryption {
    /// With whose keys.
    #[serde(rename = "type")]
    pub kind: ServerSideEncryptionType,
    /// The key of `SSE-KMS`: its ARN, its id, or `alias/…`. The credentials need `kms:GenerateDataKey` and `kms:Decrypt` on it.
    /// Default: the account's key for S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// With whose keys the store encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServerSideEncryptionType {
    /// The store's own.
    #[serde(rename = "SSE-S3")]
    S3,
    /// One of the key management service.
    #[serde(rename = "SSE-KMS")]
    Kms,
}

/// What stays. With both fields, what either of them keeps is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Any moment of so many last days can be restored: snapshots of these days stay, and the last one before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<i32>,
    /// So many of the newest complete snapshots stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<i32>,
}

/// What retention has come to, by replica set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PgArchiveStatus {
    /// Each is written by the leader of its set, when something changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<ArchivedSet>,
}

/// What lies in the archive of a set, as retention saw it last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedSet {
    /// The set.
    pub set: String,
    /// How many complete snapshots there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<i64>,
    /// The oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// From where on it can be restored: the LSN at which the oldest is consistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable_from: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable_since: Option<String>,
    /// When something was removed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<String>,
    /// What that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<String>,
    /// What is in the way of removing, or should be known about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What the operator hands to the agents about retention: the file [`crate::pod::archive::RETENTION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionAsked {
    /// The PgArchive that asks.
    pub archive: String,
    /// What it asks.
    pub retention: Retention,
}

/// One of: an access key in Secrets (`accessKeyId` and `secretAccessKey`), `webIdentity`, `podIdentity`, `instanceRole`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveCredentials {
    /// The access key's id. Changed values are taken up without a restart, within two minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<SecretKey>,
    /// The access key's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<SecretKey>,
    /// The token that temporary credentials have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretKey>,
    /// A role of AWS that is lent for the token of the set's service account (IRSA): `system:serviceaccount:<namespace>:<replica
    /// set>` with the audience `sts.amazonaws.com`. Nothing is needed in the cluster, no annotation and no webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_identity: Option<ArchiveWebIdentity>,
    /// EKS Pod Identity: a role that is associated with the set's service account, which is named after the set, before its pods
    /// are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_identity: Option<ArchivePodIdentity>,
    /// The role of the machine on which the pod runs, from its metadata service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_role: Option<ArchiveInstanceRole>,
}

/// A role that is lent for the token of a service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveWebIdentity {
    /// The role: `arn:aws:iam::<account>:role/<name>`. Its trust policy must name the service account.
    pub role_arn: String,
}

/// Nothing has to be said: `podIdentity: {}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ArchivePodIdentity {}

/// Nothing has to be said: `instanceRole: {}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ArchiveInstanceRole {}

/// Who lends the keys, as the agents are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ArchiveLender {
    /// A security token service, for the token in the file [`crate::pod::archive::WEB_IDENTITY_TOKEN`].
    WebIdentity {
        /// The role.
        role_arn: String,
    },
    /// What the pod was given to ask.
    PodIdentity,
    /// The machine.
    InstanceRole,
}

impl ArchiveCredentials {
    /// Who lends the keys; none: they lie in Secrets.
    pub fn lender(&self) -> Option<ArchiveLender> {
        if let Some(asked) = &self.web_identity {
            return Some(ArchiveLender::WebIdentity { role_arn: asked.role_arn.clone() });
        }
        let pod = self.pod_identity.as_ref().map(|_| ArchiveLender::PodIdentity);
        pod.or_else(|| self.instance_role.as_ref().map(|_| ArchiveLender::InstanceRole))
    }
}

/// A key of a Secret in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// What the operator hands to the agents of a set, beside the secrets: the file [`crate::pod::archive::ACCESS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveAccess {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: String,
    /// The store's address; none: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// `endpoint/bucket/key`.
    #[serde(default)]
    pub path_style: bool,
    /// How many seconds WAL may wait.
    pub max_delay_seconds: u32,
    /// So many bytes a snapshot reads in a second at most; none: as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_bytes_per_second: Option<u64>,
    /// Who lends the keys; none: they are files beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lender: Option<ArchiveLender>,
    /// Whose pods the agents run in, for people: `system:serviceaccount:<namespace>:<replica set>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// How the store encrypts; none: as the bucket has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<ServerSideEncryption>,
    /// The class of what stays; none: the bucket's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Of every object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl PgArchiveSpec {
    /// What the agents of `set` go by.
    pub fn access(&self, namespace: &str, set: &str) -> ArchiveAccess {
        ArchiveAccess {
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone().unwrap_or_else(|| format!("{namespace}/{set}")),
            endpoint: self.endpoint.clone(),
            region: self.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
            path_style: self.path_style.unwrap_or(false),
            max_delay_seconds: self.max_delay_seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(1),
            snapshot_bytes_per_second: self
                .snapshots
                .and_then(|s| s.max_bytes_per_second)
                .and_then(|b| u64::try_from(b).ok()),
            lender: self.credentials.lender(),
            account: format!("system:serviceaccount:{namespace}:{set}"),
            server_side_encryption: self.server_side_encryption.clone(),
            storage_class: self.storage_class.clone(),
            tags: self.tags.clone(),
        }
    }
}
