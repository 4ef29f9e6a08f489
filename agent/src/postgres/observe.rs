//! What is, seen from outside and joined with what the driver knows, as [`pgconvoy_ha::Local`].

use super::{
    Error,
    facts::Known,
    server::{FILES, Postgres, STANDBY},
    slots,
    sql::Session,
    supervisor, timelines,
};
use crate::clock;
use pgconvoy_ha::{Local, Server, Stream};
use pgconvoy_terms::{Epoch, Lsn, TimelineId};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// How often it is looked when nothing rings.
const EVERY: Duration = Duration::from_millis(500);
/// How often it is looked while PostgreSQL starts or stops.
const EVERY_BUSY: Duration = Duration::from_millis(50);
/// How long the stream may be silent before its leader counts as not heard. An idle receiver asks for a sign after half
/// of `wal_receiver_timeout`, so this must be more than 2.5 s.
const LIVE: Duration = Duration::from_millis(3_500);
/// How old an answer may be before a newer one is told although it says the same, in milliseconds.
const AFRESH: u64 = 900;
/// For how long PostgreSQL may wait for its disk to take log. Shorter, and a volume that stalls now and then costs epochs; longer,
/// and clients wait for one that is gone.
const STALL: Duration = Duration::from_secs(10);
/// How near a follower must be to count as caught up, in bytes, or in milliseconds of lag.
const NEAR: u64 = 16 << 20;

/// Looks again and again, and publishes every change.
pub(crate) struct Observer {
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) local: watch::Sender<Option<Local>>,
    /// Rings the driver: what is seen must not be.
    pub(crate) alarm: Arc<Notify>,
    session: Option<Session>,
    /// [`Local::answered`].
    answered: pgconvoy_ha::Instant,
    /// The time of the leader's last message, as the server says it, and when that was seen to change.
    last_message: Option<(String, Instant)>,
    stall: Stall,
    fork: Option<(TimelineId, Option<(TimelineId, Lsn)>)>,
}

impl Observer {
    pub(crate) fn new(postgres: Arc<Postgres>, local: watch::Sender<Option<Local>>, alarm: Arc<Notify>) -> Self {
        Self {
            postgres,
            local,
            alarm,
            session: None,
            answered: pgconvoy_ha::Instant(0),
            last_message: None,
            stall: Stall::default(),
            fork: None,
        }
    }

    /// Never ends.
    pub(crate) async fn run(mut self) {
        loop {
            let (known, count) = self.postgres.facts.read();
            let asked = clock::now();
            let server = self.server(&known).await;
            if server != Server::Busy {
                self.answered = asked;
            }
            if !matches!(server, Server::Primary { .. }) {
                self.stall = Stall::default();
            }
            let pause = if server == Server::Busy { EVERY_BUSY } else { EVERY };
            if self.postgres.facts.read().1 != count {
                // The driver changed something meanwhile: what was seen may be of before or after.
                continue;
            }
            self.publish(known, server);
            drop(timeout(pause, self.postgres.facts.changed.notified()).await);
        }
    }

    fn publish(&self, known: Known, server: Server) {
        let Known { applied, data, problem, in_vain, shutdown, .. } = known;
        let local = Local {
            applied,
            data,
            server,
            problem,
            in_vain,
            shutdown,
            answered: self.answered,
            stalled: self.stall.lasts(Instant::now()),
        };
        self.local.send_if_modified(|old| {
            let changed = old.as_ref().is_none_or(|old| {
                let asked = old.answered;
                self.answered.since(asked) >= AFRESH || *old != Local { answered: asked, ..local.clone() }
            });
            if changed {
                *old = Some(local);
            }
            changed
        });
    }

    async fn server(&mut self, known: &Known) -> Server {
        let status = match self.postgres.supervisor.status().await {
            Err(supervisor::Error::Absent(_)) => {
                self.session = None;
                return Server::Down;
            }
            Err(e) => {
                tracing::warn!(error = %e, "the supervisor cannot be asked");
                self.session = None;
                return Server::Busy;
            }
            Ok(status) => status,
        };
        if status.postgres.is_none() {
            self.session = None;
            return Server::Down;
        }
        let epoch = status.epoch.unwrap_or_default();
        match self.ask(known, &epoch).await {
            Ok(server) => server,
            Err(e) => {
                tracing::debug!(error = %e, "PostgreSQL cannot be asked");
                self.session = None;
                Server::Busy
            }
        }
    }

    async fn ask(&mut self, known: &Known, epoch: &str) -> Result<Server, Error> {
        const DOING: &str = "looking at the server";
        let session = match self.session.take() {
            Some(session) => session,
            None => self.postgres.session().await?,
        };
        let sql = "SELECT pg_is_in_recovery(), current_setting('pgconvoy.following', true), a.receivers, \
                   (SELECT last_msg_receipt_time FROM pg_stat_wal_receiver WHERE status = 'streaming'), \
                   current_setting('pgconvoy.gate', true), a.writers \
                   FROM (SELECT count(*) FILTER (WHERE backend_type = 'walreceiver') AS receivers, \
                   count(*) FILTER (WHERE lower(wait_event) IN ('walsync', 'walwrite')) AS writers FROM pg_stat_activity) a";
        let row = session.row(DOING, sql).await?;
        let writers = row.get::<u32>(5, DOING)?;
        let receiving = row.get::<u32>(2, DOING)? > 0;
        let server = if row.flag(0) {
            let following = row.text(1).and_then(|t| t.parse::<Epoch>().ok());
            let position = known.position.filter(|_| following.is_none() && !receiving && epoch == STANDBY);
            let live = following.is_some() && self.hears(row.text(3));
            Server::Standby { following, receiving, live, position }
        } else {
            match epoch.parse::<Epoch>() {
                Ok(epoch) => {
                    let open = row.text(4) == Some("open");
                    self.primary(&session, known, epoch, open, writers > 0).await?
                }
                Err(_) => {
                    tracing::error!("PostgreSQL was made writable by somebody else; it must be killed");
                    self.postgres.rogue.store(true, std::sync::atomic::Ordering::Relaxed);
                    self.alarm.notify_one();
                    Server::Busy
                }
            }
        };
        self.session = Some(session);
        Ok(server)
    }

    /// Whether the leader's PostgreSQL says anything on the stream. What counts is that the time it names changes, by
    /// this process's own clock; the wall clock it is taken from may step.
    fn hears(&mut self, message: Option<&str>) -> bool {
        let Some(message) = message else {
            self.last_message = None;
            return false;
        };
        match &self.last_message {
            Some((last, since)) if last == message => since.elapsed() < LIVE,
            _ => {
                self.last_message = Some((message.to_owned(), Instant::now()));
                true
            }
        }
    }

    /// `open`: whether the server itself says that clients are let in. They only ever are behind the barrier, so a new
    /// agent learns from it that both were done, and does not shut out clients to do them again. `writing`: whether somebody waits
    /// for the disk to take log.
    async fn primary(
        &mut self,
        session: &Session,
        known: &Known,
        epoch: Epoch,
        open: bool,
        writing: bool,
    ) -> Result<Server, Error> {
        let (timeline, flushed) = self.postgres.own_end(session).await?;
        self.stall.look(writing, flushed, Instant::now());
        let fork = self.fork(timeline).await?;
        let streams = self.streams(session, &epoch, flushed).await?;
        let in_force = known.in_force.as_ref().filter(|(e, _)| *e == epoch).map(|(_, rule)| rule.clone());
        let barrier = open || known.barrier.as_ref() == Some(&epoch);
        let gate = open || (known.gate && barrier);
        Ok(Server::Primary { barrier, gate, epoch, timeline, fork, in_force, streams })
    }

    async fn fork(&mut self, timeline: TimelineId) -> Result<Option<(TimelineId, Lsn)>, Error> {
        if let Some((of, fork)) = self.fork
            && of == timeline
        {
            return Ok(fork);
        }
        let pg_wal = self.postgres.pg_wal();
        let read = move || timelines::history(&pg_wal, timeline);
        let fork = self.postgres.disk.run("reading the timeline's history", FILES, read).await?.parent();
        self.fork = Some((timeline, fork));
        Ok(fork)
    }

    /// Who streams under a tag of this epoch, through the slot of that tag.
    async fn streams(&self, session: &Session, epoch: &Epoch, flushed: Lsn) -> Result<Vec<Stream>, Error> {
        const DOING: &str = "looking at the followers";
        let sql = "SELECT r.application_name, r.flush_lsn, coalesce(r.replay_lag < interval '1 second', false) \
                   FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid \
                   WHERE r.state IN ('streaming', 'catchup') \
                   AND s.slot_name = replace(r.application_name, '.', '_') ORDER BY 1";
        let set = self.postgres.config.identity.member.set();
        let mut streams = Vec::new();
        for row in session.rows(DOING, sql).await? {
            let tag = row.text(0).unwrap_or_default();
            let Some(member) = slots::member_of(tag, set, epoch) else { continue };
            let flush: Option<Lsn> = row.maybe(1, DOING)?;
            let near = flush.is_some_and(|f| flushed.bytes_since(f) <= NEAR);
            streams.push(Stream { member, caught_up: near || (flush.is_some() && row.flag(2)) });
        }
        Ok(streams)
    }
}

/// Since when PostgreSQL waits for its disk to take log while none goes there. A disk that hangs leaves every question about the
/// server answered; only commits never end.
#[derive(Debug, Default)]
struct Stall {
    since: Option<(Lsn, Instant)>,
    told: bool,
}

impl Stall {
    /// `writing`: somebody waits for the disk; `flushed`: how far the log is there.
    fn look(&mut self, writing: bool, flushed: Lsn, now: Instant) {
        match self.since {
            Some((lsn, _)) if writing && lsn == flushed => {}
            _ => *self = Self { since: writing.then_some((flushed, now)), told: false },
        }
        if self.lasts(now) && !self.told {
            self.told = true;
            tracing::error!(%flushed, "the disk has taken no log for {} s: it counts as hung", STALL.as_secs());
        }
    }

    fn lasts(&self, now: Instant) -> bool {
        self.since.is_some_and(|(_, since)| now.duration_since(since) >= STALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_no_log_while_somebody_waits_counts_as_hung() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let mut stall = Stall::default();
        let mut look = |s: u64, writing: bool, flushed: u64| {
            stall.look(writing, Lsn(flushed), at(s));
            stall.lasts(at(s))
        };
        assert!(!look(0, true, 5) && !look(9, true, 5));
        assert!(look(10, true, 5));
        assert!(!look(11, true, 6), "it goes on");
        assert!(!look(20, true, 6) && !look(20, false, 6), "nobody waits");
        assert!(!look(29, true, 6), "the wait begins anew");
        assert!(look(39, true, 6));
    }
}
