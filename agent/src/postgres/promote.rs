//! Becoming and being the leader of an epoch.

use super::{
    Error,
    configuration::{NOBODY, Role},
    driver::Reached,
    rule,
    server::{FILES, Postgres, Running, STANDBY, Start},
    sql::{AGENT, BARRIER, Session},
    supervisor, timelines,
};
use pgconvoy_supervisor::protocol::Signal;
use pgconvoy_terms::{Epoch, Rule};
use std::{fs::File, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long the promotion may take. PostgreSQL first replays what it has received.
const PROMOTION: Duration = Duration::from_secs(60);
/// How long after an epoch's row its first checkpoint begins.
const FIRST_CHECKPOINT: Duration = Duration::from_secs(2);
/// How long ended sessions may take to be gone.
const SESSIONS: Duration = Duration::from_secs(5);

impl Postgres {
    /// Makes the server writable for `epoch` if it is not, then puts `rule` in force, commits the epoch's row, and lets
    /// clients in if they are wanted.
    pub(crate) async fn lead(self: &Arc<Self>, epoch: &Epoch, rule: &Rule, gate: bool) -> Result<Reached, Error> {
        let session = self.writable(epoch, rule).await?;
        let sql = "SELECT current_setting('synchronous_standby_names'), current_setting('pgconvoy.gate', true)";
        let row = session.row("reading the rule and the gate in force", sql).await?;
        let list = row.text(0).unwrap_or_default().to_owned();
        // It is opened behind the barrier only, so after a restart of the agent an open gate says that it was passed.
        let open = row.text(1) == Some("open");
        let known = self.facts.known();
        if open && (known.barrier.as_ref() != Some(epoch) || !known.gate) {
            self.facts.set(|k| {
                k.barrier = Some(epoch.clone());
                k.gate = true;
            });
        }
        if open && !gate {
            self.facts.set(|k| k.gate = false);
        }
        // While the rule changes the gate stays as it is.
        self.put_in_force(&session, rule, &list, open && gate).await?;
        if self.facts.known().barrier.as_ref() != Some(epoch) {
            self.prepare_schema(&session).await?;
            self.commit_barrier(&session, epoch).await?;
            self.facts.set(|k| k.barrier = Some(epoch.clone()));
            self.checkpoint_behind(epoch);
        }
        // What a first leader makes, a later one already has: its clients need not wait for it.
        if epoch.number == 1 {
            self.provision(epoch).await?;
        }
        if gate && !open {
            self.apply(&Role::leading(rule, true), &session).await?;
            tracing::info!("clients are let in");
            self.facts.set(|k| k.gate = true);
        }
        self.provision(epoch).await?;
        self.drop_strangers(&session, rule).await?;
        // Nobody commits before clients are let in, and until then they wait for every question.
        let remark = if gate { self.weak_commits(&session, rule).await } else { None };
        Ok(Reached { remark, ..Reached::default() })
    }

    /// A checkpoint beside everything else, once clients have had time to come back: it would compete with them for the
    /// disk. Before it a restart would go back to the old timeline's, and 15's pg_rewind sees no difference.
    fn checkpoint_behind(self: &Arc<Self>, epoch: &Epoch) {
        let (postgres, epoch) = (self.clone(), epoch.clone());
        tokio::spawn(async move {
            sleep(if epoch.number == 1 { Duration::ZERO } else { FIRST_CHECKPOINT }).await;
            match postgres.checkpoint().await {
                Ok(()) => tracing::info!(%epoch, "the epoch's first checkpoint is done"),
                Err(e) => tracing::warn!(%epoch, error = %e, "the epoch's first checkpoint failed"),
            }
        });
    }

    /// A session of a server that is writable for `epoch`.
    async fn writable(&self, epoch: &Epoch, wanted: &Rule) -> Result<Session, Error> {
        let text = epoch.to_string();
        match self.look().await? {
            Running::Primary { session, epoch: running } if running == text => {
                self.check_timeline(&session, epoch).await?;
                return Ok(session);
            }
            Running::Primary { epoch: running, .. } => {
                tracing::warn!(running, wanted = text, "killing PostgreSQL: it is writable in another epoch");
                self.fence().await?;
            }
            Running::Standby { session, epoch: running } if running == text => {
                // An earlier step, or agent, had begun; what it did is done again.
                return self.promote(session, epoch).await;
            }
            Running::Busy(why) => {
                self.wait_ready().await?;
                return Err(Error::NotYet(why));
            }
            Running::Nothing(_) if epoch.number == 1 => {
                // Refused on data that was started before.
                self.start(Start::Founder(epoch, wanted)).await?;
                return match self.wait_ready().await? {
                    Running::Primary { session, .. } => {
                        self.check_timeline(&session, epoch).await?;
                        Ok(session)
                    }
                    _ => Err(Error::NotYet("PostgreSQL is starting".into())),
                };
            }
            Running::Nothing(_) | Running::Standby { .. } => {}
        }
        let (session, position) = self.detach().await?;
        let (pg_wal, next) = (self.pg_wal(), epoch.timeline());
        let reserve = move || timelines::reserve(&pg_wal, position.timeline, next);
        self.disk.run("reserving the timeline", FILES, reserve).await?;
        // Never empty while it may become writable, also when commits are not to wait afterwards.
        let mut role = Role::leading(wanted, false);
        if role.acknowledge.is_empty() {
            role.acknowledge = NOBODY.into();
        }
        let reloaded = self.apply(&role, &session).await?;
        let live = rule::live_list(reloaded.as_ref().unwrap_or(&session)).await?;
        if live != role.acknowledge {
            return Err(Error::Answer {
                doing: "verifying synchronous_standby_names before the promotion",
                what: format!("a new session shows {live:?} instead of {:?}", role.acknowledge),
            });
        }
        self.end_sessions(&session).await?;
        // Before it can become writable it stands under the leader's permission.
        self.supervisor.epoch(STANDBY, &text, supervisor::permit(self.permission())).await?;
        self.promote(session, epoch).await
    }

    /// Ends the sessions of others: read-only ones would turn writable.
    async fn end_sessions(&self, session: &Session) -> Result<(), Error> {
        const DOING: &str = "ending client sessions before the promotion";
        let others = format!(
            "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
             AND NOT (application_name = '{AGENT}' AND client_addr IS NULL AND usename = 'postgres')"
        );
        let begun = Instant::now();
        loop {
            let count = session.row(DOING, &format!("SELECT count(pg_terminate_backend(pid)) {others}")).await?;
            if count.text(0) == Some("0") {
                return Ok(());
            }
            if begun.elapsed() > SESSIONS {
                return Err(Error::Timeout { doing: DOING, after: SESSIONS });
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Promotes it, and checks that it took the epoch's timeline.
    async fn promote(&self, session: Session, epoch: &Epoch) -> Result<Session, Error> {
        self.facts.set(|k| k.position = None);
        let path = self.paths().pgdata.join("promote");
        let touch = move || File::create(&path).map(drop).map_err(Error::disk("make", &path));
        self.disk.run("asking for the promotion", FILES, touch).await?;
        self.supervisor.signal(Signal::Usr1).await?;
        let begun = Instant::now();
        loop {
            if !session.row("waiting for the promotion", "SELECT pg_is_in_recovery()").await?.flag(0) {
                break;
            }
            if begun.elapsed() > PROMOTION {
                return Err(Error::Timeout { doing: "the promotion", after: PROMOTION });
            }
            sleep(Duration::from_millis(1)).await;
        }
        tracing::info!(%epoch, took = ?begun.elapsed(), "promoted");
        // A session that began in recovery keeps some of it; the next steps get a new one.
        drop(session);
        let session = self.session().await?;
        self.check_timeline(&session, epoch).await?;
        Ok(session)
    }

    /// The timeline must be the epoch's number: anything else must not write for an instant longer.
    async fn check_timeline(&self, session: &Session, epoch: &Epoch) -> Result<(), Error> {
        let (timeline, _) = self.own_end(session).await?;
        if timeline == epoch.timeline() {
            return Ok(());
        }
        self.fence().await?;
        Err(Error::Timeline(format!(
            "the promotion for epoch {} took timeline {timeline}; PostgreSQL was killed before anybody was let in, and a \
             later epoch must be opened",
            epoch.number
        )))
    }

    /// Commits the epoch's row, waiting for the rule; every try writes anew, so every try waits anew.
    async fn commit_barrier(&self, session: &Session, epoch: &Epoch) -> Result<(), Error> {
        // A server-side time-out does not reach a commit that waits for followers; ours ends the waiting here.
        const WAIT: Duration = Duration::from_secs(10);
        // An earlier try may still wait there; its row is the same as ours.
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{BARRIER}' \
             AND usename = 'postgres' AND client_addr IS NULL"
        );
        session.run("ending an earlier try of the epoch's row", &end).await?;
        let barrier = Session::open_as(&self.address(), "postgres", BARRIER, WAIT).await?;
        let sql = format!(
            "INSERT INTO pgconvoy.epoch AS e (number, id, leader) VALUES ({}, {}, {}) ON CONFLICT (number) DO UPDATE \
             SET id = excluded.id, leader = excluded.leader, tries = e.tries + 1, at = now()",
            epoch.number,
            super::sql::literal(epoch.id.as_str()),
            super::sql::literal(&self.config.identity.member.to_string()),
        );
        match barrier.rows_within("committing the epoch's row", &sql, WAIT).await {
            Ok(_) => {
                tracing::info!(%epoch, "the epoch's row is committed under its rule");
                Ok(())
            }
            Err(Error::Timeout { .. }) => Err(Error::NotYet(
                "the epoch's row waits for the acknowledgement of enough followers; nobody is let in before".into(),
            )),
            Err(e) => Err(e),
        }
    }
}
