//! Shipping from real PostgreSQL servers, and getting it back. The servers are those of the replication client's tests.

// A test may stop at anything that is not as it should be; clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unwrap_in_result)]

#[allow(dead_code, reason = "written for the tests of another crate, which use more of it")]
#[path = "../../../wire/tests/postgres/certificates.rs"]
mod certificates;
#[allow(dead_code, reason = "written for the tests of another crate, which use more of it")]
#[path = "../../../wire/tests/postgres/server.rs"]
mod server;

mod bench;
mod fetching;
mod forks;
mod pace;
mod restored;
mod shipping;
mod snapshots;
mod stock_tools;
