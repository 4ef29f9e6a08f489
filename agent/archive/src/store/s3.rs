//! S3 through the AWS SDK.

use super::{
    advice::advice,
    body::Body,
    client::client,
    config::{Config, Encryption},
    credentials::Credentials,
    error::{Call, Error, Reason},
    port::{Download, Listed, Page, Part, Put, Store},
    sdk_error,
};
use crate::{
    checksum::{crc32c, header},
    layout::parse_segment,
};
use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier,
        ServerSideEncryption, StorageClass,
    },
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A bucket of an S3 store.
#[derive(Clone)]
pub struct S3(Arc<Inner>);

struct Inner {
    client: Client,
    config: Config,
    /// The store overlooks conditions, so each write looks first.
    looks_first: AtomicBool,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3({})", self.0.config.describe())
    }
}

impl S3 {
    /// A client for this bucket. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Reason::Configuration`]: the certificate, the endpoint or the limits cannot be used.
    pub async fn new(config: Config) -> Result<Self, Error> {
        let unusable = |what: String| Error::new(config.describe(), Call::Setup, "", Reason::Configuration, what);
        if config.bucket.is_empty() || config.region.is_empty() {
            return Err(unusable("bucket and region must be given".into()));
        }
        if let Some(endpoint) = &config.endpoint
            && !(endpoint.starts_with("https://") || endpoint.starts_with("http://"))
        {
            return Err(unusable(format!("the endpoint {endpoint:?} does not begin with https:// or http://")));
        }
        let client = client(&config).await.map_err(unusable)?;
        Ok(Self(Arc::new(Inner { client, config, looks_first: AtomicBool::new(false) })))
    }

    /// From now on each write looks first whether there is such an object: for stores that overlook conditions
    /// ([`super::Conditional::Overlooked`]). It makes overwriting rare, not impossible.
    pub fn look_before_writing(&self) {
        self.0.looks_first.store(true, Ordering::Relaxed);
    }
}

impl Inner {
    fn key(&self, key: &str) -> String {
        match self.config.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// The part of a full key behind the prefix.
    fn relative(&self, key: &str) -> Option<String> {
        let inside = match self.config.prefix.as_str() {
            "" => Some(key),
            prefix => key.strip_prefix(prefix)?.strip_prefix('/'),
        };
        inside.map(str::to_owned)
    }

    fn error(&self, call: Call, key: &str, reason: Reason, detail: impl Into<String>) -> Error {
        Error::new(self.config.describe(), call, &self.key(key), reason, detail)
    }

    fn failed<E>(&self, call: Call, key: &str, e: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (reason, detail) = sdk_error::explain(e);
        // Nobody lends them: they are given, and empty.
        let reason = match (reason, &self.config.credentials) {
            (Reason::NotLent, Credentials::Keys(_)) => Reason::Credentials,
            (reason, _) => reason,
        };
        let advice = advice(&self.config, call, reason, e.code().unwrap_or_default(), &detail);
        self.error(call, key, reason, detail).advised(advice)
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, Error> {
        if self.looks_first.load(Ordering::Relaxed) && self.open(key).await?.is_some() {
            return Ok(Put::Exists);
        }
        let checksum = header(crc32c(&bytes));
        let mut pause = self.config.limits.first_pause;
        for _ in 0..self.config.limits.attempts.max(1) {
            let mut put = self
                .client
                .put_object()
                .bucket(&self.config.bucket)
                .key(self.key(key))
                .if_none_match("*")
                .checksum_crc32_c(&checksum)
                .set_server_side_encryption(self.encryption())
                .set_ssekms_key_id(self.kms_key())
                // Pieces go soon, and the rest is small: cheaper classes count 128 KiB and 30 days at least.
                .set_storage_class(parse_segment(key).and_then(|_| self.storage_class()))
                .set_tagging(self.tagging())
                .body(ByteStream::from(bytes.clone()))
                .customize();
            if self.config.is_encrypted_in_transit() {
                put = put.disable_payload_signing();
            }
            match put.send().await {
                Ok(_) => return Ok(Put::Stored),
                Err(e) if sdk_error::is_exists(&e) => return Ok(Put::Exists),
                // Somebody else is writing that key at this moment; what becomes of it shows in a moment.
                Err(e) if sdk_error::is_conflict(&e) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.config.limits.max_pause);
                }
                Err(e) => return Err(self.failed(Call::Put, key, &e)),
            }
        }
        Err(self.error(Call::Put, key, Reason::Busy, "somebody else is writing the same key, again and again"))
    }

    async fn open(&self, key: &str) -> Result<Option<Box<dyn Download>>, Error> {
        let get = self.client.get_object().bucket(&self.config.bucket).key(self.key(key));
        let object = match get.checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(object) => object,
            Err(e) if sdk_error::is_absent(&e) => return Ok(None),
            Err(e) => return Err(self.failed(Call::Get, key, &e)),
        };
        let Some(size) = object.content_length.and_then(|n| u64::try_from(n).ok()) else {
            return Err(self.error(Call::Get, key, Reason::Inconsistent, "the answer has no length"));
        };
        Ok(Some(Box::new(Body {
            store: self.config.describe(),
            key: self.key(key),
            patience: self.config.limits.attempt,
            size,
            received: 0,
            body: object.body,
        })))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, folders: bool) -> Result<Page, Error> {
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.config.bucket)
            .prefix(self.key(prefix))
            .set_start_after(after.map(|a| self.key(a)))
            .set_delimiter(folders.then(|| "/".to_owned()))
            .send()
            .await
            .map_err(|e| self.failed(Call::List, prefix, &e))?;
        let mut page = Page::default();
        for object in answer.contents() {
            let key = object.key().and_then(|k| self.relative(k));
            let Some(key) = key else {
                return Err(self.error(Call::List, prefix, Reason::Inconsistent, "it lists what was not asked for"));
            };
            let size = object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            page.objects.push(Listed { key, size, modified: object.last_modified().map(|t| t.secs()) });
        }
        page.folders =
            answer.common_prefixes().iter().filter_map(|p| p.prefix().and_then(|p| self.relative(p))).collect();
        if answer.is_truncated() == Some(true) {
            // A folder's last possible key, so that the next page does not begin inside of it.
            let folder = page.folders.last().map(|f| format!("{f}\u{10FFFF}"));
            page.next = page.objects.last().map(|o| o.key.clone()).max(folder);
        }
        Ok(page)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let first = keys.first().map_or("", String::as_str);
        if let [key] = keys {
            let done = self.client.delete_object().bucket(&self.config.bucket).key(self.key(key)).send().await;
            return match done {
                Err(e) if !sdk_error::is_absent(&e) => Err(self.failed(Call::Delete, key, &e)),
                _ => Ok(()),
            };
        }
        let bad = |what: String| self.error(Call::Delete, first, Reason::Configuration, what);
        let mut delete = Delete::builder().quiet(true);
        for key in keys {
            let object = ObjectIdentifier::builder().key(self.key(key)).build().map_err(|e| bad(e.to_string()))?;
            delete = delete.objects(object);
        }
        let delete = delete.build().map_err(|e| bad(e.to_string()))?;
        let answer = self
            .client
            .delete_objects()
            .bucket(&self.config.bucket)
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .delete(delete)
            .send()
            .await
            .map_err(|e| self.failed(Call::Delete, first, &e))?;
        let failed = answer.errors().iter().find(|e| e.code() != Some("NoSuchKey"));
        match failed {
            None => Ok(()),
            Some(e) => {
                let code = e.code().unwrap_or_default();
                let key = e.key().and_then(|k| self.relative(k)).unwrap_or_default();
                let detail = format!("{code}: {}", e.message().unwrap_or_default());
                Err(self.error(Call::Delete, &key, sdk_error::reason_of(code, 0), detail))
            }
        }
    }

    async fn begin_upload(&self, key: &str) -> Result<String, Error> {
        let answer = self
            .client
            .create_multipart_upload()
            .bucket(&self.config.bucket)
            .key(self.key(key))
            // Without it, AWS and others answer InvalidPart to parts that carry a checksum.
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.kms_key())
            .set_storage_class(self.storage_class())
            .set_tagging(self.tagging())
            .send()
            .await
            .map_err(|e| self.failed(Call::BeginUpload, key, &e))?;
        let without = || self.error(Call::BeginUpload, key, Reason::Inconsistent, "the answer has no upload id");
        answer.upload_id.ok_or_else(without)
    }

    async fn upload_part(&self, key: &str, upload: &str, number: u32, bytes: Bytes) -> Result<Part, Error> {
        let checksum = crc32c(&bytes);
        let mut part = self
            .client
            .upload_part()
            .bucket(&self.config.bucket)
            .key(self.key(key))
            .upload_id(upload)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .checksum_crc32_c(header(checksum))
            .body(ByteStream::from(bytes))
            .customize();
        if self.config.is_encrypted_in_transit() {
            part = part.disable_payload_signing();
        }
        let answer = part.send().await.map_err(|e| self.failed(Call::UploadPart, key, &e))?;
        let without = || self.error(Call::UploadPart, key, Reason::Inconsistent, "the answer has no ETag");
        Ok(Part { number, etag: answer.e_tag.ok_or_else(without)?, crc32c: checksum })
    }

    async fn finish_upload(&self, key: &str, upload: &str, parts: Vec<Part>) -> Result<Put, Error> {
        let parts = parts.into_iter().map(|part| {
            CompletedPart::builder()
                .part_number(i32::try_from(part.number).unwrap_or(i32::MAX))
                .e_tag(part.etag)
                .checksum_crc32_c(header(part.crc32c))
                .build()
        });
        if self.looks_first.load(Ordering::Relaxed) && self.open(key).await?.is_some() {
            return Ok(Put::Exists);
        }
        let done = self
            .client
            .complete_multipart_upload()
            .bucket(&self.config.bucket)
            .key(self.key(key))
            .upload_id(upload)
            .if_none_match("*")
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build())
            .send()
            .await;
        match done {
            Ok(_) => Ok(Put::Stored),
            Err(e) if sdk_error::is_exists(&e) => Ok(Put::Exists),
            // The upload is gone and the object is there: it was this call, and the first answer was lost.
            Err(e) if e.code() == Some("NoSuchUpload") && self.open(key).await?.is_some() => Ok(Put::Exists),
            Err(e) => Err(self.failed(Call::FinishUpload, key, &e)),
        }
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), Error> {
        let abort = self.client.abort_multipart_upload().bucket(&self.config.bucket).key(self.key(key));
        match abort.upload_id(upload).send().await {
            Err(e) if e.code() != Some("NoSuchUpload") => Err(self.failed(Call::AbortUpload, key, &e)),
            _ => Ok(()),
        }
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        match self.config.encryption {
            Encryption::BucketDefault => None,
            Encryption::S3 => Some(ServerSideEncryption::Aes256),
            Encryption::Kms(_) => Some(ServerSideEncryption::AwsKms),
        }
    }

    fn kms_key(&self) -> Option<String> {
        match &self.config.encryption {
            Encryption::Kms(key) => key.clone(),
            _ => None,
        }
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.config.storage_class.as_deref().map(StorageClass::from)
    }

    /// The tags as a query string, which is what the header takes.
    fn tagging(&self) -> Option<String> {
        if self.config.tags.is_empty() {
            return None;
        }
        let pair = |(k, v): (&String, &String)| format!("{}={}", encode(k), encode(v));
        Some(self.config.tags.iter().map(pair).collect::<Vec<_>>().join("&"))
    }
}

/// Percent-encodes everything but letters, digits and `-._~`.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

impl Store for S3 {
    fn put_new<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Put, Error>> {
        Box::pin(self.0.put_new(key, bytes))
    }

    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Download>>, Error>> {
        Box::pin(self.0.open(key))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        folders: bool,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(self.0.list(prefix, after, folders))
    }

    fn delete<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.0.delete(keys))
    }

    fn begin_upload<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(self.0.begin_upload(key))
    }

    fn upload_part<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        number: u32,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Part, Error>> {
        Box::pin(self.0.upload_part(key, upload, number, bytes))
    }

    fn finish_upload<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        parts: Vec<Part>,
    ) -> BoxFuture<'a, Result<Put, Error>> {
        Box::pin(self.0.finish_upload(key, upload, parts))
    }

    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.0.abort_upload(key, upload))
    }

    fn describe(&self) -> String {
        self.0.config.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Keys;

    #[test]
    fn tags_are_encoded() {
        assert_eq!(encode("a b/ü-~"), "a%20b%2F%C3%BC-~");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_said_before_anything_is_sent() {
        let config = Config::new("b", "r", Credentials::keys(Keys::new("a", "s", None)));
        for (config, said) in [
            (Config { bucket: String::new(), ..config.clone() }, "bucket and region"),
            (Config { endpoint: Some("s3.example".into()), ..config.clone() }, "does not begin with"),
            (Config { ca: Some(b"x".to_vec()), ..config.clone() }, "holds no certificate"),
            (
                Config {
                    ca: Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
                    ..config
                },
                "cannot be used",
            ),
        ] {
            let error = S3::new(config).await.unwrap_err();
            assert_eq!(error.reason(), Reason::Configuration);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
