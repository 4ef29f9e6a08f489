//! The set's Lease: orders those who want to open an epoch.
//!
//! [`election`] decides, purely; this file carries out. There is no watch on it: whoever wants the Lease looks once a
//! second, everybody else every three, so the time that a silent holder is given is already running when the Lease is
//! wanted.

mod election;

use self::election::{Deed, Election, Seen, Write};
use super::error::call;
use super::{ApiError, Metrics};
use crate::clock;
use crate::settings::Identity;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use pgconvoy_ha::Instant;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the agent may stand still, waiting for its disk for example, before the Lease is no longer renewed for it.
const STANDSTILL: Duration = Duration::from_secs(5);

/// What the agent wants of the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseWish {
    /// To hold it.
    pub wanted: bool,
    /// It does no more than order those who want to open an epoch: a holder whose pod is gone is not waited for. (What runs on
    /// of such a pod may open an epoch beside this one; pledges keep that harmless. Where the clock is what ends an epoch it
    /// would not be.)
    pub orders: bool,
}

/// Keeps the Lease while `wanted`, and says whether it is held. Given up when no longer wanted; the next one takes it
/// at once then. `held` is false early enough before anybody else can take it. `stepped`: when the agent decided anything last, on
/// this process's clock in milliseconds; one that decides nothing any more lets the Lease run out.
///
/// The task ends only when the sender of `wanted` is dropped; the Lease then runs out by itself.
pub fn keep_lease(
    client: Client,
    me: &Identity,
    wanted: watch::Receiver<LeaseWish>,
    held: watch::Sender<bool>,
    stepped: Arc<AtomicU64>,
    metrics: Metrics,
) -> JoinHandle<()> {
    let keeper = Keeper {
        pods: Api::namespaced(client.clone(), &me.namespace),
        api: Api::namespaced(client, &me.namespace),
        name: me.member.set().to_owned(),
        latest: None,
        election: Election::new(format!("{}/{}", me.member, me.pod_uid), clock::now()),
        missing: false,
        stepped,
        metrics,
    };
    tokio::spawn(keeper.run(wanted, held))
}

struct Keeper {
    api: Api<Lease>,
    pods: Api<Pod>,
    name: String,
    latest: Option<Lease>,
    election: Election,
    missing: bool,
    stepped: Arc<AtomicU64>,
    metrics: Metrics,
}

impl Keeper {
    async fn run(mut self, mut wanted: watch::Receiver<LeaseWish>, held: watch::Sender<bool>) {
        loop {
            let now = clock::now();
            if Duration::from_millis(now.since(Instant(self.stepped.load(Ordering::Relaxed)))) > STANDSTILL {
                say(&held, self.election.held_until(now).is_some());
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            let wish = *wanted.borrow_and_update();
            let deed = self.election.next(now, wish.wanted);
            let until = self.election.held_until(now);
            say(&held, until.is_some());
            match deed {
                Deed::Wait(then) => {
                    // CLOCK_BOOTTIME runs while the machine sleeps, the timer does not: look again soon.
                    let then = until.map_or(then, |u| u.min(then));
                    let pause = clock::until(now, then).min(Duration::from_secs(1));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        changed = wanted.changed() => if changed.is_err() { return },
                    }
                }
                Deed::Read => while_held(self.read(wish), until, &held).await,
                Deed::Write(write) => while_held(self.write(write), until, &held).await,
            }
        }
    }

    async fn read(&mut self, wish: LeaseWish) {
        let result = call(&format!("reading Lease {}", self.name), self.api.get(&self.name)).await;
        let now = clock::now();
        match result {
            Ok(lease) => {
                self.missing = false;
                let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
                self.saw(lease, now);
                if wish.wanted && wish.orders && holder != self.election.me() && self.is_gone(&holder).await {
                    tracing::info!(holder, "the pod that holds the Lease is gone: it is not waited for");
                    self.election.gone(&holder);
                }
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn saw(&mut self, lease: Lease, now: Instant) {
        let spec = lease.spec.clone().unwrap_or_default();
        self.election.saw(
            now,
            Seen {
                holder: spec.holder_identity.filter(|h| !h.is_empty()),
                marks: (
                    spec.renew_time.map(|t| t.0.as_microsecond()),
                    spec.acquire_time.map(|t| t.0.as_microsecond()),
                    spec.lease_transitions,
                ),
                seconds: spec.lease_duration_seconds,
            },
        );
        self.latest = Some(lease);
    }

    async fn write(&mut self, write: Write) {
        let Some(mut lease) = self.latest.clone() else { return };
        let old = lease.spec.take().unwrap_or_default();
        lease.metadata.managed_fields = None;
        lease.spec = Some(written(&old, write, self.election.me(), clock::wall()));
        let (verb, sent) = (write.verb(), clock::now());
        let what = format!("{verb} Lease {}", self.name);
        let result = call(&what, self.api.replace(&self.name, &PostParams::default(), &lease)).await;
        let now = clock::now();
        match result {
            Ok(lease) => {
                self.metrics.lease_writes.inc();
                tracing::debug!("{what}: done");
                self.saw(lease, now);
                self.election.wrote(sent, write);
            }
            Err(error) => self.failed(&error, now),
        }
    }

    /// Whether the pod of this name and UID is there no more. `false` when that cannot be told.
    async fn is_gone(&self, holder: &str) -> bool {
        let Some((pod, uid)) = holder.split_once('/') else { return false };
        match call(&format!("reading pod {pod}"), self.pods.get_metadata(pod)).await {
            Ok(found) => found.metadata.uid.is_some_and(|u| u != uid),
            Err(ApiError::Missing { .. }) => true,
            Err(error) => {
                tracing::debug!("{error}");
                false
            }
        }
    }

    fn failed(&mut self, error: &ApiError, now: Instant) {
        self.metrics.lease_errors.inc();
        if let ApiError::Missing { .. } = error {
            if !std::mem::replace(&mut self.missing, true) {
                tracing::warn!("{error}; the operator makes it again");
            }
            self.latest = None;
            self.election.missing(now);
        } else {
            tracing::debug!("{error}");
            self.election.failed(now);
        }
    }
}

fn say(held: &watch::Sender<bool>, holds: bool) {
    held.send_if_modified(|h| std::mem::replace(h, holds) != holds);
}

/// Carries out a call, and says in time when the Lease runs out under it.
async fn while_held(work: impl Future<Output = ()>, until: Option<Instant>, held: &watch::Sender<bool>) {
    let mut work = pin!(work);
    if let Some(until) = until {
        tokio::select! {
            () = &mut work => return,
            () = tokio::time::sleep(clock::until(clock::now(), until)) => say(held, false),
        }
    }
    work.await;
}

/// The Lease after this write. Its times are for people and to be seen changing; nobody compares them with a clock.
fn written(old: &LeaseSpec, write: Write, me: &str, now: Timestamp) -> LeaseSpec {
    let mut spec = LeaseSpec {
        lease_duration_seconds: Some(election::DURATION_SECONDS),
        renew_time: Some(MicroTime(now)),
        ..old.clone()
    };
    match write {
        Write::Renew => {}
        Write::Take => {
            spec.holder_identity = Some(me.to_owned());
            spec.acquire_time = Some(MicroTime(now));
            spec.lease_transitions = Some(old.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        Write::Release => spec.holder_identity = Some(String::new()),
    }
    spec
}
