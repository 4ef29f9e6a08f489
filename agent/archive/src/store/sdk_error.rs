//! What the SDK's errors mean.

use super::error::Reason;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::ConnectorError};
use std::error::Error;

type Failure<E> = SdkError<E, HttpResponse>;

fn status<E>(e: &Failure<E>) -> u16 {
    e.raw_response().map_or(0, |r| r.status().as_u16())
}

/// There is an object of that name already.
pub(crate) fn is_exists<E: ProvideErrorMetadata>(e: &Failure<E>) -> bool {
    status(e) == 412 || e.code() == Some("PreconditionFailed")
}

/// Two conditional writes met, and the store wants to be asked again.
pub(crate) fn is_conflict<E: ProvideErrorMetadata>(e: &Failure<E>) -> bool {
    e.code() == Some("ConditionalRequestConflict") || (status(e) == 409 && e.code() == Some("OperationAborted"))
}

/// There is no such object. No other 404 means that: some stores answer 404 to an unknown access key.
pub(crate) fn is_absent<E: ProvideErrorMetadata>(e: &Failure<E>) -> bool {
    e.code() == Some("NoSuchKey")
}

/// An error with all its causes, each once.
pub(crate) fn chain(e: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(e);
    while let Some(e) = next {
        let text = e.to_string();
        if !said.iter().any(|s| s.contains(&text)) {
            said.push(text);
        }
        next = e.source();
    }
    said.join(": ")
}

fn caused_by<T: Error + 'static>(e: &(dyn Error + 'static)) -> bool {
    let mut next = Some(e);
    while let Some(e) = next {
        let inner = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if e.is::<T>() || inner.is_some_and(|i| i.is::<T>() || caused_by::<T>(i)) {
            return true;
        }
        next = e.source();
    }
    false
}

/// What an error code, or where there is none the HTTP status, means.
pub(crate) fn reason_of(code: &str, status: u16) -> Reason {
    match code {
        "NoSuchBucket" => Reason::NoBucket,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => Reason::Denied,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "NotSignedUp"
        | "XAdminUserNotFound"
        | "InvalidClientTokenId"
        | "ExpiredTokenException" => Reason::Credentials,
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "Redirect"
        | "IncorrectRegion" => Reason::Region,
        "RequestTimeTooSkewed" | "RequestExpired" => Reason::Clock,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "InternalError"
        | "RequestTimeout"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "503 SlowDown" => Reason::Busy,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" | "XAmzContentChecksumMismatch" => Reason::Damaged,
        "NotImplemented" | "MethodNotAllowed" => Reason::Unsupported,
        _ => match status {
            301 | 307 | 308 => Reason::Region,
            401 => Reason::Credentials,
            403 => Reason::Denied,
            429 | 500 | 502..=504 => Reason::Busy,
            501 => Reason::Unsupported,
            _ => Reason::Refused,
        },
    }
}

/// Why a call failed, and what there is to say about it.
pub(crate) fn explain<E>(e: &Failure<E>) -> (Reason, String)
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match e {
        SdkError::ServiceError(service) => {
            let status = status(e);
            let code = service.err().code().unwrap_or_default();
            let message = service.err().message().unwrap_or_default();
            let said = match (code, message) {
                ("", "") => format!("HTTP {status}"),
                (code, "") => code.to_owned(),
                ("", message) => format!("HTTP {status}, {message}"),
                (code, message) => format!("{code}, {message}"),
            };
            (reason_of(code, status), said)
        }
        SdkError::TimeoutError(_) => (Reason::Timeout, chain(e)),
        // The answer could not be read: a connection that was cut, or no S3 at all.
        SdkError::ResponseError(_) => (reason_of("", status(e)).min_unreachable(), chain(e)),
        _ if caused_by::<CredentialsError>(e) => (unlent(e), chain(e)),
        _ if caused_by::<rustls::Error>(e) => (Reason::Tls, chain(e)),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (Reason::Timeout, chain(e)),
        SdkError::DispatchFailure(_) => (Reason::Unreachable, chain(e)),
        _ => (Reason::Configuration, chain(e)),
    }
}

/// Why nobody lends credentials: whoever does cannot be reached, or will not.
fn unlent(e: &(dyn Error + 'static)) -> Reason {
    let mut next = Some(e);
    // What comes before it is the store's call, which was never made.
    while let Some(e) = next.filter(|e| !e.is::<CredentialsError>()) {
        next = e.source();
    }
    let timed_out = next.and_then(|e| e.downcast_ref()).is_some_and(|e| {
        matches!(e, CredentialsError::ProviderTimedOut(_))
            || ["timed out", "timeout"].iter().any(|w| chain(e).contains(w))
    });
    let unreached = next.and_then(Error::source).is_some_and(caused_by::<ConnectorError>);
    if timed_out || unreached { Reason::LenderAway } else { Reason::NotLent }
}

impl Reason {
    /// An answer that says nothing of itself counts as a broken connection.
    fn min_unreachable(self) -> Self {
        if self == Self::Refused { Self::Unreachable } else { self }
    }
}
