//! The client against real PostgreSQL servers: every installation in /usr/lib/postgresql, and those in
//! `PGCONVOY_TEST_POSTGRES` (folders of programs, separated by colons). Without any, each test says SKIPPED.

// A test may stop at anything that is not as it should be; clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unwrap_in_result)]

mod backup;
mod basics;
mod certificates;
mod fakes;
mod faults;
mod network;
mod server;
mod speed;
mod streaming;
