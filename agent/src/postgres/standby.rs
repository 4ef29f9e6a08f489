//! A server that replays: receiving from nobody with a known position, or following a leader.

use super::{
    Error,
    configuration::{Role, Source},
    driver::Reached,
    server::{Postgres, Running, STANDBY, Start},
    sql::Session,
};
use pgconvoy_crds::pod;
use pgconvoy_terms::{Epoch, Lsn, MemberName, Position, Tag};
use pgconvoy_wire as wire;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// How long the startup process may take to show that it has taken an empty `primary_conninfo`, until it is killed.
const SILENCE: Duration = Duration::from_secs(2);
/// How long one step waits for the end of replay before it says so.
const REPLAY: Duration = Duration::from_secs(5);
/// How long a receiver may take to stream before it is looked why it does not.
const STREAM: Duration = Duration::from_secs(2);
/// Where the startup process waits when there is no more log to replay and nobody to receive from.
const IDLE: &str = "RecoveryRetrieveRetryInterval";

/// The startup process and the receiver, as one sample shows them.
struct Sample {
    receivers: u32,
    idle: bool,
    replayed: Lsn,
    received: Option<Lsn>,
    paused: bool,
}

async fn sample(session: &Session) -> Result<Sample, Error> {
    const DOING: &str = "looking at the startup process";
    let sql = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'), \
               (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup' LIMIT 1), \
               coalesce(pg_last_wal_replay_lsn(), '0/0'), pg_last_wal_receive_lsn(), \
               pg_get_wal_replay_pause_state() <> 'not paused'";
    let row = session.row(DOING, sql).await?;
    Ok(Sample {
        receivers: row.get(0, DOING)?,
        idle: row.text(1) == Some(IDLE),
        replayed: row.get(2, DOING)?,
        received: row.maybe(3, DOING)?,
        paused: row.flag(4),
    })
}

impl Postgres {
    /// A running standby; whatever else runs is killed first, and a standby is started.
    async fn standby(&self) -> Result<Session, Error> {
        loop {
            match self.look().await? {
                Running::Standby { session, epoch } if epoch == STANDBY => return Ok(session),
                // One that was told to become a leader may still do so; one that is writable was deposed.
                Running::Standby { epoch, .. } | Running::Primary { epoch, .. } => {
                    tracing::info!(epoch, "killing PostgreSQL: it is to be a standby now");
                    self.fence().await?;
                }
                Running::Nothing(_) => self.start(Start::Standby).await?,
                Running::Busy(why) => return self.busy(why).await,
            }
        }
    }

    /// Waits for a server that starts.
    async fn busy(&self, why: String) -> Result<Session, Error> {
        match self.wait_ready().await? {
            Running::Standby { session, epoch } if epoch == STANDBY => Ok(session),
            _ => Err(Error::NotYet(why)),
        }
    }

    /// Makes it a standby that receives from nobody, and finds out its position.
    pub(crate) async fn detach(&self) -> Result<(Session, Position), Error> {
        let session = self.standby().await?;
        if let Some(position) = self.facts.known().position {
            // Established for this very server, and its configuration was not touched since.
            self.apply(&Role::detached(), &session).await?;
            return Ok((session, position));
        }
        self.facts.set(|k| k.gate = false);
        self.kept().dry_since = None;
        self.apply(&Role::detached(), &session).await?;
        self.unpause(&session).await?;
        if !self.silence(&session).await? {
            tracing::warn!("the startup process does not answer; killing PostgreSQL, so that it receives nothing more");
            self.fence().await?;
            return Err(Error::NotYet("PostgreSQL is started again so that it surely receives nothing".into()));
        }
        let position = self.position(&session).await?;
        // Nothing is replayed from here on, so what is found now holds until a promotion, and need not be looked at then.
        if self.limits_too_low(&session).await? {
            self.stop().await?;
            return Err(Error::NotYet("PostgreSQL is started again with the limits that its log needs".into()));
        }
        tracing::info!(%position, "receiving from nobody");
        self.facts.set(|k| k.position = Some(position));
        Ok((session, position))
    }

    /// Ends the receiver, and returns true once none can come back.
    ///
    /// The reload was shown by a new session, so its signal has been sent to the startup process. Until that process has
    /// *taken* it, it might still ask for a receiver by the old `primary_conninfo`. Seen after the signal at its wait
    /// for more log, or with two further records replayed, it has taken it or will before it does anything else; only a
    /// receiver that is absent after that stays absent.
    async fn silence(&self, session: &Session) -> Result<bool, Error> {
        let begun = Instant::now();
        let mut seen: Vec<Lsn> = Vec::new();
        let mut taken = false;
        while begun.elapsed() < SILENCE {
            let now = sample(session).await?;
            if taken && now.receivers == 0 {
                return Ok(true);
            }
            if now.receivers > 0 {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walreceiver'";
                session.run("ending the WAL receiver", sql).await?;
            }
            if seen.last() != Some(&now.replayed) {
                seen.push(now.replayed);
            }
            taken |= now.idle || seen.len() > 2;
            sleep(Duration::from_millis(3)).await;
        }
        Ok(false)
    }

    /// How much of the log there is, with nothing being received.
    async fn position(&self, session: &Session) -> Result<Position, Error> {
        let begun = Instant::now();
        loop {
            let now = sample(session).await?;
            // IDENTIFY_SYSTEM: the timeline of the last replayed record, and the greater of replayed and (if received
            // on that timeline) received.
            let said = self.identify().await?;
            // Before the end of replay: only what was received in this postmaster's life is known to be there, and a
            // receiver begins where everything older has been read.
            let sure = now.idle || now.received.is_some_and(|r| r <= said.position);
            if sure && said.position >= now.replayed {
                return Ok(Position { timeline: said.timeline, end: said.position });
            }
            if begun.elapsed() > REPLAY {
                return Err(Error::NotYet(format!(
                    "PostgreSQL is replaying its own log (at {}); its position is not known before the end",
                    now.replayed
                )));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// IDENTIFY_SYSTEM over the Unix socket.
    async fn identify(&self) -> Result<wire::IdentifySystem, Error> {
        let address = self.address();
        let target = wire::Target::Unix { dir: address.directory, port: address.port };
        let mut config = wire::Config::new(target, pod::SUPERUSER);
        config.application_name = super::sql::AGENT.into();
        let mut client = wire::Client::connect(&config).await?;
        let said = client.identify_system().await?;
        // Good-bye is politeness only.
        drop(client.close().await);
        Ok(said)
    }

    /// Resumes a paused replay. When it was PostgreSQL that paused because its limits are below those of the log,
    /// resuming would end it: then it is started again with higher ones.
    async fn unpause(&self, session: &Session) -> Result<(), Error> {
        if !sample(session).await?.paused {
            return Ok(());
        }
        if self.limits_too_low(session).await? {
            tracing::warn!("replay is paused because limits are below the log's; starting PostgreSQL with higher ones");
            self.stop().await?;
            return Err(Error::NotYet("PostgreSQL is started again with the limits that its log needs".into()));
        }
        session.run("resuming replay", "SELECT pg_wal_replay_resume()").await
    }

    /// Whether a limit in force is below what the control file says the log was written with.
    pub(crate) async fn limits_too_low(&self, session: &Session) -> Result<bool, Error> {
        const DOING: &str = "comparing limits";
        let floors: BTreeMap<String, u64> = self.floors().await?;
        let rows = session.rows(DOING, "SELECT name, setting FROM pg_settings WHERE name LIKE 'max\\_%'").await?;
        let in_force = |name: &str| {
            let row = rows.iter().find(|r| r.text(0) == Some(name));
            row.and_then(|r| r.text(1)).and_then(|v| v.parse::<u64>().ok())
        };
        Ok(floors.iter().any(|(name, least)| in_force(name).is_none_or(|v| v < *least)))
    }

    /// Sets it to follow a leader; whether it streams is told by [`pgconvoy_ha::Local`] and by the remark.
    pub(crate) async fn follow(
        &self,
        leader: &MemberName,
        epoch: &Epoch,
        tag: &Tag,
        slot: &str,
        gate: bool,
    ) -> Result<Reached, Error> {
        let Some(address) = self.addresses.borrow().get(leader).copied() else {
            return Err(Error::NotYet(format!("the address of {leader} is not known yet")));
        };
        let source =
            Source { leader: leader.clone(), address, epoch: epoch.clone(), tag: tag.clone(), slot: slot.to_owned() };
        let session = self.standby().await?;
        if self.facts.known().position.is_some() {
            self.facts.set(|k| k.position = None);
        }
        self.apply(&Role::following(source.clone(), gate), &session).await?;
        self.unpause(&session).await?;
        let sql = "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        if !session.rows("looking at the WAL receiver", sql).await?.is_empty() {
            self.kept().dry_since = None;
            self.drop_own_slots(&session).await?;
            return Ok(Reached::default());
        }
        let since = *self.kept().dry_since.get_or_insert_with(Instant::now);
        if since.elapsed() < STREAM {
            let remark = Some(format!("connecting to {leader}"));
            return Ok(Reached { remark, again: Duration::from_millis(300) });
        }
        Ok(Reached { remark: Some(self.why_no_stream(&source).await), again: STREAM })
    }

    /// Connects as the receiver would, to say what stands in its way.
    async fn why_no_stream(&self, source: &Source) -> String {
        let leader = &source.leader;
        let attempt = async {
            let mut config = self.replication(leader, source.address).await?;
            config.connect_timeout = STREAM;
            config.command_timeout = STREAM;
            let mut client = wire::Client::connect(&config).await?;
            let slot = client.read_slot(&source.slot).await?;
            drop(client.close().await);
            Ok::<_, Error>(slot)
        };
        match attempt.await {
            Err(e) => format!("nothing is received from {leader}: {e}"),
            Ok(None) => {
                format!("nothing is received from {leader}: it has no replication slot {} for this member", source.slot)
            }
            Ok(Some(slot)) if slot.restart_lsn.is_none() => {
                format!("nothing is received from {leader}: its replication slot {} keeps no log any more", source.slot)
            }
            Ok(Some(_)) => format!("nothing is received from {leader} yet; PostgreSQL's log on both sides says why"),
        }
    }
}
