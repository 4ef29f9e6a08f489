//! The API server in the test's own process, serving.

use pgconvoy_embedded::http::{Identity, Server};
use std::time::Duration;

/// Serves on a free port, which it returns, and clears away what owners left behind, for as long as the runtime lives.
pub(crate) async fn serve(server: &Server, identity: Identity) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener, &identity).await });
    let cleaning = server.clone();
    tokio::spawn(async move {
        loop {
            cleaning.with(|a| a.collect());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    port
}
