//! Where WAL comes from.

use pgconvoy_terms::{Lsn, TimelineId};
use pgconvoy_wire::{Client, Config, Error, Event, Replication, ReplicationOptions, Status};
use std::{future::Future, time::Duration};

/// Opens streams of WAL; each time the last one broke, once more.
pub trait Source: Send {
    /// The stream.
    type Stream: Stream;

    /// Begins with the byte at `start`, on the epoch's timeline.
    fn open(&mut self, start: Lsn) -> impl Future<Output = Result<Self::Stream, Error>> + Send;
}

/// A stream of WAL, as [`pgconvoy_wire::Replication`] is one.
pub trait Stream: Send {
    /// The next event. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Result<Event, Error>> + Send;

    /// Tells the server what was received, and what is in the archive.
    fn confirm(&mut self, received: Lsn, archived: Lsn) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A running PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// How to connect. The session's `wal_sender_timeout` should be 30 s at least: while the store is slow nothing is
    /// read for some time.
    pub config: Config,
    /// The epoch's timeline.
    pub timeline: TimelineId,
    /// A slot whose position follows the archive. The server then ends its stop only when all WAL is in the archive.
    ///
    /// `None`: the server counts WAL as safe once it was received, so that its stop waits for nothing; WAL that is not
    /// archived yet is kept by a slot that is advanced by SQL (`pg_replication_slot_advance`) as the archive grows.
    pub slot: Option<String>,
    /// Silence after which the server counts as dead.
    pub idle_timeout: Duration,
}

/// The stream of a running PostgreSQL.
#[derive(Debug)]
pub struct PostgresStream {
    replication: Replication,
    by_slot: bool,
}

impl Source for Postgres {
    type Stream = PostgresStream;

    async fn open(&mut self, start: Lsn) -> Result<PostgresStream, Error> {
        let options = ReplicationOptions {
            slot: self.slot.clone(),
            start,
            timeline: Some(self.timeline),
            idle_timeout: self.idle_timeout,
        };
        let replication = Client::connect(&self.config).await?.start_replication(&options).await?;
        Ok(PostgresStream { replication, by_slot: self.slot.is_some() })
    }
}

impl Stream for PostgresStream {
    async fn next(&mut self) -> Result<Event, Error> {
        self.replication.next().await
    }

    async fn confirm(&mut self, received: Lsn, archived: Lsn) -> Result<(), Error> {
        let safe = if self.by_slot { archived.min(received) } else { received };
        self.replication.send_status(Status { write: received, flush: safe, apply: safe }).await
    }
}
