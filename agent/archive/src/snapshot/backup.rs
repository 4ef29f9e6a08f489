//! The server's part: begin and end of a backup, in one session.

use super::error::Error;
use pgconvoy_terms::Lsn;
use pgconvoy_wire::{Client, Config, Mode};

/// A backup that has begun. Dropping it ends the session, and with it the backup.
#[derive(Debug)]
pub(super) struct Backup {
    client: Client,
}

/// What the server says at the end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) stop: Lsn,
    pub(super) label: String,
}

impl Backup {
    /// Begins with a checkpoint at once.
    pub(super) async fn begin(config: &Config, name: &str) -> Result<(Self, Lsn), Error> {
        let database = config.database.clone().or_else(|| Some("postgres".to_owned()));
        let mut client = Client::connect(&Config { mode: Mode::Database, database, ..config.clone() }).await?;
        // The name is checked: letters, digits, dashes.
        let sql = format!("SELECT pg_backup_start('pgconvoy {name}', true)");
        let rows = client.simple_query(&sql).await?;
        let start = lsn("pg_backup_start", rows.first().and_then(|r| r.first()).and_then(Option::as_deref))?;
        Ok((Self { client }, start))
    }

    pub(super) fn version(&self) -> (String, u32) {
        (self.client.server_version().to_owned(), self.client.server_major())
    }

    /// Ends it. WAL is shipped by us, so the server need not wait for it.
    pub(super) async fn end(mut self) -> Result<Ended, Error> {
        const CALL: &str = "pg_backup_stop";
        let rows = self.client.simple_query("SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)").await?;
        let column = |n: usize| rows.first().and_then(|r| r.get(n)).and_then(Option::as_deref);
        let stop = lsn(CALL, column(0))?;
        let label = column(1).ok_or_else(|| Error::Answer { call: CALL, answer: String::new() })?.to_owned();
        if let Some(map) = column(2).filter(|m| !m.is_empty()) {
            return Err(Error::Answer { call: CALL, answer: format!("a map of tablespaces: {map}") });
        }
        // That the connection ends is no matter any more.
        let _ = self.client.close().await;
        Ok(Ended { stop, label })
    }
}

fn lsn(call: &'static str, text: Option<&str>) -> Result<Lsn, Error> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|_| Error::Answer { call, answer: text.to_owned() })
}
