//! The Kubernetes API as the agent uses it: three watches (PgTerm, PgReplicaSet, pods), a Lease, and writes by name.
//!
//! Nothing here decides who leads. A watch is a hint; [`TermClient::read`] is proof; writes to PgTerm, Lease and
//! EndpointSlices carry the resourceVersion they are based on. Every call has a deadline, and one that passed it is
//! taken for *unknown*: it may have been done or not.

mod client;
mod endpoints;
mod error;
mod events;
mod lease;
mod metrics;
mod pods;
mod remembered;
mod snapshots;
mod spec;
mod status;
mod term;
mod watching;

pub use client::{ClientError, Clients};
pub use endpoints::publish;
pub use error::ApiError;
pub(crate) use error::{call, chain as error_chain};
pub use events::{About, Events};
pub use lease::{LeaseWish, keep_lease};
pub use metrics::Metrics;
pub use pods::{Pod, Pods, watch_pods};
pub use snapshots::{SnapshotClient, Snapshots, watch_snapshots};
pub use spec::{Watched, watch_spec};
pub use status::report;
pub use term::TermClient;
pub(crate) use watching::{Watching, follow, untyped};

use std::time::Duration;

/// How long one call to the API server may take. Short: a busy server looks like none. Long: a lost connection costs
/// as long before the next attempt.
pub const CALL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod live_tests;
