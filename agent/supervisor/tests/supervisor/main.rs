//! The supervisor as what it is: PID 1 of a PID namespace.
//!
//! Each test makes a namespace of its own with `unshare`, as root or not (a user namespace maps this user to that of
//! PostgreSQL). Where the kernel or a sandbox forbids that, a test says SKIPPED and why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]
#![allow(clippy::explicit_write, reason = "eprintln is captured by the test harness; SKIPPED must be seen")]

mod container;
mod database;
mod fencing;
mod figures;
mod log;
mod processes;
mod socket;
mod static_binary;
mod stopping;
