//! Fetching: what PostgreSQL's `restore_command` asks for.
//!
//! A [`Fetcher`] knows the way to one epoch: the epoch itself, and its ancestors up to their forks. It answers file by
//! file, and has the next segments on disk before they are asked for, so that an answer is a rename.

mod chain;
mod error;
mod exchange;
mod fetcher;
mod segment;
mod unpack;

pub use chain::{Chain, Link};
pub use error::Error;
pub use exchange::Exchange;
pub use fetcher::{Fetched, Fetcher, Options};
