//! An S3 server in the test's own process, with faults to order.
//!
//! [`Server`] keeps its objects as files (`<root>/<bucket>/<key>`), so a test can look at them, damage them, or read them
//! with `zstd` and `tar` alone. It is `s3s` and `s3s-fs` with what those lack: conditional writes that hold against
//! racers, a checksum that is compared before anything is stored, and [`Faults`].
//!
//! A conditional write looks and writes under one lock per key. The lock is taken *after* the body has arrived: a
//! half-sent request must not keep others from the key.

#![forbid(unsafe_code)]

mod door;
mod faults;
mod keyed;
mod lender;
mod objects;
mod server;

pub use faults::{Asked, Fault, Faults, Operation};
pub use lender::{Lender, Lending};
pub use server::{Options, Server};
