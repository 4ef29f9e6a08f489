//! The archive: what the PgArchive and its Secrets say, put together for the agents.
//!
//! The agents get one Secret, `<set>-archive`, which every pod mounts into the agent's container whether it is there or not:
//! so an archive comes and goes without a pod being made anew, and the agents can go on archiving while the API is away.

use super::Context;
use super::apply::{ApplyError, call};
use super::validate::Validated;
use crate::kinds::{Kind, Object};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use pgconvoy_crds::conditions::reasons;
use pgconvoy_crds::pod::archive as files;
use pgconvoy_crds::{PgArchive, PgArchiveSpec, RetentionAsked, SecretKey, names};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How often Secrets of the user, which are not watched, are looked at again.
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The archive that the spec asks for, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ArchiveSeen {
    /// The spec asks for none.
    #[default]
    NotAsked,
    /// The API server could not be asked.
    Unknown,
    /// Something is missing.
    Missing {
        /// The reason in the condition.
        reason: &'static str,
        /// The sentence.
        message: String,
    },
    /// All of it.
    There(ArchiveFiles),
}

/// What the agents get.
#[derive(Clone, PartialEq, Eq)]
pub struct ArchiveFiles {
    /// By file name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Changes with them; nothing secret goes into it.
    pub fingerprint: String,
}

// It holds secrets.
impl fmt::Debug for ArchiveFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveFiles({})", self.fingerprint)
    }
}

/// A Secret as far as it matters here.
#[derive(Default)]
pub struct Held {
    /// Changes whenever the Secret does.
    pub version: String,
    /// Its keys.
    pub data: BTreeMap<String, ByteString>,
}

/// Reads the PgArchives and their Secrets: the one that the set archives into, and, as long as it is not made (`young`), the
/// one that it is made from.
pub async fn dereference(context: &Context, set: &Validated, young: bool) -> ArchiveSeen {
    let source = set.spec.from_archive().filter(|_| young);
    let source = source.map(|from| (&from.reference.name, Use::Source(from.prefix.as_deref())));
    let own = set.spec.archive.as_ref().map(|archive| (&archive.reference.name, Use::Own));
    let mut seen = ArchiveSeen::NotAsked;
    // The first that is missing is told: without its source there is no set that could archive.
    for (name, used) in source.into_iter().chain(own) {
        match look(context, set, name, used).await {
            Ok(more) => seen = seen.and(more),
            Err(error) => {
                tracing::warn!(set = set.name, %error, "the archive cannot be looked at; what the agents have stays");
                return ArchiveSeen::Unknown;
            }
        }
    }
    seen
}

/// What an archive is to the set.
#[derive(Debug, Clone, Copy)]
pub enum Use<'a> {
    /// It archives there.
    Own,
    /// It is made from there, from what lies below this prefix.
    Source(Option<&'a str>),
}

impl ArchiveSeen {
    /// Both.
    fn and(self, more: Self) -> Self {
        match (self, more) {
            (Self::There(mut one), Self::There(other)) => {
                one.files.extend(other.files);
                one.fingerprint = crate::hash::fingerprint(&json!([one.fingerprint, other.fingerprint]));
                Self::There(one)
            }
            (Self::NotAsked, other) | (Self::There(_), other) => other,
            (missing, _) => missing,
        }
    }
}

async fn look(context: &Context, set: &Validated, name: &str, used: Use<'_>) -> Result<ArchiveSeen, ApplyError> {
    let archives: Api<PgArchive> = Api::namespaced(context.client.clone(), &set.namespace);
    let archive = call("read", "PgArchive", name, archives.get_opt(name)).await?;
    let Some(archive) = archive.filter(|a| a.metadata.deletion_timestamp.is_none()) else {
        return Ok(no_archive(name));
    };
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &set.namespace);
    let mut held = BTreeMap::new();
    for name in wanted(&archive.spec).map(|(_, key)| &key.name) {
        if !held.contains_key(name)
            && let Some(secret) = call("read", "Secret", name, secrets.get_opt(name)).await?
        {
            let version = secret.metadata.resource_version.unwrap_or_default();
            held.insert(name.clone(), Held { version, data: secret.data.unwrap_or_default() });
        }
    }
    Ok(gather(set, name, &archive.spec, used, &held))
}

fn no_archive(name: &str) -> ArchiveSeen {
    ArchiveSeen::Missing {
        reason: reasons::NO_ARCHIVE,
        message: format!(
            "there is no PgArchive {name} in this namespace, which the spec names: create it, or correct the name"
        ),
    }
}

/// The keys of Secrets that an archive names, and the files that they become.
fn wanted(archive: &PgArchiveSpec) -> impl Iterator<Item = (&'static str, &SecretKey)> {
    let credentials = &archive.credentials;
    [
        (files::ACCESS_KEY_ID, &credentials.access_key_id),
        (files::SECRET_ACCESS_KEY, &credentials.secret_access_key),
        (files::SESSION_TOKEN, &credentials.session_token),
        (files::CA, &archive.ca),
    ]
    .into_iter()
    .filter_map(|(file, key)| Some((file, key.as_ref()?)))
}

/// Puts together what the agents get.
pub fn gather(
    set: &Validated,
    name: &str,
    archive: &PgArchiveSpec,
    used: Use<'_>,
    held: &BTreeMap<String, Held>,
) -> ArchiveSeen {
    let missing = |message| ArchiveSeen::Missing { reason: reasons::NO_ARCHIVE_SECRET, message };
    let mut access = archive.access(&set.namespace, &set.name);
    let called = |file: &str| match used {
        Use::Own => file.to_owned(),
        Use::Source(_) => format!("{}{file}", files::SOURCE),
    };
    if let Use::Source(prefix) = used {
        let Some(prefix) = prefix.map(str::to_owned).or_else(|| archive.prefix.clone()) else {
            let message = format!(
                "PgArchive {name} says no prefix, so spec.bootstrap.fromArchive.prefix must: <namespace>/<replica set> of the \
                 set whose archive it is. The bootstrap of a set cannot be changed: delete this set and make it again"
            );
            return ArchiveSeen::Missing { reason: reasons::ARCHIVE_UNUSABLE, message };
        };
        access.prefix = prefix;
    }
    let mut gathered = BTreeMap::from([(called(files::ACCESS), serde_json::to_vec(&access).unwrap_or_default())]);
    let mut versions = BTreeMap::new();
    for (file, key) in wanted(archive) {
        let Some(secret) = held.get(&key.name) else {
            return missing(format!(
                "there is no Secret {} in this namespace, which PgArchive {name} names: create it with the key {}",
                key.name, key.key
            ));
        };
        let Some(value) = secret.data.get(&key.key).filter(|v| !v.0.is_empty()) else {
            return missing(format!(
                "the Secret {} has no key {}, or an empty one, which PgArchive {name} names: add it, or correct the PgArchive",
                key.name, key.key
            ));
        };
        gathered.insert(called(file), value.0.clone());
        versions.insert(file, (&key.name, &key.key, &secret.version));
    }
    let fingerprint = match (used, archive.retention) {
        (Use::Own, Some(retention)) => {
            let asked = RetentionAsked { archive: name.to_owned(), retention };
            gathered.insert(files::RETENTION.to_owned(), serde_json::to_vec(&asked).unwrap_or_default());
            crate::hash::fingerprint(&json!([access, versions, asked]))
        }
        _ => crate::hash::fingerprint(&json!([access, versions])),
    };
    ArchiveSeen::There(ArchiveFiles { files: gathered, fingerprint })
}

/// The Secret that the agents mount.
pub(super) fn secret(set: &Validated, archive: &ArchiveFiles) -> Object {
    let name = names::archive(&set.name);
    let mut metadata = set.owned(&name);
    metadata.annotations = Some([(names::ANNOTATION_ARCHIVE.to_owned(), archive.fingerprint.clone())].into());
    let data = archive.files.iter().map(|(file, bytes)| (file.clone(), ByteString(bytes.clone()))).collect();
    let secret = Secret { metadata, type_: Some("Opaque".to_owned()), data: Some(data), ..Secret::default() };
    Object::new(Kind::Secret, &name, &secret)
}

/// All of its files, so that a patch can take away those that are no longer wanted.
pub(super) fn files() -> impl Iterator<Item = String> {
    let own = [files::ACCESS, files::ACCESS_KEY_ID, files::SECRET_ACCESS_KEY, files::SESSION_TOKEN, files::CA];
    let both = own.into_iter().flat_map(|file| [file.to_owned(), format!("{}{file}", files::SOURCE)]);
    both.chain([files::RETENTION.to_owned()])
}
