//! Failovers on purpose: what can be done to a member of a set that runs on the embedded cluster, clients that remember what
//! they were told meanwhile, and what that must come to afterwards.
//!
//! The test `failover` draws plans from a seed.

pub mod history;
pub mod network;
pub mod plan;
pub mod processes;
pub mod set;
pub mod strike;
mod tls;
pub mod writer;
