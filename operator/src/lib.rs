//! The operator of pgconvoy: it makes what a PgReplicaSet needs (pods, volumes, Services, certificates), and says how it
//! stands. It never decides who leads, and no failover needs it.
//!
//! [`world`] is what it knows, [`replica_set`] what it does with that, [`election`] which of several processes does it.

#![forbid(unsafe_code)]

pub mod client;
pub mod election;
mod hash;
pub mod http;
pub mod kinds;
pub mod metrics;
mod quantity;
pub mod replica_set;
pub mod run;
pub mod schedules;
pub mod world;
