//! The embedded server, and the contract against it.

use crate::contract;
use pgconvoy_archive::store::{Config, Credentials, Keys, Limits, S3};
use pgconvoy_e2e_s3::{Options, Server};
use std::time::Duration;

pub(crate) async fn server() -> Server {
    Server::start(Options::default()).await.unwrap()
}

/// The bucket of an embedded server. Time-outs and pauses are short: nothing here is far away.
pub(crate) fn config(server: &Server) -> Config {
    let options = server.options();
    let keys = Keys::new(&options.access_key, &options.secret_key, None);
    Config {
        endpoint: Some(server.endpoint()),
        path_style: true,
        prefix: "ns/orders".into(),
        limits: limits(),
        ..Config::new(&options.bucket, "us-east-1", Credentials::keys(keys))
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        attempt: Duration::from_secs(10),
        call: Duration::from_secs(20),
        attempts: 3,
        first_pause: Duration::from_millis(10),
        max_pause: Duration::from_millis(100),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_server_keeps_the_contract() {
    let server = server().await;
    contract::all(&S3::new(config(&server)).await.unwrap()).await;
    assert!(server.keys().iter().all(|k| k.starts_with("ns/orders/")), "{:?}", server.keys());
}
