//! The custom resources of pgconvoy, group `pgconvoy.dev`, version `v1alpha1`.
//!
//! One file per kind. What stands here is what a user types: every field does something, has a default where one can
//! serve, and is checked by CEL in the CRD, so that a wrong value is refused by the API server with a sentence.
//! [`names`] and [`pod`] hold what operator and agent must agree on besides.

#![forbid(unsafe_code)]
#![allow(clippy::duplicated_attributes, reason = "it takes two columns of one type for the same column twice")]

mod archive;
pub mod conditions;
pub mod names;
pub mod parameters;
pub mod pod;
mod replica_set;
mod request;
mod rules;
mod schema;
mod snapshot;
mod snapshot_schedule;
mod term;

pub use archive::*;
pub use replica_set::*;
pub use request::*;
pub use schema::{Unbuildable, definitions};
pub use snapshot::*;
pub use snapshot_schedule::*;
pub use term::*;

/// The API group of every kind.
pub const GROUP: &str = "pgconvoy.dev";
/// The only version there is.
pub const VERSION: &str = "v1alpha1";
