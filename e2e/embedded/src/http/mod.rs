//! The API server's sockets: TLS, tokens, paths, watches.

mod answer;
mod faults;
mod logs;
mod path;
mod request;
mod tls;
mod watch;

pub use faults::{Fault, Rule};
pub use tls::{Authority, Identity};

use crate::api::Api;
use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch as channel;
use tokio_rustls::TlsAcceptor;

/// The connection is to break.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}

/// The API server, as everything that runs with it sees it.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    api: Mutex<Api>,
    /// The last revision: watches wait for it.
    revision: channel::Sender<u64>,
    /// Whose token is whose.
    tokens: Mutex<HashMap<String, String>>,
    /// Where the logs of containers are.
    logs: PathBuf,
    /// What goes wrong on purpose.
    faults: Mutex<Vec<Rule>>,
    /// Counts how often all watches were broken off.
    cut: channel::Sender<u64>,
    /// How many requests there were.
    requests: AtomicU64,
}

/// The body of an answer.
pub type Answered = BoxBody<Bytes, Infallible>;

impl Server {
    /// A server of these objects. `logs`: the directory of containers' logs.
    pub fn new(api: Api, logs: PathBuf) -> Self {
        let revision = channel::channel(api.revision()).0;
        let (faults, cut) = (Mutex::default(), channel::channel(0).0);
        let shared = Shared {
            api: Mutex::new(api),
            revision,
            tokens: Mutex::default(),
            logs,
            faults,
            cut,
            requests: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Does something with the objects, at once for everybody.
    pub fn with<T>(&self, work: impl FnOnce(&mut Api) -> T) -> T {
        let mut api = self.api();
        let result = work(&mut api);
        let now = api.revision();
        self.shared.revision.send_if_modified(|r| std::mem::replace(r, now) != now);
        result
    }

    fn api(&self) -> MutexGuard<'_, Api> {
        self.shared.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is told whenever something was written.
    pub fn changes(&self) -> channel::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// Lets whoever has this token in, under this name.
    pub fn let_in(&self, token: &str, user: &str) {
        let mut tokens = self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), user.to_owned());
    }

    fn user(&self, token: &str) -> Option<String> {
        self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Answers one request of this user, without sockets: for clients in the same process. Nothing when the connection is to
    /// break.
    pub async fn answer<B: Body<Data = Bytes>>(&self, user: &str, request: Request<B>) -> Option<Response<Answered>>
    where
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        Some(request::answer(self, user, request).await?.into_response())
    }

    /// How many requests there were so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.shared.cut.receiver_count()
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// When the certificate cannot be used or the socket fails.
    pub async fn serve(self, listener: TcpListener, identity: &Identity) -> anyhow::Result<()> {
        let acceptor = TlsAcceptor::from(identity.server_config()?);
        loop {
            let (stream, _) = listener.accept().await.context("the API server's socket failed")?;
            let _ = stream.set_nodelay(true);
            let (acceptor, server) = (acceptor.clone(), self.clone());
            tokio::spawn(async move {
                // Whoever does not trust the certificate, or goes away, is nobody's business.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let server = server.clone();
                    // Without an answer the connection breaks.
                    server.shared.requests.fetch_add(1, Ordering::Relaxed);
                    async move { request::handle(&server, request).await.map(|a| a.into_response()).ok_or(Broken) }
                });
                let connection =
                    http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
            });
        }
    }
}
