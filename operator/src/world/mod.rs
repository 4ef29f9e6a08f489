//! What the operator knows of the cluster: one pruned, label-selected watch per kind, kept by replica set.
//!
//! Only what decisions need is kept (RSS: some hundred bytes for an object instead of tens of kilobytes), and nothing
//! secret. A change that is none after pruning, such as a renewed lease, wakes nobody.

mod dirty;
mod index;
pub mod prune;
mod watch;

pub use dirty::Dirty;
pub use index::{Index, Place};
pub use watch::{Scope, Synced, Taker, watch_all};

use pgconvoy_crds::PgReplicaSet;

/// A replica set by name.
pub type SetRef = kube::runtime::reflector::ObjectRef<Guarded>;

/// A replica set as it comes from the API server: one that cannot be read does not hide the others.
pub type Guarded = kube::core::DeserializeGuard<PgReplicaSet>;

/// The reference to set `name` in `namespace`.
pub fn set_ref(namespace: &str, name: &str) -> SetRef {
    SetRef::new(name).within(namespace)
}
