//! The driver against real PostgreSQL servers, under real supervisors in namespaces of their own.
//!
//! Needs PostgreSQL in /usr/lib/postgresql (or PGCONVOY_TEST_POSTGRES) and permission to make namespaces; says SKIPPED
//! otherwise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; the lints' own exception covers #[test] functions only"
)]

mod certificates;
mod failover;
mod leading;
mod member;
mod volume;
