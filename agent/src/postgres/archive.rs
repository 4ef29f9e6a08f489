//! What archiving needs of PostgreSQL: which WAL may be archived, and a slot that keeps what is not archived yet.
//!
//! Every member has the slot. On the leader it follows the archive, on followers it follows the leader's, so that whoever
//! leads next still has what the archive lacks. How much it may keep is bounded by `max_slot_wal_keep_size`.

use super::{
    DriverHandle, Error,
    server::{FILES, Postgres},
    sql::{Session, literal},
    timelines,
};
use nix::sys::statvfs::statvfs;
use pgconvoy_crds::pod;
use pgconvoy_terms::{Lsn, MemberName, SegmentName, TimelineId};
use pgconvoy_wire as wire;
use std::{sync::Arc, time::Duration};

/// The slot.
pub(crate) const SLOT: &str = "pgconvoy_archive";
/// Silence after which the shipper's walsender, and the shipper its walsender, counts as dead. Longer than for followers:
/// while the store is slow nothing is read for some time.
const IDLE: Duration = Duration::from_secs(30);

/// PostgreSQL, for whoever archives. One session is kept.
pub(crate) struct Archivist {
    postgres: Arc<Postgres>,
    session: Option<Session>,
    leader: Option<(MemberName, wire::Client)>,
}

impl DriverHandle {
    /// See [`Archivist`].
    pub(crate) fn archivist(&self) -> Archivist {
        Archivist { postgres: self.postgres.clone(), session: None, leader: None }
    }
}

/// What the slot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// From here on.
    pub(crate) from: Lsn,
    /// It was made just now: what is older may be gone.
    pub(crate) made: bool,
}

/// What the slot keeps on the volume, and what room there is beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// WAL that is kept: from here …
    pub(crate) from: Lsn,
    /// … to here.
    pub(crate) end: Lsn,
    /// `max_slot_wal_keep_size`, in bytes: beyond it PostgreSQL itself gives up what the slot keeps. None: no bound.
    pub(crate) limit: Option<u64>,
    /// Bytes that are free where WAL lies.
    pub(crate) free: u64,
    /// Bytes of that volume.
    pub(crate) size: u64,
}

impl Archivist {
    async fn session(&mut self) -> Result<Session, Error> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => self.postgres.session().await,
        }
    }

    /// How to stream from this member's own server.
    pub(crate) fn streaming(&self) -> wire::Config {
        let identity = &self.postgres.config.identity;
        let target = wire::Target::Unix { dir: identity.paths.run.clone(), port: identity.postgres_port };
        wire::Config {
            application_name: SLOT.to_owned(),
            parameters: vec![("wal_sender_timeout".to_owned(), format!("{}s", IDLE.as_secs()))],
            ..wire::Config::new(target, pod::SUPERUSER)
        }
    }

    /// [`IDLE`], for the other side.
    pub(crate) fn idle_timeout(&self) -> Duration {
        IDLE
    }

    /// How much of the leader's WAL no later leader will lack: what W followers of the rule in force have flushed, each
    /// streaming under its tag of this epoch; without such a rule, what is on its own disk.
    ///
    /// W and the followers are those of the walsenders that live. While a change of the rule is under way they may be those
    /// of the old or of the new one: both are recorded then, and a later leader satisfies both.
    pub(crate) async fn safe(&mut self) -> Result<Lsn, Error> {
        const DOING: &str = "asking how much WAL may be archived";
        let session = self.session().await?;
        let sql = "SELECT current_setting('synchronous_standby_names'), pg_current_wal_flush_lsn(), \
                   (SELECT string_agg(flush_lsn::text, ' ') FROM pg_stat_replication WHERE sync_state = 'quorum')";
        let row = session.row(DOING, sql).await?;
        let flushed: Lsn = row.get(1, DOING)?;
        let names = row.text(0).unwrap_or_default();
        let followers = row.text(2).unwrap_or_default().split(' ').filter_map(|l| l.parse().ok()).collect();
        let safe = quorum(names, flushed, followers)
            .ok_or_else(|| Error::Answer { doing: DOING, what: format!("synchronous_standby_names is {names:?}") })?;
        self.session = Some(session);
        Ok(safe)
    }

    /// `wal_segment_size`, in bytes.
    pub(crate) async fn segment_size(&mut self) -> Result<u64, Error> {
        const DOING: &str = "asking for the size of WAL segments";
        let session = self.session().await?;
        let sql = "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'";
        let size = session.row(DOING, sql).await?.get(0, DOING)?;
        self.session = Some(session);
        Ok(size)
    }

    /// On a leader: where archiving of its timeline should begin. Where the segment begins that holds `fork` (the very
    /// first one if there is none), if it is still there; else the one under way.
    pub(crate) async fn first_segment(
        &mut self,
        timeline: TimelineId,
        fork: Option<Lsn>,
        size: u64,
    ) -> Result<Lsn, Error> {
        let wanted = SegmentName::holding(timeline, fork.unwrap_or(Lsn(size)), size);
        let path = self.postgres.pg_wal().join(wanted.to_string());
        if self.postgres.disk.run("looking for WAL", FILES, move || Ok(path.exists())).await? {
            return Ok(wanted.start(size));
        }
        let session = self.session().await?;
        let (_, flushed) = self.postgres.own_end(&session).await?;
        self.session = Some(session);
        Ok(SegmentName::holding(timeline, flushed, size).start(size))
    }

    /// A timeline's history file; none for the first.
    pub(crate) async fn history(&mut self, timeline: TimelineId) -> Result<Option<Vec<u8>>, Error> {
        let pg_wal = self.postgres.pg_wal();
        self.postgres
            .disk
            .run("reading the timeline's history", FILES, move || timelines::read(&pg_wal, timeline))
            .await
    }

    /// Makes the slot if it is not there, or has lost what it should keep, and moves it on to `archived`.
    pub(crate) async fn keep(&mut self, archived: Option<Lsn>) -> Result<Kept, Error> {
        const DOING: &str = "keeping WAL for the archive";
        let session = self.session().await?;
        let slot = literal(SLOT);
        let find = format!(
            "SELECT restart_lsn, coalesce(wal_status = 'lost', false) FROM pg_replication_slots WHERE slot_name = {slot}"
        );
        let mut row = session.rows(DOING, &find).await?.into_iter().next();
        let lost = row.as_ref().is_some_and(|r| r.flag(1) || r.text(0).is_none());
        if lost {
            tracing::warn!(
                "WAL that is not archived is gone: the slot {SLOT} kept as much as it may, and is made anew"
            );
            session.run(DOING, &format!("SELECT pg_drop_replication_slot({slot})")).await?;
            row = None;
        }
        let made = row.is_none();
        let row = match row {
            Some(row) => row,
            None => {
                session.run(DOING, &format!("SELECT pg_create_physical_replication_slot({slot}, true)")).await?;
                session.row(DOING, &find).await?
            }
        };
        let mut from: Lsn = row.get(0, DOING)?;
        if let Some(archived) = archived.filter(|a| *a > from) {
            let end = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END";
            let sql = format!(
                "SELECT (pg_replication_slot_advance(slot_name, least('{archived}'::pg_lsn, {end}))).end_lsn \
                 FROM pg_replication_slots WHERE slot_name = {slot} AND restart_lsn < least('{archived}'::pg_lsn, {end})"
            );
            if let Some(row) = session.rows(DOING, &sql).await?.first() {
                from = row.get(0, DOING)?;
            }
        }
        self.session = Some(session);
        Ok(Kept { from, made })
    }

    /// What the slot keeps, and what room there is. None: there is no such slot, or it keeps nothing any more.
    pub(crate) async fn room(&mut self) -> Result<Option<Room>, Error> {
        const DOING: &str = "asking how much WAL is kept for the archive";
        let session = self.session().await?;
        let sql = format!(
            "SELECT restart_lsn, CASE WHEN pg_is_in_recovery() \
             THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END, \
             (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size') \
             FROM pg_replication_slots WHERE slot_name = {} AND restart_lsn IS NOT NULL",
            literal(SLOT)
        );
        let row = session.rows(DOING, &sql).await?.into_iter().next();
        self.session = Some(session);
        let Some(row) = row else { return Ok(None) };
        let (from, end): (Lsn, Lsn) = (row.get(0, DOING)?, row.get(1, DOING)?);
        let mib: i64 = row.get(2, DOING)?;
        let pg_wal = self.postgres.pg_wal();
        let ask = move || statvfs(&pg_wal).map_err(|e| Error::disk("ask for the room on", &pg_wal)(e.into()));
        let volume = self.postgres.disk.run("asking for the room on the volume", FILES, ask).await?;
        Ok(Some(Room {
            from,
            end,
            limit: u64::try_from(mib).ok().map(|m| m << 20),
            free: volume.blocks_available() * volume.fragment_size(),
            size: volume.blocks() * volume.fragment_size(),
        }))
    }

    /// How many bytes of WAL are behind: on a follower what it has not replayed of what its leader has; on a leader what the
    /// slowest follower, or the archive, has not flushed.
    pub(crate) async fn behind(&mut self) -> Result<u64, Error> {
        const DOING: &str = "asking how far replication is behind";
        let session = self.session().await?;
        let sql = "SELECT coalesce(CASE WHEN pg_is_in_recovery() THEN (SELECT pg_wal_lsn_diff(greatest(latest_end_lsn, \
                   flushed_lsn), pg_last_wal_replay_lsn()) FROM pg_stat_wal_receiver) ELSE (SELECT \
                   max(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)) FROM pg_stat_replication WHERE state = \
                   'streaming') END, 0)::bigint";
        let behind: i64 = session.row(DOING, sql).await?.get(0, DOING)?;
        self.session = Some(session);
        Ok(u64::try_from(behind).unwrap_or(0))
    }

    /// Gives up all that the slot keeps, and has PostgreSQL remove it. Archiving goes on behind it, with a gap.
    pub(crate) async fn give_up(&mut self) -> Result<(), Error> {
        self.keep(Some(Lsn(u64::MAX))).await?;
        self.postgres.checkpoint().await
    }

    /// Drops the slot: nothing is archived any more. Whether PostgreSQL could be asked; it need not run.
    pub(crate) async fn let_go(&mut self) -> Result<(), Error> {
        let session = self.session().await?;
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {} AND NOT active",
            literal(SLOT)
        );
        session.run("dropping the archive's slot", &sql).await?;
        self.session = Some(session);
        Ok(())
    }

    /// On a follower: from where on the leader keeps WAL for the archive, which has everything before. None: it does not.
    pub(crate) async fn leaders_mark(&mut self, leader: &MemberName) -> Result<Option<Lsn>, Error> {
        let mut client = match self.leader.take() {
            Some((name, client)) if name == *leader => client,
            _ => {
                let address = self.postgres.addresses.borrow().get(leader).copied();
                let address = address.ok_or_else(|| Error::NotYet(format!("the address of {leader} is not known")))?;
                let config = self.postgres.replication(leader, address).await?;
                let database = Some("postgres".to_owned());
                wire::Client::connect(&wire::Config { mode: wire::Mode::Database, database, ..config }).await?
            }
        };
        let sql = format!("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = {}", literal(SLOT));
        let rows = client.simple_query(&sql).await?;
        self.leader = Some((leader.clone(), client));
        Ok(rows.first().and_then(|r| r.first()?.as_deref()?.parse().ok()))
    }
}

/// How far W followers of `names` have flushed; `flushed` where commits wait for nobody. None: `names` is not ours.
fn quorum(names: &str, flushed: Lsn, mut followers: Vec<Lsn>) -> Option<Lsn> {
    if names.is_empty() {
        return Some(flushed);
    }
    let w: usize = names.strip_prefix("ANY ")?.split_once(' ')?.0.parse().ok().filter(|w| *w > 0)?;
    followers.sort_unstable_by(|a, b| b.cmp(a));
    Some(followers.get(w - 1).copied().unwrap_or(Lsn(0)).min(flushed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_w_followers_have_is_safe() {
        let q = |names, followers: &[u64]| quorum(names, Lsn(100), followers.iter().map(|l| Lsn(*l)).collect());
        assert_eq!(q("", &[]), Some(Lsn(100)));
        assert_eq!(q("ANY 1 (\"a\", \"b\")", &[70, 90]), Some(Lsn(90)));
        assert_eq!(q("ANY 2 (\"a\", \"b\")", &[70, 90]), Some(Lsn(70)));
        assert_eq!(q("ANY 2 (\"a\", \"b\")", &[90]), Some(Lsn(0)), "one is away");
        assert_eq!(q("ANY 1 (\"a\")", &[120]), Some(Lsn(100)));
        assert_eq!((q("*", &[90]), q("ANY 0 (a)", &[90]), q("FIRST 1 (a)", &[90])), (None, None, None));
    }
}
