//! What the driver knows of its own deeds, beside what can be seen from outside. Shared with the observer.

use pgconvoy_ha::{Data, RuleInForce};
use pgconvoy_terms::{Epoch, Position};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What was established, and holds until it is taken back.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The newest want that was reached.
    pub(crate) applied: u64,
    /// What is on the volume.
    pub(crate) data: Data,
    /// Why the newest want is not reached.
    pub(crate) problem: Option<String>,
    /// [`pgconvoy_ha::Local::in_vain`].
    pub(crate) in_vain: Option<u64>,
    /// How much of the log there is; only while it is certain that nothing is received.
    pub(crate) position: Option<Position>,
    /// Which rule is in force to the letter, and in which epoch.
    pub(crate) in_force: Option<(Epoch, RuleInForce)>,
    /// The epoch whose row was committed under its rule.
    pub(crate) barrier: Option<Epoch>,
    /// Whether clients are let in.
    pub(crate) gate: bool,
    /// [`pgconvoy_ha::Local::shutdown`].
    pub(crate) shutdown: Option<Position>,
}

/// What is known, who wants to hear of changes, and a count of them.
#[derive(Debug)]
pub(crate) struct Facts {
    inner: Mutex<(Known, u64)>,
    /// Rings when something changed: look again.
    pub(crate) changed: Notify,
}

impl Facts {
    pub(crate) fn new() -> Self {
        let known = Known {
            applied: 0,
            data: Data::Unknown,
            problem: None,
            in_vain: None,
            position: None,
            in_force: None,
            barrier: None,
            gate: false,
            shutdown: None,
        };
        Self { inner: Mutex::new((known, 0)), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, (Known, u64)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, and the count of changes so far: an observation that began at another count is stale.
    pub(crate) fn read(&self) -> (Known, u64) {
        self.lock().clone()
    }

    pub(crate) fn known(&self) -> Known {
        self.lock().0.clone()
    }

    /// Changes what is known.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Known)) {
        {
            let mut inner = self.lock();
            change(&mut inner.0);
            inner.1 += 1;
        }
        self.changed.notify_one();
    }

    /// The server that all this was true of is gone, or about to be changed.
    pub(crate) fn forget_server(&self) {
        self.set(|k| {
            k.position = None;
            k.in_force = None;
            k.barrier = None;
            k.gate = false;
        });
    }
}
