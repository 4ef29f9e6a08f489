//! Clients of the API server that notice a dead connection within seconds.
//!
//! kube's own connector sets no keep-alive: a watch through a silently dropped connection is missed for minutes.

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use std::time::Duration;
use tower::{BoxError, ServiceBuilder};

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that was quiet for so long is probed, so often, so many times: dead after 13 s.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(4);
const KEEPALIVE_PROBES: u32 = 2;
/// Sent bytes that nobody confirms for so long end the connection.
const UNCONFIRMED: Duration = Duration::from_secs(10);

/// A client for the server of `config`. It does not repeat requests by itself: whoever asks has a deadline and a plan.
///
/// # Errors
/// When the credentials or the certificates of `config` are unusable.
pub fn client(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp.set_tcp_user_timeout(Some(UNCONFIRMED));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
