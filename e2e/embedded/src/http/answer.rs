//! An answer, until it is bytes.

use crate::api::refusal::Refusal;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode, header};
use serde_json::Value;
use std::convert::Infallible;

/// What is sent back.
pub(super) enum Answer {
    Json {
        code: u16,
        body: Value,
        warnings: Vec<String>,
    },
    Text(Bytes),
    /// Objects, a line each, until the stream ends.
    Stream(futures::stream::BoxStream<'static, Bytes>, &'static str),
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Answer::Json { code: refusal.code, body: refusal.to_value(), warnings: vec![] }
    }
}

impl Answer {
    /// A success.
    pub(super) fn ok(body: Value) -> Self {
        Answer::Json { code: 200, body, warnings: vec![] }
    }

    pub(super) fn into_response(self) -> Response<BoxBody<Bytes, Infallible>> {
        let (code, kind, body, warnings) = match self {
            Answer::Json { code, body, warnings } => {
                (code, "application/json", Full::new(Bytes::from(body.to_string())).boxed(), warnings)
            }
            Answer::Text(bytes) => (200, "text/plain", Full::new(bytes).boxed(), vec![]),
            Answer::Stream(stream, kind) => {
                use futures::StreamExt as _;
                let frames = stream.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
                // Sync is asked for, and a mutex gives it.
                (200, kind, BodyExt::boxed(StreamBody::new(SyncStream::new(frames))), vec![])
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
        for warning in warnings {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = header::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                headers.append(header::WARNING, value);
            }
        }
        response
    }
}

/// A stream that only one ever polls.
struct SyncStream<S>(std::sync::Mutex<std::pin::Pin<Box<S>>>);

impl<S> SyncStream<S> {
    fn new(stream: S) -> Self {
        Self(std::sync::Mutex::new(Box::pin(stream)))
    }
}

impl<S: futures::Stream> futures::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut().poll_next(cx)
    }
}
