//! PgArchive: where WAL and snapshots go, and with whose keys.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Who we are to the store: keys of Secrets in this namespace.
    pub credentials: ArchiveCredentials,
    /// Authorities to trust instead of the public ones, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretKey>,
    /// How many seconds WAL may wait before it is sent. Less: less is lost with the whole cluster. More: fewer requests,
    /// which cost money. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay_seconds: Option<i32>,
}

/// An access key, in Secrets. Changed values are taken up without a restart, within two minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveCredentials {
    /// The access key's id.
    pub access_key_id: SecretKey,
    /// The access key's secret.
    pub secret_access_key: SecretKey,
    /// The token that temporary credentials have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretKey>,
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
        }
    }
}
