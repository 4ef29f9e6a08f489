//! The driver against real PostgreSQL servers, under real supervisors in namespaces of their own.
//!
//! Needs PostgreSQL in /usr/lib/postgresql and permission to make namespaces; says SKIPPED otherwise. As root, with
//! PGCONVOY_TEST_ROOT an unpacked image and PGCONVOY_TEST_POSTGRES its directory of PostgreSQL's programs, that one is
//! used.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; the lints' own exception covers #[test] functions only"
)]

mod archive;
mod archive_faults;
mod archive_full;
mod archiving;
mod certificates;
mod failover;
mod leading;
mod member;
mod step_down;
mod volume;
