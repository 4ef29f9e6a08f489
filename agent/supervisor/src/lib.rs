//! What the supervisor and its agent share: the socket protocol, and the clock that both containers read.
//!
//! The supervisor is PID 1 of the `postgres` container. It decides nothing: the agent, in a container of its own, asks
//! it over a Unix socket to start PostgreSQL and its tools, to signal them, and tells it until when PostgreSQL may run
//! without further news. When that time is over the supervisor kills every process of its PID namespace but itself,
//! whatever else hangs.
//!
//! A supervisor lives as long as its pod, so **newer agents must speak every older version** of [`protocol`].

#![forbid(unsafe_code)]

pub mod clock;
pub mod log_line;
pub mod protocol;
