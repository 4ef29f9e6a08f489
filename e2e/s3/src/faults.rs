//! What goes wrong, to order.

use hyper::{HeaderMap, StatusCode};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// PutObject.
    Put,
    /// GetObject.
    Get,
    /// HeadObject.
    Head,
    /// ListObjectsV2.
    List,
    /// DeleteObject and DeleteObjects.
    Delete,
    /// CreateMultipartUpload.
    CreateUpload,
    /// UploadPart.
    UploadPart,
    /// CompleteMultipartUpload.
    CompleteUpload,
    /// AbortMultipartUpload.
    AbortUpload,
    /// HeadBucket.
    HeadBucket,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with 503 SlowDown; nothing is done.
    SlowDown,
    /// It is refused with 403 AccessDenied; nothing is done.
    AccessDenied,
    /// It is refused with 403 RequestTimeTooSkewed, as a server does that sees another time; nothing is done.
    ClockSkew,
    /// It is refused with 400 ExpiredToken; nothing is done.
    ExpiredToken,
    /// It is refused with this status, code and message; nothing is done.
    Refused(u16, &'static str, &'static str),
    /// It is done, and answered with 500 InternalError.
    DoneButAnswered500,
    /// It is done, and the connection is cut instead of an answer.
    DoneButCut,
    /// The connection is cut; nothing is done.
    Cut,
    /// The answer's body ends half-way (GET).
    TornBody,
    /// One bit of the answer's body is flipped (GET).
    WrongBytes,
}

/// What came with a request that creates an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Put or CreateUpload.
    pub operation: Operation,
    /// The object.
    pub key: String,
    /// The headers of S3's own, in small letters.
    pub headers: BTreeMap<String, String>,
}

/// So many of the last requests are remembered.
const REMEMBERED: usize = 1024;

#[derive(Debug)]
struct Order {
    operation: Operation,
    key_part: String,
    fault: Fault,
    left: u32,
}

#[derive(Debug)]
struct State {
    orders: Vec<Order>,
    latency: Duration,
    bytes_per_second: Option<u64>,
    conditional_writes: bool,
    counted: BTreeMap<Operation, u64>,
    asked: VecDeque<Asked>,
    region: Option<String>,
    /// Seconds by which the server's clock is ahead.
    clock_offset: i64,
    requests_per_second: Option<u32>,
    /// The second that is counted, and how many requests it has seen.
    second: Option<(Instant, u32)>,
}

/// The faults of one server. All of it can be changed while requests run.
#[derive(Debug)]
pub struct Faults(Mutex<State>);

impl Default for Faults {
    fn default() -> Self {
        Self(Mutex::new(State {
            orders: Vec::new(),
            latency: Duration::ZERO,
            bytes_per_second: None,
            conditional_writes: true,
            counted: BTreeMap::new(),
            asked: VecDeque::new(),
            region: None,
            clock_offset: 0,
            requests_per_second: None,
            second: None,
        }))
    }
}

impl Faults {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `times` requests of this kind whose key contains `key_part` meet this fault. Orders wait for each other
    /// in the order in which they were given.
    pub fn order(&self, operation: Operation, key_part: &str, fault: Fault, times: u32) {
        self.state().orders.push(Order { operation, key_part: key_part.to_owned(), fault, left: times });
    }

    /// Forgets all orders.
    pub fn clear(&self) {
        self.state().orders.clear();
    }

    /// Each answer waits for this long.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Each body is taken and given no faster than this; `None`: as fast as it goes.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        self.state().bytes_per_second = bytes_per_second;
    }

    /// Whether If-None-Match and If-Match are honoured; if not, they are overlooked as old servers do.
    pub fn set_conditional_writes(&self, honoured: bool) {
        self.state().conditional_writes = honoured;
    }

    /// The server lies in this region: requests that were signed for another are refused with 400
    /// AuthorizationHeaderMalformed; `None`: it does not care.
    pub fn set_region(&self, region: Option<&str>) {
        self.state().region = region.map(str::to_owned);
    }

    /// The server's clock is so many seconds ahead: from 15 minutes on it refuses requests with 403 RequestTimeTooSkewed.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state().clock_offset = seconds;
    }

    /// Of each second so many requests are let in, and the others refused with 503 SlowDown; `None`: all are let in.
    pub fn set_requests_per_second(&self, limit: Option<u32>) {
        let mut state = self.state();
        (state.requests_per_second, state.second) = (limit, None);
    }

    pub(crate) fn region(&self) -> Option<String> {
        self.state().region.clone()
    }

    pub(crate) fn clock_offset(&self) -> i64 {
        self.state().clock_offset
    }

    /// Counts a request; whether there is room for it in this second.
    pub(crate) fn admits(&self) -> bool {
        let mut state = self.state();
        let Some(limit) = state.requests_per_second else { return true };
        let now = Instant::now();
        let (_, seen) = match &mut state.second {
            Some(second) if now.duration_since(second.0) < Duration::from_secs(1) => second,
            other => other.insert((now, 0)),
        };
        *seen += 1;
        *seen <= limit
    }

    /// How many requests of this kind have come, refused ones included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counted.get(&operation).copied().unwrap_or(0)
    }

    /// How many requests have come that create objects.
    pub fn writes(&self) -> u64 {
        self.count(Operation::Put) + self.count(Operation::CreateUpload) + self.count(Operation::UploadPart)
    }

    /// What came with the last requests that create objects, oldest first; those that were refused included.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.iter().cloned().collect()
    }

    pub(crate) fn remember(&self, operation: Operation, key: &str, headers: &HeaderMap) {
        let text = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            let value = value.to_str().ok()?.to_owned();
            name.as_str().starts_with("x-amz-").then(|| (name.as_str().to_owned(), value))
        };
        let asked = Asked { operation, key: key.to_owned(), headers: headers.iter().filter_map(text).collect() };
        let mut state = self.state();
        if state.asked.len() == REMEMBERED {
            state.asked.pop_front();
        }
        state.asked.push_back(asked);
    }

    pub(crate) fn honours_conditions(&self) -> bool {
        self.state().conditional_writes
    }

    /// How long a body of this length takes.
    pub(crate) fn time_for(&self, length: usize) -> Duration {
        match self.state().bytes_per_second {
            Some(rate) => Duration::from_secs_f64(length as f64 / rate.max(1) as f64),
            None => Duration::ZERO,
        }
    }

    /// Counts a request, waits, and takes the fault that is meant for it; one that does nothing is an error at once.
    pub(crate) async fn meet(&self, operation: Operation, key: &str) -> S3Result<Option<Fault>> {
        let (latency, fault) = {
            let mut state = self.state();
            *state.counted.entry(operation).or_default() += 1;
            let fits = |o: &Order| o.left > 0 && o.operation == operation && key.contains(&o.key_part);
            let fault = state.orders.iter_mut().find(|o| fits(o)).map(|order| {
                order.left -= 1;
                order.fault
            });
            (state.latency, fault)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match fault {
            Some(Fault::SlowDown) => Err(s3_error!(SlowDown, "Please reduce your request rate.")),
            Some(Fault::AccessDenied) => Err(s3_error!(AccessDenied, "Access Denied")),
            Some(Fault::ClockSkew) => Err(s3_error!(
                RequestTimeTooSkewed,
                "The difference between the request time and the server's time is too large."
            )),
            Some(Fault::ExpiredToken) => Err(s3_error!(ExpiredToken, "The provided token has expired.")),
            Some(Fault::Refused(status, code, message)) => {
                let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
                error.set_status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST));
                Err(error)
            }
            Some(Fault::Cut) => Err(cut()),
            other => Ok(other),
        }
    }
}

/// What a request that was done is answered under this fault.
pub(crate) fn afterwards(fault: Option<Fault>) -> S3Result<()> {
    match fault {
        Some(Fault::DoneButAnswered500) => Err(s3_error!(InternalError, "We encountered an internal error.")),
        Some(Fault::DoneButCut) => Err(cut()),
        _ => Ok(()),
    }
}

/// The code of an error that no client ever sees: the connection is cut instead.
pub(crate) const CUT: &str = "x-pgconvoy-cut";

fn cut() -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::Custom(CUT.into()));
    let mut headers = hyper::HeaderMap::new();
    headers.insert(CUT, hyper::header::HeaderValue::from_static("1"));
    error.set_headers(headers);
    error
}
