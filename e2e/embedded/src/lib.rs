//! A cluster in one program: an API server for the calls that pgconvoy makes, and a kubelet that runs the containers of
//! pods as processes of this machine. Nothing is simulated that pgconvoy is made of: operator, agents, supervisors and
//! PostgreSQL are the real programs.
//!
//! `docs/testing.md` says how it is used and what it is not.

pub mod api;
pub mod clock;
pub mod cluster;
pub mod failover;
pub mod http;
pub mod kubelet;
pub mod machine;
pub mod postgres;
pub mod store;
pub mod tour;
