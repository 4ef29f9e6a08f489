//! Probes and metrics over plain HTTP.

use crate::clock;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The main loop steps at least every 500 ms; silent for so long, it hangs. Short: a stalled machine gets its agents
/// restarted on top. Long: a hanging agent stays as long.
const ALIVE: Duration = Duration::from_secs(10);

/// Whether the pod is Ready.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ready {
    /// Whether it is.
    pub ready: bool,
    /// Why not: a sentence.
    pub why: String,
}

struct Shared {
    /// When the main loop last stepped, in milliseconds on CLOCK_BOOTTIME.
    stepped: Arc<AtomicU64>,
    ready: watch::Receiver<Ready>,
    registry: Registry,
}

/// Listens on `address`: `/healthz`, `/readyz`, `/metrics`. `stepped` holds the time of the main loop's last step
/// ([`clock::now`]). The address listened on comes back with the task, which never ends.
///
/// # Errors
/// When the port cannot be had.
pub async fn serve(
    address: SocketAddr,
    stepped: Arc<AtomicU64>,
    ready: watch::Receiver<Ready>,
    registry: Registry,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Shared { stepped, ready, registry }));
    let task = tokio::spawn(async move {
        if let Err(why) = axum::serve(listener, router).await {
            tracing::error!("probes are no longer answered: {why}");
        }
    });
    Ok((address, task))
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    let silent = clock::now().since(pgconvoy_ha::Instant(shared.stepped.load(Ordering::Relaxed)));
    if u128::from(silent) < ALIVE.as_millis() {
        return "the agent is alive\n".into_response();
    }
    let why = format!("the agent's main loop has not stepped for {} s\n", silent / 1000);
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let Ready { ready, why } = shared.ready.borrow().clone();
    if ready {
        return "this member is attached\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    if let Err(why) = encode(&mut text, &shared.registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {why}\n")).into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn probes_and_metrics_say_what_is() {
        let stepped = Arc::new(AtomicU64::new(clock::now().0));
        let (say, ready) = watch::channel(Ready { ready: false, why: "it waits for a leader".into() });
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("tries", "Tries", counter.clone());
        counter.inc();
        let any = "127.0.0.1:0".parse().unwrap();
        let (address, _task) = serve(any, Arc::clone(&stepped), ready, registry).await.unwrap();

        assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let not_ready = fetch(address, "/readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("it waits for a leader"), "{not_ready}");
        let metrics = fetch(address, "/metrics").await;
        assert!(metrics.contains("openmetrics-text") && metrics.contains("tries_total 1"), "{metrics}");
        assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));

        say.send(Ready { ready: true, why: String::new() }).unwrap();
        stepped.store(clock::now().0 - 11_000, Ordering::Relaxed);
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let hangs = fetch(address, "/healthz").await;
        assert!(hangs.starts_with("HTTP/1.1 503") && hangs.contains("11 s"), "{hangs}");
    }
}
