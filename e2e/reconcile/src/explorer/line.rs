//! The line between an operator and the API server: every call waits until the driver lets it pass, and comes out as the
//! driver says.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response};
use kube::client::Body;
use pgconvoy_embedded::http::{Answered, Server};
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done and answered.
    Done,
    /// It is done, and nobody hears of it.
    DoneInSilence,
    /// It is not done, and answered with this code.
    Refused(u16),
    /// It is done, and answered with this code.
    DoneButRefused(u16),
}

/// A call that waits.
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    pass: oneshot::Sender<Fate>,
}

impl Call {
    /// Whether it is to change something.
    pub(super) fn writes(&self) -> bool {
        self.method != "GET"
    }

    /// Lets it pass.
    pub(super) fn pass(self, fate: Fate) {
        // Who does not wait any more was given up by a deadline of its own.
        let _ = self.pass.send(fate);
    }
}

/// The operator's end.
#[derive(Clone)]
pub(super) struct Line {
    server: Server,
    waiting: Arc<Mutex<VecDeque<Call>>>,
    written: Arc<AtomicU32>,
}

impl Line {
    pub(super) fn new(server: Server) -> Self {
        Self { server, waiting: Arc::default(), written: Arc::default() }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Takes the call at this place of the queue.
    pub(super) fn take(&self, at: usize) -> Option<Call> {
        self.queue().remove(at)
    }

    /// How many writes were answered with success.
    pub(super) fn written(&self) -> u32 {
        self.written.load(Ordering::Relaxed)
    }
}

impl tower::Service<Request<Body>> for Line {
    type Response = Response<Answered>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (pass, passed) = oneshot::channel();
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let writes = method != "GET";
        self.queue().push_back(Call { method, path, pass });
        let (server, written) = (self.server.clone(), self.written.clone());
        Box::pin(async move {
            let Ok(fate) = passed.await else { return std::future::pending().await };
            if let Fate::Refused(code) = fate {
                return Ok(refusal(code));
            }
            let Some(answer) = server.answer("operator", request).await else { return std::future::pending().await };
            match fate {
                Fate::DoneInSilence => std::future::pending().await,
                Fate::DoneButRefused(code) => Ok(refusal(code)),
                Fate::Done | Fate::Refused(_) => {
                    if writes && answer.status().is_success() {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(answer)
                }
            }
        })
    }
}

fn refusal(code: u16) -> Response<Answered> {
    let (reason, message) = match code {
        409 => ("Conflict", "refused on purpose: a conflict"),
        504 => ("Timeout", "refused on purpose: too late"),
        _ => ("InternalError", "refused on purpose"),
    };
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response
}
