//! The store's contract, against real servers: the embedded one, also with faults, and versitygw.

// A test may stop at anything that is not as it should be; clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unwrap_in_result)]

mod asked;
mod contract;
mod embedded;
mod faults;
mod lent;
mod ownership;
mod refusals;
mod retention;
mod shipping;
mod tls;
mod versitygw;
