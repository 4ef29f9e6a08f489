//! Probes and metrics over plain HTTP.

use crate::clock;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// So many connections may be open at once; more wait in the kernel's queue. Anybody in the cluster can open some.
const CONNECTIONS: usize = 64;
/// How long a connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(5);
/// How long a connection may last.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause when no connection can be accepted (out of file descriptors).
const CANNOT_ACCEPT: Duration = Duration::from_millis(100);
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
    let shared = Arc::new(Shared { stepped, ready, registry });
    Ok((address, tokio::spawn(accept(listener, shared))))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    connection(stream, shared).await;
                    drop(slot);
                });
            }
            Err(why) => {
                tracing::debug!("no connection of a probe can be accepted: {why}");
                tokio::time::sleep(CANNOT_ACCEPT).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(&request)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    // Its end, good or bad, concerns only who asked.
    let _ = tokio::time::timeout(LONGEST, served).await;
}

impl Shared {
    fn answer<B>(&self, request: &hyper::Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "there is only something to get\n".to_owned());
        }
        match request.uri().path() {
            "/healthz" => self.health(),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "there is nothing at this path\n".to_owned()),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let silent = clock::now().since(pgconvoy_ha::Instant(self.stepped.load(Ordering::Relaxed)));
        if u128::from(silent) < ALIVE.as_millis() {
            return text(StatusCode::OK, "the agent is alive\n".to_owned());
        }
        let why = format!("the agent's main loop has not stepped for {} s\n", silent / 1000);
        text(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let Ready { ready, why } = self.ready.borrow().clone();
        if ready {
            return text(StatusCode::OK, "this member is attached\n".to_owned());
        }
        text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut all = String::new();
        if let Err(why) = encode(&mut all, &self.registry) {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {why}\n"));
        }
        of_type("application/openmetrics-text; version=1.0.0; charset=utf-8", StatusCode::OK, all)
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    of_type("text/plain; charset=utf-8", status, text)
}

fn of_type(kind: &'static str, status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
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
