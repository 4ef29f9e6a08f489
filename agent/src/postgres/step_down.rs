//! Stopping a writable server for good, so that another can lead without anything being missing: the fast stop waits for
//! every WAL sender to have sent, and its client to have confirmed, the shutdown checkpoint.

use super::{
    Error,
    server::{Postgres, Running},
    sql::Session,
};
use pgconvoy_terms::{Lsn, Position, TimelineId};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long those who receive may take to confirm what was written before; whoever takes longer is not waited for.
const CONFIRM: Duration = Duration::from_millis(1_000);

impl Postgres {
    /// Checkpoints while it serves (the second has next to nothing to do, and then so has the one of the stop), and a
    /// look at who keeps up.
    pub(crate) async fn prepare_to_step_down(&self) -> Result<(), Error> {
        const DOING: &str = "preparing to stop";
        self.checkpoint().await?;
        self.checkpoint().await?;
        let Running::Primary { session, .. } = self.look().await? else { return Ok(()) };
        let written: Lsn = session.row(DOING, "SELECT pg_current_wal_flush_lsn()").await?.get(0, DOING)?;
        self.kept().confirmed = Some(written);
        let begun = Instant::now();
        while begun.elapsed() < CONFIRM && !laggards(&session, written).await?.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops it in an orderly way. Who receives from it and does not keep up is not waited for.
    pub(crate) async fn step_down(&self) -> Result<(), Error> {
        let confirmed = self.kept().confirmed.take();
        if let Some(written) = confirmed
            && let Err(e) = self.end_laggards(written).await
        {
            tracing::warn!(error = %e, "slow WAL senders could not be ended; stopping PostgreSQL may wait for them");
        }
        self.stop().await
    }

    async fn end_laggards(&self, written: Lsn) -> Result<(), Error> {
        let Running::Primary { session, .. } = self.look().await? else { return Ok(()) };
        for (pid, name) in laggards(&session, written).await? {
            tracing::warn!(pid, name, "ending a WAL sender whose client does not keep up, so that the stop is quick");
            session.run("ending a slow WAL sender", &format!("SELECT pg_terminate_backend({pid})")).await?;
        }
        Ok(())
    }

    /// Timeline and beginning of the shutdown checkpoint, if a writable server's stop wrote one and nothing ran since.
    pub(crate) async fn last_record(&self) -> Option<Position> {
        let data = match self.programs.control_data(&self.paths().pgdata).await {
            Ok(data) => data,
            Err(e) => {
                tracing::warn!(error = %e, "the control file cannot be read; the others do without this member");
                return None;
            }
        };
        let value = |label: &str| data.get(label).map(String::as_str);
        if value("Database cluster state") != Some("shut down") {
            return None;
        }
        let end = value("Latest checkpoint location")?.parse().ok()?;
        let timeline = TimelineId(value("Latest checkpoint's TimeLineID")?.parse().ok()?);
        Some(Position { timeline, end })
    }
}

/// WAL senders whose clients have not confirmed `written`.
async fn laggards(session: &Session, written: Lsn) -> Result<Vec<(i32, String)>, Error> {
    const DOING: &str = "looking at who keeps up";
    let sql = format!(
        "SELECT pid, coalesce(application_name, '') FROM pg_stat_replication \
         WHERE state IS DISTINCT FROM 'streaming' OR flush_lsn IS NULL OR flush_lsn < '{written}'"
    );
    let rows = session.rows(DOING, &sql).await?;
    rows.iter().map(|r| Ok((r.get(0, DOING)?, r.text(1).unwrap_or_default().to_owned()))).collect()
}
