//! Asks other agents.

use super::message::{read_answer, write_ask};
use super::tls::Tls;
use super::{MESSAGE_LIMIT, Metrics, PATH};
use crate::coordination::error_chain;
use crate::settings::{Addresses, Identity};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use pgconvoy_ha::{Answer, Ask, Unreachable};
use pgconvoy_terms::MemberName;
use rustls_pki_types::ServerName;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// How long a TCP connection and its handshake may take to be made, each.
const CONNECT: Duration = Duration::from_secs(1);
/// Connections to one peer that are kept for the next question. More than one: a question that waits for its answer
/// must not hold up the heartbeat behind it.
const KEPT: usize = 4;
/// A connection is used for so long at most, so that renewed certificates come into use.
const LONGEST_USE: Duration = Duration::from_secs(600);
/// One line in the log per peer in so long, at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why a question has no usable answer. For the log; whoever asked learns only that there is none.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("its address is not known")]
    NoAddress,
    #[error("no connection to {address}: {why}")]
    Connect { address: SocketAddr, why: String },
    #[error("nobody listens on {0}")]
    Nobody(SocketAddr),
    #[error("no trusted connection to {address}: {why}")]
    Handshake { address: SocketAddr, why: String },
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("it answered {status}: {why}")]
    TurnedAway { status: StatusCode, why: String },
    #[error("{0}")]
    Message(super::message::MessageError),
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

impl AskError {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoAddress => "address",
            Self::Connect { .. } => "connect",
            Self::Nobody(_) => "nobody",
            Self::Handshake { .. } => "handshake",
            Self::Broken(_) => "broken",
            Self::TurnedAway { .. } => "turned_away",
            Self::Message(_) => "message",
            Self::Late(_) => "late",
        }
    }

    fn unreachable(&self) -> Unreachable {
        match self {
            Self::NoAddress | Self::Nobody(_) => Unreachable::Nobody,
            _ => Unreachable::Silent,
        }
    }
}

/// The other agents of the set. Clones share connections.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    set_uid: String,
    port: u16,
    tls: Tls,
    addresses: watch::Receiver<Addresses>,
    kept: Mutex<BTreeMap<MemberName, Vec<Connection>>>,
    logged: Mutex<BTreeMap<MemberName, Instant>>,
    metrics: Metrics,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    address: IpAddr,
    generation: u64,
    made: Instant,
}

impl Peers {
    /// The other agents, reached at `addresses` on the port of [`Identity::peers_port`].
    pub fn new(me: &Identity, tls: Tls, addresses: watch::Receiver<Addresses>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            set_uid: me.set_uid.clone(),
            port: me.peers_port,
            tls,
            addresses,
            kept: Mutex::default(),
            logged: Mutex::default(),
            metrics,
        }))
    }

    /// Asks, and waits for the answer at most `within`. The question may have arrived also when no answer did.
    ///
    /// # Errors
    /// When there is no usable answer in time, whatever the reason; it is counted and logged.
    pub async fn ask(&self, to: &MemberName, ask: &Ask, within: Duration) -> Result<Answer, Unreachable> {
        let inner = &self.0;
        inner.metrics.asked.inc();
        let answered = tokio::time::timeout(within, inner.ask(to, ask)).await.unwrap_or(Err(AskError::Late(within)));
        answered.map_err(|error| {
            inner.metrics.ask_error(error.reason());
            inner.log(to, &error);
            error.unreachable()
        })
    }
}

#[cfg(test)]
impl Peers {
    /// How many connections to this peer wait for the next question.
    pub(super) fn kept(&self, peer: &MemberName) -> usize {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).get(peer).map_or(0, Vec::len)
    }
}

impl Inner {
    async fn ask(&self, to: &MemberName, ask: &Ask) -> Result<Answer, AskError> {
        let address = self.addresses.borrow().get(to).copied().ok_or(AskError::NoAddress)?;
        let body = Bytes::from(write_ask(&self.set_uid, ask));
        // Every question may be asked twice: the protocol repeats them anyway. A kept connection may have been closed
        // by the other side, which shows only when it is used; a new one gets no second try.
        while let Some(connection) = self.take_kept(to, address) {
            match self.send(to, connection, body.clone()).await {
                Err(AskError::Broken(_)) => {}
                done => return done,
            }
        }
        let connection = self.connect(to, address).await?;
        self.send(to, connection, body).await
    }

    fn take_kept(&self, to: &MemberName, address: IpAddr) -> Option<Connection> {
        let generation = self.tls.current().generation;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = kept.get_mut(to)?;
        connections.retain(|c| {
            c.address == address && c.generation == generation && c.sender.is_ready() && c.made.elapsed() < LONGEST_USE
        });
        connections.pop()
    }

    fn keep(&self, to: &MemberName, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = kept.entry(to.clone()).or_default();
        if connections.len() < KEPT {
            connections.push(connection);
        }
    }

    async fn connect(&self, to: &MemberName, ip: IpAddr) -> Result<Connection, AskError> {
        let address = SocketAddr::new(ip, self.port);
        let no_connection = |why: String| AskError::Connect { address, why };
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| no_connection(format!("none within {} s", CONNECT.as_secs())))?
            .map_err(|e| match e.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable => AskError::Nobody(address),
                _ => no_connection(e.to_string()),
            })?;
        let _ = stream.set_nodelay(true);
        let not_trusted = |why: String| AskError::Handshake { address, why };
        // The name in the certificate must be the member's own: an address may belong to somebody else by now.
        let name = ServerName::try_from(to.to_string()).map_err(|e| not_trusted(e.to_string()))?;
        let loaded = self.tls.current();
        let stream = tokio::time::timeout(CONNECT, TlsConnector::from(loaded.client).connect(name, stream))
            .await
            .map_err(|_| not_trusted(format!("no handshake within {} s", CONNECT.as_secs())))?
            .map_err(|e| not_trusted(e.to_string()))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| not_trusted(error_chain(&e)))?;
        tokio::spawn(async move {
            // Its end shows in `sender`.
            let _ = connection.await;
        });
        Ok(Connection { sender, address: ip, generation: loaded.generation, made: Instant::now() })
    }

    async fn send(&self, to: &MemberName, mut connection: Connection, body: Bytes) -> Result<Answer, AskError> {
        let broken = |e: hyper::Error| AskError::Broken(error_chain(&e));
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(HOST, to.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| AskError::Broken(e.to_string()))?;
        let response = connection.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MESSAGE_LIMIT)
            .collect()
            .await
            .map_err(|e| AskError::Broken(e.to_string()))?
            .to_bytes();
        if status != StatusCode::OK {
            // Not kept: whoever cannot answer may be on its way out, and a new connection finds its successor.
            let why = String::from_utf8_lossy(&body).chars().take(300).collect();
            return Err(AskError::TurnedAway { status, why });
        }
        self.keep(to, connection);
        read_answer(&self.set_uid, &body).map_err(AskError::Message)
    }

    fn log(&self, to: &MemberName, error: &AskError) {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(to).is_some_and(|l| now.duration_since(*l) < LOG_EVERY) {
            return;
        }
        logged.insert(to.clone(), now);
        match error {
            // Versions that do not understand each other, or a wrong certificate: a person must know.
            AskError::Message(_)
            | AskError::Handshake { .. }
            | AskError::TurnedAway { status: StatusCode::BAD_REQUEST, .. } => {
                tracing::warn!("{to} gave no usable answer: {error}");
            }
            _ => tracing::debug!("{to} gave no usable answer: {error}"),
        }
    }
}
