//! Watching objects for as long as the process lives.

use super::Metrics;
use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher::watcher};
use rand::Rng;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

/// How long the server lets one watch run.
const WATCH_SECONDS: u32 = 120;
/// A stream that says nothing for so long is taken for stuck and begun anew; the read that a new one begins with is one
/// object, or the few pods of one set.
const QUIET: Duration = Duration::from_secs(180);

/// Who takes what a watch sees.
pub(crate) trait Watching<K>: Send {
    /// Takes one event.
    fn take(&mut self, event: Event<K>) -> impl Future<Output = ()> + Send;
}

/// Watches until the process ends. `what` names the objects in the log.
pub(crate) async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    metrics: Metrics,
    mut watching: impl Watching<K>,
) where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = config.timeout(WATCH_SECONDS);
    let mut broken = false;
    loop {
        let mut stream = pin!(watcher(api.clone(), config.clone()).backoff(Delays::default()));
        loop {
            match tokio::time::timeout(QUIET, stream.next()).await {
                Ok(Some(Ok(event))) => {
                    // `Init` is said before anything was asked of the server.
                    if broken && !matches!(event, Event::Init) {
                        tracing::info!("the watch of {what} works again");
                        broken = false;
                    }
                    watching.take(event).await;
                }
                Ok(Some(Err(error))) => {
                    metrics.watch_errors.inc();
                    let why = super::error::chain(&error);
                    if broken {
                        tracing::debug!("the watch of {what} still does not work: {why}");
                    } else {
                        tracing::warn!("the watch of {what} broke off and is tried again: {why}");
                    }
                    broken = true;
                }
                Ok(None) | Err(_) => break,
            }
        }
    }
}

/// Everything of `api`, whatever its content: one object that does not parse must not stop the watch.
pub(crate) fn untyped<K>(client: kube::Client, namespace: &str) -> Api<DynamicObject>
where
    K: kube::Resource<DynamicType = ()>,
{
    Api::namespaced_with(client, namespace, &ApiResource::erase::<K>(&()))
}

/// 50 ms doubling to 1 s, half of it random, so that not all agents come back to a restarted server at once.
#[derive(Debug, Default)]
struct Delays {
    failures: u32,
    last: Option<Instant>,
}

impl Delays {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);
    /// Peace for so long, and the next failure counts as the first again.
    const FORGET: Duration = Duration::from_secs(5);

    fn step(&mut self) -> Duration {
        let now = Instant::now();
        if self.last.is_some_and(|l| now.duration_since(l) > Self::FORGET) {
            self.failures = 0;
        }
        self.last = Some(now);
        let whole = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.step();
        Some(whole.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }
}

impl Backoff for Delays {
    fn reset(&mut self) {
        // Called after every success, and the watcher counts "about to list" as one: peace is what resets, see `step`.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_whatever_the_watcher_calls_success() {
        let mut d = Delays::default();
        let mut steps = vec![];
        for _ in 0..8 {
            steps.push(d.step().as_millis());
            d.reset();
        }
        assert_eq!(steps, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        d.last = Instant::now().checked_sub(Duration::from_secs(6));
        assert_eq!(d.step().as_millis(), 50);
        for _ in 0..100 {
            let jittered = d.next().unwrap();
            assert!(jittered >= Duration::from_millis(50) && jittered <= Delays::LONGEST);
        }
    }
}
