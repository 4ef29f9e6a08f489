//! Who we are to the store.

use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

/// An access key. Its secret is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The access key's id.
    pub id: String,
    secret: String,
    token: Option<String>,
}

impl Keys {
    /// A key pair; `token` for temporary ones.
    pub fn new(id: impl Into<String>, secret: impl Into<String>, token: Option<String>) -> Self {
        Self { id: id.into(), secret: secret.into(), token }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, …)", self.id)
    }
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A key pair that may be exchanged while calls run ([`Credentials::exchange`]).
    Keys(Arc<RwLock<Keys>>),
    /// Keys that are lent for a while, and renewed by themselves.
    Lent(Lender),
}

/// Who lends keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lender {
    /// A security token service, for the service account's token.
    WebIdentity(WebIdentity),
    /// What the container was given to ask: EKS Pod Identity and the like (`AWS_CONTAINER_CREDENTIALS_FULL_URI`).
    PodIdentity {
        /// The service account that a role is to be associated with, for people.
        account: String,
    },
    /// The metadata service of the machine that this runs on.
    InstanceRole,
}

/// A role that is taken by a service account's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebIdentity {
    /// The role.
    pub role_arn: String,
    /// The file with the token; it is read for each renewal.
    pub token_file: PathBuf,
    /// Whose token it is, for people: `system:serviceaccount:<namespace>:<name>`.
    pub account: String,
}

impl Credentials {
    /// A key pair.
    pub fn keys(keys: Keys) -> Self {
        Self::Keys(Arc::new(RwLock::new(keys)))
    }

    /// Takes other keys from the next request on; nothing happens for keys that are lent.
    pub fn exchange(&self, keys: Keys) {
        if let Self::Keys(held) = self {
            *held.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
    }
}

/// Gives the SDK whatever keys are held at the moment.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Arc<RwLock<Keys>>);

impl ProvideCredentials for Held {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if keys.id.is_empty() || keys.secret.is_empty() {
            return future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("the access key is empty")));
        }
        let credentials = aws_credential_types::Credentials::new(keys.id, keys.secret, keys.token, None, "pgconvoy");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}
