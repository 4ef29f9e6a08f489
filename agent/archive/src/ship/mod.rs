//! Shipping: WAL from PostgreSQL's replication stream into the archive, within a second.
//!
//! [`begin`] claims an epoch; [`ship`] then streams, cuts, compresses and stores until the timeline or the server ends.
//! What is cut when is decided by [`Cutter`], which knows no clock and no I/O.

mod cut;
mod framer;
mod progress;
mod records;
mod run;
mod source;
mod superseded;
mod survey;
mod transfer;
mod upload;

pub use cut::{Cutter, Effect, Event, Policy};
pub use progress::{Progress, Trouble};
pub use run::{End, Error, Options, begin, ship};
pub use source::{Postgres, PostgresStream, Source, Stream};
pub use survey::{Standing, survey};
