//! Who lends keys: a security token service, the endpoint that a container is given, and an instance's metadata service, all on one
//! address of the loopback. The server that they are for lets them in until they expire.

use hyper::{Method, Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use s3s::{
    Body, S3Result,
    auth::{S3Auth, SecretKey},
    s3_error,
};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Keys by their ids, and until when they are good; none: for ever.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<String, Lent>>);

#[derive(Debug, Clone)]
struct Lent {
    secret: String,
    token: Option<String>,
    until: Option<Instant>,
}

impl Ledger {
    pub(crate) fn fixed(id: &str, secret: &str) -> Self {
        let ledger = Self::default();
        ledger.add(id, Lent { secret: secret.to_owned(), token: None, until: None });
        ledger
    }

    fn add(&self, id: &str, lent: Lent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), lent);
    }

    fn find(&self, id: &str) -> Option<Lent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Why a request with this key and session token is turned away, if it is.
    pub(crate) fn refuses(&self, id: &str, token: Option<&str>) -> Option<(&'static str, &'static str)> {
        let lent = self.find(id)?;
        if lent.until.is_some_and(|until| Instant::now() >= until) {
            return Some(("ExpiredToken", "The provided token has expired."));
        }
        (lent.token.as_deref() != token)
            .then_some(("InvalidToken", "The provided token is malformed or otherwise invalid."))
    }
}

/// The keys of a server, as s3s asks for them.
pub(crate) struct Auth(pub(crate) Arc<Ledger>);

#[async_trait::async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let lent = self.0.find(access_key);
        lent.map(|lent| SecretKey::from(lent.secret)).ok_or_else(|| s3_error!(InvalidAccessKeyId))
    }
}

/// How keys are lent.
#[derive(Debug, Clone)]
pub struct Lending {
    /// What must be shown: the service account's token, or the container's. The metadata service asks for nothing.
    pub shown: String,
    /// So long they are said to be good.
    pub announced: Duration,
    /// So long they are.
    pub lives: Duration,
}

#[derive(Debug, Default)]
struct State {
    lent: u32,
    refuses: Option<(u16, String, String)>,
}

/// A running lender. Dropping it ends it.
#[derive(Debug)]
pub struct Lender {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Lender {
    pub(crate) async fn start(ledger: Arc<Ledger>, lending: Lending) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state: Arc<Mutex<State>> = Arc::default();
        let counter = Arc::new(Counter { ledger, lending, state: state.clone() });
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let counter = counter.clone();
                        let service = service_fn(move |request: Request<Incoming>| {
                            let counter = counter.clone();
                            async move { Ok::<_, Infallible>(counter.answer(request).await) }
                        });
                        let mut http = hyper::server::conn::http1::Builder::new();
                        let serving = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                        connections.spawn(serving);
                    }
                }
            }
        });
        Ok(Self { address, state, accepting })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `http://127.0.0.1:port`: what `AWS_ENDPOINT_URL_STS` and `AWS_EC2_METADATA_SERVICE_ENDPOINT` say, and with `/lent` behind it
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often keys were lent.
    pub fn lent(&self) -> u32 {
        self.state().lent
    }

    /// From now on it refuses with this status, code and message; `None`: it lends again.
    pub fn refuse(&self, with: Option<(u16, &str, &str)>) {
        self.state().refuses = with.map(|(status, code, message)| (status, code.to_owned(), message.to_owned()));
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Where they are handed out.
struct Counter {
    ledger: Arc<Ledger>,
    lending: Lending,
    state: Arc<Mutex<State>>,
}

const ROLE: &str = "/latest/meta-data/iam/security-credentials/";

impl Counter {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let shown = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let refuses = self.state.lock().unwrap_or_else(PoisonError::into_inner).refuses.clone();
        if let Some((status, code, message)) = refuses {
            return text(
                status,
                format!(
                    "<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
                ),
            );
        }
        let body =
            http_body_util::BodyExt::collect(request.into_body()).await.map(|b| b.to_bytes()).unwrap_or_default();
        match (method, path.as_str()) {
            (Method::POST, "/") => self.assumed(&String::from_utf8_lossy(&body)),
            (Method::GET, "/lent") if shown.as_deref() == Some(&self.lending.shown) => text(200, self.json()),
            (Method::GET, "/lent") => text(401, String::new()),
            (Method::PUT, "/latest/api/token") => {
                let mut answer = text(200, "session".to_owned());
                let ttl = hyper::header::HeaderValue::from_static("21600");
                answer.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl);
                answer
            }
            (Method::GET, ROLE) => text(200, "backups".to_owned()),
            (Method::GET, path) if path == format!("{ROLE}backups") => text(200, self.json()),
            _ => text(404, String::new()),
        }
    }

    /// AssumeRoleWithWebIdentity.
    fn assumed(&self, form: &str) -> Response<Body> {
        let field = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        if field("Action") != Some("AssumeRoleWithWebIdentity")
            || field("WebIdentityToken") != Some(&self.lending.shown)
        {
            let refused = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>Incorrect token audience</Message>\
                           </Error></ErrorResponse>";
            return text(400, refused.to_owned());
        }
        let (id, secret, token, until) = self.lend();
        text(
            200,
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                 <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
                 <Expiration>{until}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
                 </AssumeRoleWithWebIdentityResponse>"
            ),
        )
    }

    fn json(&self) -> String {
        let (id, secret, token, until) = self.lend();
        format!(
            r#"{{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2026-01-01T00:00:00Z","AccessKeyId":"{id}","SecretAccessKey":"{secret}","Token":"{token}","Expiration":"{until}"}}"#
        )
    }

    fn lend(&self) -> (String, String, String, Timestamp) {
        let number = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.lent += 1;
            state.lent
        };
        let (id, secret, token) = (format!("ASLENT{number}"), format!("secret-{number}"), format!("token-{number}"));
        let until = Some(Instant::now() + self.lending.lives);
        self.ledger.add(&id, Lent { secret: secret.clone(), token: Some(token.clone()), until });
        let announced = i64::try_from(self.lending.announced.as_secs()).unwrap_or(i64::MAX);
        let until =
            Timestamp::from_second(Timestamp::now().as_second().saturating_add(announced)).unwrap_or(Timestamp::MAX);
        (id, secret, token, until)
    }
}

fn text(status: u16, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}
