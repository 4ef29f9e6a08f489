//! Who we are to the store.

use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use std::{
    fmt,
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
    /// What the environment gives: a web identity token (`AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`), a container's
    /// or an instance's role. Renewed by itself.
    Environment,
}

impl Credentials {
    /// A key pair.
    pub fn keys(keys: Keys) -> Self {
        Self::Keys(Arc::new(RwLock::new(keys)))
    }

    /// Takes other keys from the next request on; nothing happens for [`Credentials::Environment`].
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
