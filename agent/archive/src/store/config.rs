//! Which bucket, and how to talk to it.

use super::credentials::Credentials;
use std::{collections::BTreeMap, time::Duration};

/// How objects are encrypted by the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// As the bucket's default says.
    #[default]
    BucketDefault,
    /// With the store's own keys (SSE-S3).
    S3,
    /// With a key of the key management service (SSE-KMS); `None`: the account's default key.
    Kms(Option<String>),
}

/// How long calls may take and how often they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// For TCP and TLS. Too short: a distant store is taken for an absent one. Too long: a dead address is noticed late.
    pub connect: Duration,
    /// For one attempt up to the answer's headers; for reading, between two pieces of the body. Too short: large
    /// objects never come through on a slow line. Too long: a hung store is noticed late.
    pub attempt: Duration,
    /// For a call with all its attempts.
    pub call: Duration,
    /// How often a call is tried.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles, with jitter, up to `max_pause`.
    pub first_pause: Duration,
    /// The longest pause between attempts.
    pub max_pause: Duration,
}

impl Default for Limits {
    /// 5 s to connect, 60 s an attempt, 180 s a call, 5 attempts, pauses of 0.1 to 5 s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(60),
            call: Duration::from_secs(180),
            attempts: 5,
            first_pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(5),
        }
    }
}

/// A bucket, or a part of one.
#[derive(Debug, Clone)]
pub struct Config {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with; no slash at its ends. Empty: the whole bucket.
    pub prefix: String,
    /// The region. Stores other than AWS mostly do not care; `us-east-1` is the usual filler.
    pub region: String,
    /// `https://host:port` of a store that is not AWS; `None`: AWS.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; most stores that are not AWS want it.
    pub path_style: bool,
    /// Authorities to trust, in PEM, instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// Who we are.
    pub credentials: Credentials,
    /// How objects are encrypted.
    pub encryption: Encryption,
    /// The class of whole segments and of what is uploaded in parts: `STANDARD_IA`, …; `None`: as the store does by default.
    pub storage_class: Option<String>,
    /// Tags for every object.
    pub tags: BTreeMap<String, String>,
    /// Time-outs and retries.
    pub limits: Limits,
}

impl Config {
    /// A bucket of AWS in `region`; everything else as it is by default.
    pub fn new(bucket: impl Into<String>, region: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            region: region.into(),
            endpoint: None,
            path_style: false,
            ca: None,
            credentials,
            encryption: Encryption::BucketDefault,
            storage_class: None,
            tags: BTreeMap::new(),
            limits: Limits::default(),
        }
    }

    /// Whether bodies travel encrypted; then they need no signature of their own, the CRC32C beside them suffices.
    pub(crate) fn is_encrypted_in_transit(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|e| e.starts_with("https://"))
    }

    /// For people: which bucket, where.
    pub(crate) fn describe(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("bucket {} at {endpoint}", self.bucket),
            None => format!("bucket {} in {}", self.bucket, self.region),
        }
    }
}
