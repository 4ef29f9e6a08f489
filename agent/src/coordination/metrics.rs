//! What the coordination modules count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of the coordination modules; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) watch_errors: Counter,
    pub(super) lease_writes: Counter,
    pub(super) lease_errors: Counter,
    pub(super) endpoint_writes: Counter,
    pub(super) endpoint_errors: Counter,
    pub(super) status_writes: Counter,
    pub(super) status_errors: Counter,
    pub(super) events_written: Counter,
    pub(super) events_dropped: Counter,
}

impl Metrics {
    /// New counters, shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let mut add = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        add("watch_errors", "Watches of the Kubernetes API that broke off", &m.watch_errors);
        add("lease_writes", "Writes to the Lease that succeeded", &m.lease_writes);
        add("lease_errors", "Reads of and writes to the Lease that failed", &m.lease_errors);
        add("endpoint_writes", "Writes to EndpointSlices that succeeded", &m.endpoint_writes);
        add("endpoint_errors", "Reads of and writes to EndpointSlices that failed", &m.endpoint_errors);
        add("status_writes", "Writes of this member's status entry that succeeded", &m.status_writes);
        add("status_errors", "Writes of this member's status entry that failed", &m.status_errors);
        add("events_written", "Kubernetes Events written", &m.events_written);
        add("events_dropped", "Kubernetes Events lost: queue full or write failed", &m.events_dropped);
        m
    }
}
