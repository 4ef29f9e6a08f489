//! What can go wrong with a store, in sentences.

use std::fmt;

/// A call of the S3 protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// PutObject.
    Put,
    /// GetObject.
    Get,
    /// ListObjectsV2.
    List,
    /// DeleteObjects.
    Delete,
    /// CreateMultipartUpload.
    BeginUpload,
    /// UploadPart.
    UploadPart,
    /// CompleteMultipartUpload.
    FinishUpload,
    /// AbortMultipartUpload.
    AbortUpload,
    /// None: the client could not be built.
    Setup,
}

impl Call {
    /// The call's name in the S3 protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "PutObject",
            Self::Get => "GetObject",
            Self::List => "ListObjectsV2",
            Self::Delete => "DeleteObjects",
            Self::BeginUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::FinishUpload => "CompleteMultipartUpload",
            Self::AbortUpload => "AbortMultipartUpload",
            Self::Setup => "setup",
        }
    }

    /// The permission that it needs, in the words of an S3 policy.
    pub fn permission(self) -> &'static str {
        match self {
            Self::Put | Self::BeginUpload | Self::UploadPart | Self::FinishUpload | Self::Setup => "s3:PutObject",
            Self::Get => "s3:GetObject",
            Self::List => "s3:ListBucket",
            Self::Delete => "s3:DeleteObject",
            Self::AbortUpload => "s3:AbortMultipartUpload",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Self::Put => "write",
            Self::Get => "read",
            Self::List => "list",
            Self::Delete => "delete",
            Self::BeginUpload | Self::UploadPart | Self::FinishUpload => "upload",
            Self::AbortUpload => "give up the upload of",
            Self::Setup => "use",
        }
    }
}

/// Why a call failed: the reason in conditions and events, the label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No connection: wrong address, closed port, network.
    Unreachable,
    /// The TLS handshake failed, mostly for an unknown authority.
    Tls,
    /// No answer in time.
    Timeout,
    /// The store is overloaded or ill: 429, 500, 502, 503, 504, after all retries.
    Busy,
    /// There is no such bucket.
    NoBucket,
    /// The credentials are valid, but not allowed to do this.
    Denied,
    /// The credentials are missing, unknown, wrong or expired.
    Credentials,
    /// Whoever lends the credentials does not.
    NotLent,
    /// Whoever lends the credentials cannot be reached.
    LenderAway,
    /// The bucket is in another region.
    Region,
    /// The store's clock and ours are too far apart.
    Clock,
    /// Bytes changed on the way, or the object is not what was stored.
    Damaged,
    /// The store does not know this call or header.
    Unsupported,
    /// The store contradicts itself.
    Inconsistent,
    /// The configuration cannot be used.
    Configuration,
    /// Anything else that the store says.
    Refused,
}

impl Reason {
    /// The variant's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::Tls => "Tls",
            Self::Timeout => "Timeout",
            Self::Busy => "Busy",
            Self::NoBucket => "NoBucket",
            Self::Denied => "Denied",
            Self::Credentials => "Credentials",
            Self::NotLent => "NotLent",
            Self::LenderAway => "LenderAway",
            Self::Region => "Region",
            Self::Clock => "Clock",
            Self::Damaged => "Damaged",
            Self::Unsupported => "Unsupported",
            Self::Inconsistent => "Inconsistent",
            Self::Configuration => "Configuration",
            Self::Refused => "Refused",
        }
    }

    /// Whether it may go away without anybody doing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::LenderAway | Self::Timeout | Self::Busy | Self::Damaged)
    }
}

/// A call that failed, after all retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    store: String,
    call: Call,
    key: String,
    reason: Reason,
    detail: String,
    /// What it means and what to do, where more is known than the reason tells.
    advice: Option<String>,
}

impl Error {
    pub(crate) fn new(store: String, call: Call, key: &str, reason: Reason, detail: impl Into<String>) -> Self {
        // What a server answers may be a page long.
        let mut detail: String = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(400) {
            detail.truncate(end);
            detail.push('…');
        }
        Self { store, call, key: key.to_owned(), reason, detail, advice: None }
    }

    pub(super) fn advised(self, advice: Option<String>) -> Self {
        Self { advice, ..self }
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Which call.
    pub fn call(&self) -> Call {
        self.call
    }

    /// On which key, or under which prefix.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn meaning(&self) -> String {
        if let Some(advice) = &self.advice {
            return advice.clone();
        }
        match self.reason {
            Reason::Unreachable => "there is no connection to it; check the endpoint and the network policies".into(),
            Reason::Tls => {
                "its certificate is not trusted; give the authority that issued it, or correct the endpoint's name"
                    .into()
            }
            Reason::Timeout => "it did not answer in time; it may be down, overloaded or cut off".into(),
            Reason::Busy => "it is overloaded or ill, also after retries".into(),
            Reason::NoBucket => "there is no such bucket; create it or correct its name".into(),
            Reason::Denied => format!("the credentials may not do that; grant {}", self.call.permission()),
            Reason::Credentials => "it does not accept the credentials; check access key, secret and expiry".into(),
            Reason::NotLent => "no credentials are lent for it".into(),
            Reason::LenderAway => "whoever lends the credentials for it cannot be reached".into(),
            Reason::Region => "the bucket is in another region; correct the region".into(),
            Reason::Clock => "its clock and this node's are too far apart; set the node's clock".into(),
            Reason::Damaged => "what arrived is not what was sent".into(),
            Reason::Unsupported => "this store cannot do that".into(),
            Reason::Inconsistent => "the store contradicts itself".into(),
            Reason::Configuration => "the configuration cannot be used".into(),
            Reason::Refused => "it refused".into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} ", self.call.doing())?;
        if !self.key.is_empty() {
            write!(f, "{} in ", self.key)?;
        }
        write!(f, "{}: {}", self.store, self.meaning())?;
        if !self.detail.is_empty() {
            write!(f, " ({}: {})", self.call.name(), self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_what_and_what_to_do() {
        let e = Error::new("bucket backups at http://s3".into(), Call::Put, "a/b", Reason::Denied, "AccessDenied: no");
        assert_eq!(
            e.to_string(),
            "cannot write a/b in bucket backups at http://s3: the credentials may not do that; grant s3:PutObject \
             (PutObject: AccessDenied: no)"
        );
        let long = Error::new(String::new(), Call::Get, "k", Reason::Refused, "ü".repeat(5000));
        assert!(long.to_string().len() < 1000);
    }
}
