//! What a server sees of a request before it looks at what is asked: its key and the region it was signed for, its time, and how
//! many others came with it.

use crate::{faults::Faults, lender::Ledger};
use hyper::{HeaderMap, StatusCode, header::AUTHORIZATION};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use s3s::Body;

/// How far a request's time may be away from the server's, as AWS has it.
const SKEW: i64 = 15 * 60;

/// The answer to a request that is turned away; `None`: it may come in.
pub(crate) fn turned_away(faults: &Faults, ledger: &Ledger, headers: &HeaderMap) -> Option<hyper::Response<Body>> {
    let (status, code, message) = refusal(faults, ledger, headers)?;
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    let mut answer = hyper::Response::new(Body::from(text));
    *answer.status_mut() = status;
    Some(answer)
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn refusal(faults: &Faults, ledger: &Ledger, headers: &HeaderMap) -> Option<(StatusCode, &'static str, String)> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if !faults.admits() {
        return Some((StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.".into()));
    }
    // Credential=<key>/<day>/<region>/s3/aws4_request
    let scope = text(AUTHORIZATION.as_str()).and_then(|a| a.split("Credential=").nth(1));
    let signed = |n: usize| scope.and_then(|c| c.split(['/', ',']).nth(n));
    if let Some(key) = signed(0)
        && let Some((code, message)) = ledger.refuses(key, text("x-amz-security-token"))
    {
        return Some((StatusCode::BAD_REQUEST, code, message.into()));
    }
    if let (Some(here), Some(there)) = (faults.region(), signed(2))
        && here != there
    {
        let why = format!("The authorization header is malformed; the region '{there}' is wrong; expecting '{here}'");
        return Some((StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed", why));
    }
    let sent = text("x-amz-date").and_then(|t| DateTime::strptime("%Y%m%dT%H%M%SZ", t).ok());
    let sent = sent.and_then(|t| t.to_zoned(TimeZone::UTC).ok()).map(|t| t.timestamp().as_second());
    if let Some(sent) = sent
        && (now() + faults.clock_offset() - sent).abs() > SKEW
    {
        let why = "The difference between the request time and the current time is too large.".into();
        return Some((StatusCode::FORBIDDEN, "RequestTimeTooSkewed", why));
    }
    None
}
