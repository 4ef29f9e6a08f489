//! How a call to the API server can end when not well.

use super::CALL;
use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

/// How a call to the API server ended when not well. Each sentence begins with what was tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No answer within the deadline.
    #[error("{what}: no answer from the API server within {} s; it may have been done or not", CALL.as_secs())]
    NoAnswer {
        /// What was tried.
        what: String,
    },
    /// The server cannot be reached, has an internal error, or is too busy. It may have been done or not.
    #[error("{what}: the API server cannot serve it now: {why}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What came back.
        why: String,
    },
    /// Somebody else changed the object since it was read.
    #[error("{what}: somebody else changed it meanwhile")]
    Conflict {
        /// What was tried.
        what: String,
    },
    /// There is no such object.
    #[error("{what}: it does not exist")]
    Missing {
        /// What was tried.
        what: String,
    },
    /// The server does not accept it, and will not accept it again: content or permission.
    #[error("{what}: the API server refuses it: {why}")]
    Refused {
        /// What was tried.
        what: String,
        /// The server's sentence.
        why: String,
    },
    /// What came back is not what it should be.
    #[error("{what}: {why}")]
    Unreadable {
        /// What was tried.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ApiError {
    fn from_kube(what: &str, error: kube::Error) -> Self {
        let what = what.to_owned();
        let status = match error {
            kube::Error::Api(status) => status,
            kube::Error::SerdeError(e) => return Self::Unreadable { what, why: e.to_string() },
            other => return Self::Unavailable { what, why: chain(&other) },
        };
        let why = if status.message.is_empty() { status.reason } else { status.message };
        match status.code {
            409 => Self::Conflict { what },
            404 => Self::Missing { what },
            // A token that is being renewed and a busy server are no verdict on the content.
            401 | 429 => Self::Unavailable { what, why },
            400..500 => Self::Refused { what, why },
            code => Self::Unavailable { what, why: format!("{code} {why}") },
        }
    }
}

/// One call, with its deadline; `what` begins the sentence of an error.
pub(crate) async fn call<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    within(CALL, what, call).await
}

async fn within<T>(deadline: Duration, what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(done) => done.map_err(|e| ApiError::from_kube(what, e)),
        Err(_) => Err(ApiError::NoAnswer { what: what.to_owned() }),
    }
}

/// An error with its causes, each once: libraries differ in whether an error's text repeats its cause.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let part = c.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = c.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16) -> ApiError {
        ApiError::from_kube("it", kube::Error::Api(Box::new(Status::failure("why", "Reason").with_code(code))))
    }

    #[test]
    fn only_a_verdict_counts_as_one() {
        assert!(matches!(api(409), ApiError::Conflict { .. }));
        assert!(matches!(api(404), ApiError::Missing { .. }));
        for code in [400, 403, 405, 422] {
            assert!(matches!(api(code), ApiError::Refused { .. }), "{code}");
        }
        for code in [401, 429, 500, 503, 504] {
            assert!(matches!(api(code), ApiError::Unavailable { .. }), "{code}");
        }
    }

    #[tokio::test]
    async fn a_call_without_answer_ends() {
        let ended = within(Duration::from_millis(20), "reading", std::future::pending::<kube::Result<()>>()).await;
        assert_eq!(ended, Err(ApiError::NoAnswer { what: "reading".to_owned() }));
    }
}
