//! What agents say to each other: JSON over HTTP/1.1 over mutual TLS, one question and one answer.
//!
//! The asker's name is the one in its certificate, signed by the set's own authority; nothing in a message can change
//! it. A peer that does not answer in time, answers nonsense or cannot be reached is [`pgconvoy_ha::Unreachable`],
//! which proves nothing.

mod client;
mod expiry;
mod message;
mod metrics;
mod server;
mod tls;

pub use client::Peers;
pub use expiry::watch_expiry;
pub use metrics::Metrics;
pub use server::{Asked, serve};
pub use tls::{Tls, TlsError};

/// The only path.
const PATH: &str = "/v1/ask";
/// The largest message, in bytes. A term with a full chain and history is about 40 kB.
const MESSAGE_LIMIT: usize = 1 << 20;

#[cfg(test)]
mod tests;
