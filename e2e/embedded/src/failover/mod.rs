//! Failovers on purpose: what can be done to a member of a set that runs on the embedded cluster, clients that remember what
//! they were told meanwhile, and what that must come to afterwards.
//!
//! The test `failover` draws plans from a seed; `./bench failover` measures single ones.

pub mod embedded;
pub mod history;
pub mod measure;
pub mod network;
pub mod patroni;
pub mod plan;
pub mod processes;
pub mod set;
pub mod strike;
mod tls;
pub mod writer;
