//! The per-pod process of pgconvoy: it turns a pod with a stock PostgreSQL image into a member of a replica set.
//!
//! [`pgconvoy_ha`] decides; everything here carries out or reports. `docs/architecture.md` has the picture.

pub mod archive;
mod bootstrap;
pub mod clock;
pub mod coordination;
pub mod http;
pub mod peers;
pub mod place;
pub mod postgres;
pub mod record;
pub mod requests;
pub mod run;
pub mod settings;
mod status;
