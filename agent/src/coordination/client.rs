//! Clients of the Kubernetes API that notice a dead connection within three seconds.

use super::error::chain;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use std::time::Duration;
use tower::ServiceExt as _;

/// Two clients of the same API server. Each has connections of its own, so a slow list of pods never stands before a
/// renewal of the Lease.
#[derive(Clone)]
pub struct Clients {
    /// For PgTerm and Lease.
    pub coordination: Client,
    /// For everything else.
    pub general: Client,
}

/// Why there is no client of the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a service account nor a kubeconfig.
    #[error("no way to the Kubernetes API is configured: {0}")]
    NoConfiguration(String),
    /// What is configured cannot be used.
    #[error("the configured way to the Kubernetes API cannot be used: {0}")]
    Unusable(String),
}

impl Clients {
    /// Clients for the cluster this pod runs in, or the one that `KUBECONFIG` names. Does not connect yet.
    ///
    /// # Errors
    /// When there is neither, or what is there cannot be read.
    pub async fn connect() -> Result<Self, ClientError> {
        let config = if std::env::var_os("KUBECONFIG").is_some() {
            Config::from_kubeconfig(&KubeConfigOptions::default())
                .await
                .map_err(|e| ClientError::NoConfiguration(chain(&e)))?
        } else {
            Config::incluster().map_err(|e| ClientError::NoConfiguration(chain(&e)))?
        };
        Self::with(config)
    }

    /// Clients for what this configuration names.
    pub(super) fn with(mut config: Config) -> Result<Self, ClientError> {
        // A write that a middle layer sends again seconds later is worse than an error now.
        config.default_retry = false;
        Ok(Self { coordination: client(&config)?, general: client(&config)? })
    }
}

/// The operating system's own means find a dead connection in 2-3 s; the client's defaults need minutes.
fn connector() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(1)));
    http.set_keepalive(Some(Duration::from_secs(1)));
    http.set_keepalive_interval(Some(Duration::from_secs(1)));
    http.set_keepalive_retries(Some(2));
    http.set_tcp_user_timeout(Some(Duration::from_secs(3)));
    http
}

fn client(config: &Config) -> Result<Client, ClientError> {
    let unusable = |e: kube::Error| ClientError::Unusable(chain(&e));
    let https = config.rustls_https_connector_with_connector(connector()).map_err(unusable)?;
    let service = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4)
        .build::<_, Body>(https)
        .map_err(tower::BoxError::from);
    let auth = tower::util::option_layer(config.auth_layer().map_err(unusable)?);
    Ok(ClientBuilder::new(service, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer().map_err(unusable)?)
        .with_layer(&auth)
        .with_layer(&config.base_uri_layer())
        .build())
}
