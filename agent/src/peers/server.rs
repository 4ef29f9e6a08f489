//! Answers other agents.

use super::message::{read_ask, write_answer};
use super::tls::{Tls, member_in};
use super::{MESSAGE_LIMIT, Metrics, PATH};
use crate::settings::Identity;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pgconvoy_ha::{Answer, Ask};
use pgconvoy_terms::MemberName;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// So many questions are worked on at once; more are turned away.
const IN_FLIGHT: usize = 64;
/// So many connections may be open at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// How long an answer may take. Longer than askers wait would be no use to anybody.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long a connection may wait for its next question.
const IDLE: Duration = Duration::from_secs(60);
/// Pause when no connection can be accepted (out of file descriptors).
const CANNOT_ACCEPT: Duration = Duration::from_millis(100);

/// A question that came in, and where its answer goes. Dropped without an answer, the asker learns that at once.
#[derive(Debug)]
pub struct Asked {
    /// Who asks: the name in its certificate.
    pub from: MemberName,
    /// What.
    pub ask: Ask,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// Listens on `address` and puts every question into `asked`. The address listened on comes back with the task, which
/// ends only when the receiver is dropped.
///
/// # Errors
/// When the port cannot be had.
pub async fn serve(
    address: SocketAddr,
    me: &Identity,
    tls: Tls,
    asked: mpsc::Sender<Asked>,
    metrics: Metrics,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let server = Arc::new(Server {
        set: me.member.set().to_owned(),
        set_uid: me.set_uid.clone(),
        tls,
        asked,
        in_flight: Semaphore::new(IN_FLIGHT),
        metrics,
    });
    Ok((address, tokio::spawn(server.accept(listener))))
}

struct Server {
    set: String,
    set_uid: String,
    tls: Tls,
    asked: mpsc::Sender<Asked>,
    in_flight: Semaphore,
    metrics: Metrics,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.asked.closed() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let this = Arc::clone(&self);
                    tokio::spawn(async move {
                        this.connection(stream, peer).await;
                        drop(slot);
                    });
                }
                Err(why) => {
                    self.metrics.turn_away("accept");
                    tracing::debug!("no connection of another agent can be accepted: {why}");
                    tokio::time::sleep(CANNOT_ACCEPT).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.tls.current().server);
        let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => {
                self.metrics.turn_away("handshake");
                tracing::debug!("{peer} was turned away: {why}");
                return;
            }
            Err(_) => {
                self.metrics.turn_away("handshake");
                tracing::debug!("{peer} was turned away: no handshake within {} s", HANDSHAKE.as_secs());
                return;
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
        let from = certificate.map_or_else(|| Err("it showed no certificate".to_owned()), |c| member_in(c, &self.set));
        let from = match from {
            Ok(from) => from,
            Err(why) => {
                self.metrics.turn_away("name");
                tracing::debug!("{peer} was turned away: {why}");
                return;
            }
        };
        let service = service_fn(|request| {
            let (this, from) = (Arc::clone(&self), from.clone());
            async move { Ok::<_, Infallible>(this.answer(from, request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_headers(32)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(why) = served {
            tracing::trace!("the connection of {from} ended: {why}");
        }
    }

    async fn answer(&self, from: MemberName, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let refuse = |status, reason, why: &str| {
            self.metrics.turn_away(reason);
            tracing::debug!("a question of {from} was turned away: {why}");
            sentence(status, why)
        };
        if request.uri().path() != PATH {
            return refuse(StatusCode::NOT_FOUND, "path", "there is nothing at this path");
        }
        if request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "method", "questions are posted");
        }
        let Ok(_slot) = self.in_flight.try_acquire() else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many questions at once");
        };
        let body = tokio::time::timeout(ANSWER, Limited::new(request.into_body(), MESSAGE_LIMIT).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(why)) if why.is::<http_body_util::LengthLimitError>() => {
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, "size", "a question has at most 1 MiB");
            }
            Ok(Err(why)) => return refuse(StatusCode::BAD_REQUEST, "body", &why.to_string()),
            Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "body", "the question did not arrive in time"),
        };
        let ask = match read_ask(&self.set_uid, &body) {
            Ok(ask) => ask,
            Err(why) => return refuse(StatusCode::BAD_REQUEST, "message", &why.to_string()),
        };
        let (answer, answered) = oneshot::channel();
        let asked = self.asked.send(Asked { from: from.clone(), ask, answer });
        let answered = tokio::time::timeout(ANSWER, async {
            asked.await.ok()?;
            answered.await.ok()
        });
        match answered.await {
            Ok(Some(answer)) => {
                self.metrics.answered.inc();
                let body = Full::new(Bytes::from(write_answer(&self.set_uid, &answer)));
                with_type(Response::new(body), "application/json")
            }
            Ok(None) => refuse(StatusCode::SERVICE_UNAVAILABLE, "unanswered", "the question was not answered"),
            Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "late", "no answer was found in time"),
        }
    }
}

fn sentence(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(why.to_owned())));
    *response.status_mut() = status;
    with_type(response, "text/plain; charset=utf-8")
}

fn with_type(mut response: Response<Full<Bytes>>, kind: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
