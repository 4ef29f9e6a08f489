//! PgRequests: what a person asks for once. [`decide`] says what follows from them, [`watch`] and [`Writer`] carry it.

mod decide;
mod kubernetes;

#[cfg(test)]
mod tests;

pub use decide::{Deed, Seen, View, decide};
pub use kubernetes::{Requests, Writer, watch};
