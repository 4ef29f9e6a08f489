//! SQL over the Unix socket, as the superuser. Everything has a deadline here and a time-out there.

use super::Error;
use std::{path::PathBuf, str::FromStr, time::Duration};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{NoTls, SimpleQueryMessage, SimpleQueryRow};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the server may work on an ordinary statement.
pub(crate) const STATEMENT: Duration = Duration::from_secs(5);
/// How much longer than the server's own time-out we wait.
const GRACE: Duration = Duration::from_secs(2);

/// `application_name` of every session of the agent: those of others are ended before a promotion, these are not.
pub(crate) const AGENT: &str = "pgconvoy-agent";
/// `application_name` of the session that commits the epoch's row and may wait for the quorum for long.
pub(crate) const BARRIER: &str = "pgconvoy-barrier";

/// Where the server is.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) directory: PathBuf,
    pub(crate) port: u16,
}

/// One session.
pub(crate) struct Session {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// One row, all columns as text.
pub(crate) struct Row(SimpleQueryRow);

impl Row {
    /// A column; `None` is NULL.
    pub(crate) fn text(&self, column: usize) -> Option<&str> {
        self.0.try_get(column).ok().flatten()
    }

    /// A column that is a boolean; NULL is false.
    pub(crate) fn flag(&self, column: usize) -> bool {
        self.text(column) == Some("t")
    }

    /// A column that must be there and readable.
    pub(crate) fn get<T: FromStr>(&self, column: usize, doing: &'static str) -> Result<T, Error> {
        let text = self.text(column);
        text.and_then(|t| t.parse().ok())
            .ok_or_else(|| Error::Answer { doing, what: format!("column {} is {text:?}", column + 1) })
    }

    /// A column that may be NULL, and must be readable otherwise.
    pub(crate) fn maybe<T: FromStr>(&self, column: usize, doing: &'static str) -> Result<Option<T>, Error> {
        self.text(column).map(|_| self.get(column, doing)).transpose()
    }
}

impl Session {
    /// A session in the database `postgres` whose statements may take [`STATEMENT`].
    pub(crate) async fn open(address: &Address) -> Result<Self, Error> {
        Self::open_as(address, "postgres", AGENT, STATEMENT).await
    }

    /// A session in `database`, called `name`, whose statements may take `limit`.
    pub(crate) async fn open_as(address: &Address, database: &str, name: &str, limit: Duration) -> Result<Self, Error> {
        const DOING: &str = "connecting";
        let mut config = tokio_postgres::Config::new();
        // Whatever the user's settings are for everybody, for us they are these.
        let options = format!(
            "-c statement_timeout={} -c lock_timeout=3s -c idle_in_transaction_session_timeout=60s \
             -c idle_session_timeout=0 -c default_transaction_read_only=off -c search_path=pg_catalog \
             -c standard_conforming_strings=on -c client_min_messages=warning -c synchronous_commit=on \
             -c DateStyle=ISO -c row_security=off",
            limit.as_millis()
        );
        config
            .host_path(&address.directory)
            .port(address.port)
            .user(pgconvoy_crds::pod::SUPERUSER)
            .dbname(database)
            .application_name(name)
            .options(&options);
        let connected = timeout(CONNECT, config.connect(NoTls)).await;
        let connected = connected.map_err(|_| Error::Timeout { doing: DOING, after: CONNECT })?;
        let (client, connection) = connected.map_err(|source| Error::Sql { doing: DOING, source })?;
        let connection = tokio::spawn(async move {
            // Its error reaches the caller through the statement that it cuts off.
            drop(connection.await);
        });
        Ok(Self { client, connection })
    }

    /// Runs a statement that may take [`STATEMENT`].
    pub(crate) async fn rows(&self, doing: &'static str, sql: &str) -> Result<Vec<Row>, Error> {
        self.rows_within(doing, sql, STATEMENT + GRACE).await
    }

    /// Runs a statement, and gives up waiting after `within`.
    pub(crate) async fn rows_within(
        &self,
        doing: &'static str,
        sql: &str,
        within: Duration,
    ) -> Result<Vec<Row>, Error> {
        let answer = timeout(within, self.client.simple_query(sql)).await;
        let answer = answer.map_err(|_| Error::Timeout { doing, after: within })?;
        let messages = answer.map_err(|source| Error::Sql { doing, source })?;
        let row = |m| match m {
            SimpleQueryMessage::Row(row) => Some(Row(row)),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// Runs a statement that returns one row.
    pub(crate) async fn row(&self, doing: &'static str, sql: &str) -> Result<Row, Error> {
        let row = self.rows(doing, sql).await?.into_iter().next();
        row.ok_or_else(|| Error::Answer { doing, what: "no row".into() })
    }

    /// Runs a statement whose rows do not matter.
    pub(crate) async fn run(&self, doing: &'static str, sql: &str) -> Result<(), Error> {
        self.rows(doing, sql).await.map(drop)
    }
}

/// A string literal (with `standard_conforming_strings`).
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A quoted identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(literal("it's; \\"), "'it''s; \\'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
