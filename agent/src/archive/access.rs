//! What leads to the archive, as the operator hands it to the agent: files of a Secret, which come, change and go.

use pgconvoy_archive::snapshot::Pace;
use pgconvoy_archive::store::{Config, Credentials, Encryption, Keys, Lender, WebIdentity};
use pgconvoy_crds::{ArchiveAccess, ArchiveLender, RetentionAsked, ServerSideEncryptionType, pod::archive as files};
use std::{fmt, fs, io, path::Path, sync::Arc, time::Duration};

/// What leads to the archive.
#[derive(Clone, PartialEq)]
pub(crate) struct Access {
    /// Bucket, prefix, …
    pub(crate) place: Box<ArchiveAccess>,
    identity: Identity,
    ca: Option<Vec<u8>>,
}

/// Who we are to the store.
#[derive(Clone, PartialEq, Debug)]
enum Identity {
    Keys(Keys),
    Lent(Lender),
}

// It holds secrets.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({:?}, {:?})", self.place, self.identity)
    }
}

/// How often the files are looked at. They lie in memory. Too long: changed keys are taken up late.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

impl Access {
    /// Reads it from files whose names begin with `which`; none: there is no archive. What cannot be understood, or is only
    /// half there, is a sentence.
    pub(crate) fn read(dir: &Path, which: &str) -> Result<Option<Self>, String> {
        let called = |name: &str| format!("{which}{name}");
        let Some(place) = file(dir, &called(files::ACCESS))? else { return Ok(None) };
        let place: Box<ArchiveAccess> = serde_json::from_slice(&place).map_err(|e| {
            format!("{} is not understood by this agent: {e}", dir.join(called(files::ACCESS)).display())
        })?;
        let text = |name: &str| match file(dir, &called(name))? {
            // Secrets made with `echo` end in a line break, which is none of theirs.
            Some(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(_) => Err(format!("{} is no text", dir.join(called(name)).display())),
            },
            None => Ok(None),
        };
        let needed = |name: &str| text(name)?.ok_or_else(|| format!("{} is missing", dir.join(called(name)).display()));
        let identity = match &place.lender {
            None => {
                let (id, secret) = (needed(files::ACCESS_KEY_ID)?, needed(files::SECRET_ACCESS_KEY)?);
                Identity::Keys(Keys::new(id, secret, text(files::SESSION_TOKEN)?))
            }
            Some(ArchiveLender::WebIdentity { role_arn }) => Identity::Lent(Lender::WebIdentity(WebIdentity {
                role_arn: role_arn.clone(),
                token_file: dir.join(files::WEB_IDENTITY_TOKEN),
                account: place.account.clone(),
            })),
            Some(ArchiveLender::PodIdentity) => Identity::Lent(Lender::PodIdentity { account: place.account.clone() }),
            Some(ArchiveLender::InstanceRole) => Identity::Lent(Lender::InstanceRole),
        };
        Ok(Some(Self { place, identity, ca: file(dir, &called(files::CA))? }))
    }

    /// What the PgArchive says of retention; none: everything stays.
    pub(crate) fn retention(dir: &Path) -> Result<Option<RetentionAsked>, String> {
        let Some(text) = file(dir, files::RETENTION)? else { return Ok(None) };
        let path = dir.join(files::RETENTION);
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| format!("{} is not understood by this agent: {e}", path.display()))
    }

    /// How fast snapshots may read.
    pub(crate) fn pace(&self) -> Arc<Pace> {
        Arc::new(Pace::new(self.place.snapshot_bytes_per_second))
    }

    /// For the store's client.
    pub(crate) fn config(&self) -> Config {
        let place = &self.place;
        let credentials = match &self.identity {
            Identity::Keys(keys) => Credentials::keys(keys.clone()),
            Identity::Lent(lender) => Credentials::Lent(lender.clone()),
        };
        Config {
            prefix: place.prefix.clone(),
            endpoint: place.endpoint.clone(),
            path_style: place.path_style,
            ca: self.ca.clone(),
            encryption: match &place.server_side_encryption {
                None => Encryption::BucketDefault,
                Some(asked) => match asked.kind {
                    ServerSideEncryptionType::S3 => Encryption::S3,
                    ServerSideEncryptionType::Kms => Encryption::Kms(asked.kms_key_id.clone()),
                },
            },
            storage_class: place.storage_class.clone(),
            tags: place.tags.clone(),
            ..Config::new(&place.bucket, &place.region, credentials)
        }
    }
}

fn file(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, String> {
    let path = dir.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{} cannot be read: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_a_configuration_and_secrets_are_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(Access::read(dir.path(), "").unwrap(), None);
        put(files::ACCESS, r#"{"bucket":"b","prefix":"n/s","region":"r","maxDelaySeconds":1}"#);
        put(files::ACCESS_KEY_ID, "id\n");
        assert!(Access::read(dir.path(), "").unwrap_err().contains("secret-access-key is missing"));
        put(files::SECRET_ACCESS_KEY, "geheim\n");
        let access = Access::read(dir.path(), "").unwrap().unwrap();
        assert_eq!(access.identity, Identity::Keys(Keys::new("id", "geheim", None)));
        assert!(!format!("{access:?}").contains("geheim"));
        let config = access.config();
        assert_eq!((config.bucket.as_str(), config.prefix.as_str(), config.path_style), ("b", "n/s", false));
        assert_eq!(config.encryption, Encryption::BucketDefault);
        put(
            files::ACCESS,
            r#"{"bucket":"b","prefix":"n/s","region":"r","maxDelaySeconds":1,"storageClass":"STANDARD_IA",
                "serverSideEncryption":{"type":"SSE-KMS","kmsKeyId":"alias/k"},"tags":{"team":"shop"}}"#,
        );
        let config = Access::read(dir.path(), "").unwrap().unwrap().config();
        assert_eq!(config.encryption, Encryption::Kms(Some("alias/k".into())));
        assert_eq!((config.storage_class.as_deref(), config.tags.len()), (Some("STANDARD_IA"), 1));
        assert_eq!(Access::retention(dir.path()).unwrap(), None);
        put(
            files::ACCESS,
            r#"{"bucket":"b","prefix":"n/s","region":"r","maxDelaySeconds":1,"account":"system:serviceaccount:n:s",
                "lender":{"webIdentity":{"roleArn":"arn:aws:iam::1:role/b"}}}"#,
        );
        let Identity::Lent(Lender::WebIdentity(lender)) = Access::read(dir.path(), "").unwrap().unwrap().identity
        else {
            panic!("a role is lent for a token")
        };
        assert_eq!(lender.token_file, dir.path().join("web-identity-token"));
        assert_eq!((&*lender.role_arn, &*lender.account), ("arn:aws:iam::1:role/b", "system:serviceaccount:n:s"));
        put(files::RETENTION, r#"{"archive":"s3","retention":{"snapshots":3}}"#);
        assert_eq!(Access::retention(dir.path()).unwrap().unwrap().retention.snapshots, Some(3));
        put(files::RETENTION, "?");
        assert!(Access::retention(dir.path()).unwrap_err().contains("retention.json is not understood"));
        put(files::ACCESS, "{}");
        assert!(Access::read(dir.path(), "").unwrap_err().contains("not understood"));
    }
}
