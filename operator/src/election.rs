//! Which of the operator's processes acts: one Lease, judged by this process's own clock.
//!
//! A candidate waits until the record has not changed for the duration it names, *as observed here, on a monotonic
//! clock*; whatever times stand in it are for people. Every write carries the resourceVersion that was read, so of two
//! who try one fails. Whoever leads and has not renewed for [`RENEW_DEADLINE`], counted from *before* the last renewal
//! that succeeded was sent, ends: that is sooner than anybody else may begin.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use rand::Rng;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

/// The Lease's name.
pub const LEASE: &str = "pgconvoy-operator";
/// How long others wait for a silent leader. Too short: a slow API server ends the leader. Too long: nobody acts while
/// it is dead.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long the leader itself goes on without a renewal; less than [`DURATION`].
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two renewals.
pub const RENEW: Duration = Duration::from_secs(4);
/// Between two looks of a candidate.
pub const LOOK: Duration = Duration::from_secs(2);
/// Deadline of one call.
pub const CALL: Duration = Duration::from_secs(3);
/// Deadline of giving the lease back at the end.
pub const RELEASE: Duration = Duration::from_millis(500);

/// Why leadership ended.
#[derive(Debug, Error)]
pub enum Lost {
    /// Somebody else holds the lease.
    #[error("the Lease {LEASE} is held by {0} now")]
    Taken(String),
    /// It could not be renewed in time.
    #[error("the Lease {LEASE} could not be renewed for {} s: {why}", RENEW_DEADLINE.as_secs())]
    NotRenewed {
        /// What went wrong last.
        why: String,
    },
}

/// What a candidate has seen of the lease, and since when it has not changed.
#[derive(Debug, Default)]
pub struct Watchdog {
    seen: Option<(String, Instant)>,
}

impl Watchdog {
    /// Whether a lease that reads so, now, may be taken over by `me`.
    pub fn may_take(&mut self, me: &str, lease: &Lease, now: Instant) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((v, since)) if *v == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        match spec.holder_identity.as_deref() {
            None | Some("") => true,
            Some(holder) if holder == me => true,
            Some(_) => {
                let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
                now.duration_since(since) > seconds.map_or(DURATION, Duration::from_secs)
            }
        }
    }
}

/// A candidate for the lease, and its holder.
pub struct Election {
    api: Api<Lease>,
    me: String,
    held: Option<Lease>,
    sent: Instant,
}

impl Election {
    /// A candidate named `me`.
    pub fn new(client: kube::Client, namespace: &str, me: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), me: me.to_owned(), held: None, sent: Instant::now() }
    }

    /// Waits until this process holds the lease.
    pub async fn acquire(&mut self) {
        let mut watchdog = Watchdog::default();
        let mut complained = false;
        loop {
            match self.try_acquire(&mut watchdog).await {
                Ok(true) => return,
                Ok(false) => complained = false,
                Err(error) if !std::mem::replace(&mut complained, true) => {
                    tracing::warn!(lease = LEASE, error, "cannot stand for election; trying on");
                }
                Err(_) => {}
            }
            sleep(LOOK.mul_f64(rand::rng().random_range(0.8..1.2))).await;
        }
    }

    async fn try_acquire(&mut self, watchdog: &mut Watchdog) -> Result<bool, String> {
        let sent = Instant::now();
        let found = within(self.api.get_opt(LEASE)).await?;
        let written = match found {
            None => within(self.api.create(&PostParams::default(), &self.record(None))).await,
            Some(lease) if watchdog.may_take(&self.me, &lease, Instant::now()) => {
                within(self.api.replace(LEASE, &PostParams::default(), &self.record(Some(&lease)))).await
            }
            Some(_) => return Ok(false),
        };
        self.held = Some(written?);
        self.sent = sent;
        Ok(true)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "times in a Lease are for people; it is judged by the monotonic clock"
    )]
    fn record(&self, before: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = before.and_then(|l| l.spec.clone()).unwrap_or_default();
        let mine = spec.holder_identity.as_deref() == Some(self.me.as_str());
        let metadata = before.map_or_else(
            || ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            |l| ObjectMeta { managed_fields: None, ..l.metadata.clone() },
        );
        let transitions = spec.lease_transitions.unwrap_or(0);
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: spec.acquire_time.filter(|_| mine).or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(if mine || before.is_none() { transitions } else { transitions + 1 }),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Renews the lease for as long as it can be renewed; returns why it no longer can.
    pub async fn keep(&mut self) -> Lost {
        loop {
            sleep(RENEW).await;
            if let Err(lost) = self.renew().await {
                return lost;
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Lost> {
        loop {
            let sent = Instant::now();
            let error = match self.renew_once().await {
                Ok(None) => {
                    self.sent = sent;
                    return Ok(());
                }
                Ok(Some(other)) => return Err(Lost::Taken(other)),
                Err(error) => error,
            };
            if self.sent.elapsed() + LOOK > RENEW_DEADLINE {
                return Err(Lost::NotRenewed { why: error });
            }
            tracing::warn!(lease = LEASE, error, "a renewal failed; trying again");
            sleep(LOOK / 4).await;
        }
    }

    /// One renewal. Returns who else holds the lease, if somebody does.
    async fn renew_once(&mut self) -> Result<Option<String>, String> {
        let left = RENEW_DEADLINE.saturating_sub(self.sent.elapsed()).min(CALL);
        let record = self.record(self.held.as_ref());
        let parameters = PostParams::default();
        match timeout(left, self.api.replace(LEASE, &parameters, &record)).await {
            Ok(Ok(lease)) => {
                self.held = Some(lease);
                Ok(None)
            }
            // Our own write may have arrived although its answer did not, or a person touched the lease: look.
            Ok(Err(kube::Error::Api(s))) if s.is_conflict() || s.is_not_found() => {
                let Some(there) = within(self.api.get_opt(LEASE)).await? else {
                    self.held = None;
                    return Err("it was deleted".to_owned());
                };
                let holder = there.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
                if holder != self.me {
                    return Ok(Some(holder));
                }
                self.held = Some(there);
                Err("it changed meanwhile".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Gives the lease back, so that the other process need not wait. Best effort, within [`RELEASE`].
    pub async fn release(&mut self) {
        let Some(mut lease) = self.held.take() else { return };
        lease.metadata.managed_fields = None;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let released = timeout(RELEASE, self.api.replace(LEASE, &PostParams::default(), &lease)).await;
        if !matches!(released, Ok(Ok(_))) {
            tracing::warn!(
                lease = LEASE,
                "the lease could not be given back; the other process waits until it is over"
            );
        }
    }
}

async fn within<T>(what: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match timeout(CALL, what).await {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => Err(format!("the API server did not answer within {} s", CALL.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, holder: &str, seconds: i32) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(seconds),
                // A clock that is hours off must not matter.
                renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_held_lease_is_taken_only_after_it_was_seen_unchanged_for_its_duration() {
        let mut w = Watchdog::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert!(!w.may_take("b", &lease("1", "a", 15), at(0)), "just seen, whatever its times say");
        assert!(!w.may_take("b", &lease("1", "a", 15), at(15)));
        assert!(!w.may_take("b", &lease("2", "a", 15), at(16)), "renewed");
        assert!(!w.may_take("b", &lease("2", "a", 15), at(31)));
        assert!(w.may_take("b", &lease("2", "a", 15), at(32)));
    }

    #[test]
    fn a_free_lease_and_ones_own_are_taken_at_once() {
        let now = Instant::now();
        assert!(Watchdog::default().may_take("b", &lease("1", "", 15), now));
        assert!(Watchdog::default().may_take("b", &lease("1", "b", 15), now));
    }

    #[test]
    fn the_leader_gives_up_before_anybody_may_begin() {
        assert!(RENEW_DEADLINE + CALL < DURATION);
        assert!(RENEW + CALL < RENEW_DEADLINE);
    }
}
