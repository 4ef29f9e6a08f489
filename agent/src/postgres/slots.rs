//! Replication slots: who is let in, and which slots go.

use super::{
    Error,
    server::{Postgres, Running},
    sql::{Session, literal},
    timelines::{self, Relation},
};
use pgconvoy_ha::Answer;
use pgconvoy_terms::{Epoch, Incarnation, Lsn, MemberId, MemberName, Position, Rule, SegmentName, Tag, TimelineId};

/// A slot of ours, taken apart: `m<ordinal>_<incarnation>_e<number>_<4 of the epoch's id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotName {
    pub(crate) ordinal: u32,
    pub(crate) incarnation: Incarnation,
    pub(crate) number: u32,
    pub(crate) short: String,
}

/// Reads the name of a slot, or of a tag with `separator` a dot.
pub(crate) fn parse(text: &str, separator: char) -> Option<SlotName> {
    let mut parts = text.split(separator);
    let ordinal = parts.next()?.strip_prefix('m')?.parse().ok()?;
    let incarnation = parts.next()?.parse().ok()?;
    let number = parts.next()?.strip_prefix('e')?.parse().ok()?;
    let short = parts.next()?.to_owned();
    (parts.next().is_none() && short.len() == 4).then_some(SlotName { ordinal, incarnation, number, short })
}

/// The member that streams under `tag` in `epoch`; none when the tag is of another epoch, or no tag.
pub(crate) fn member_of(tag: &str, set: &str, epoch: &Epoch) -> Option<MemberId> {
    let name = parse(tag, '.')?;
    let member = MemberId { name: MemberName::new(set, name.ordinal), incarnation: name.incarnation };
    (Tag::new(&member, epoch).as_str() == tag).then_some(member)
}

struct Slot {
    name: String,
    parsed: SlotName,
    active: bool,
    /// It still keeps WAL.
    good: bool,
}

impl Postgres {
    async fn our_slots(&self, session: &Session) -> Result<Vec<Slot>, Error> {
        let sql = "SELECT slot_name, active, restart_lsn IS NOT NULL AND coalesce(wal_status <> 'lost', true) \
                   FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name";
        let rows = session.rows("listing replication slots", sql).await?;
        let slot = |row: &super::sql::Row| {
            let name = row.text(0)?.to_owned();
            let parsed = parse(&name, '_')?;
            Some(Slot { name, parsed, active: row.flag(1), good: row.flag(2) })
        };
        Ok(rows.iter().filter_map(slot).collect())
    }

    async fn drop_slot(&self, session: &Session, name: &str) {
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {} AND NOT active",
            literal(name)
        );
        match session.run("dropping a replication slot", &sql).await {
            Ok(()) => tracing::info!(slot = name, "dropped a replication slot that nobody will use"),
            // It came into use, or is gone: the next look tells.
            Err(e) => tracing::debug!(slot = name, error = %e, "a replication slot was not dropped"),
        }
    }

    /// Until the first checkpoint of the epoch our control file names the timeline before, and 15's pg_rewind then finds
    /// no difference between two servers that have parted.
    async fn be_rewound_against(&self, session: &Session, epoch: &Epoch) -> Result<(), Error> {
        const DOING: &str = "asking for the timeline of the last checkpoint";
        let row = session.row(DOING, "SELECT timeline_id FROM pg_control_checkpoint()").await?;
        if row.get::<u32>(0, DOING)? == epoch.timeline().0 { Ok(()) } else { self.checkpoint().await }
    }

    /// Looks whether this follower's log is a part of ours, and makes its slot. A follower whose next log is gone here is
    /// answered as one whose log has left ours at 0/0: it needs a copy, too.
    pub(crate) async fn admit(
        &self,
        epoch: &Epoch,
        member: &MemberId,
        position: Option<Position>,
        from: MemberName,
    ) -> Result<Answer, Error> {
        let _one = self.admitting.lock().await;
        let session = match self.look().await? {
            Running::Primary { session, epoch: running } if running == epoch.to_string() => session,
            _ => return Ok(Answer::NotYet),
        };
        let (timeline, flushed) = self.own_end(&session).await?;
        if timeline != epoch.timeline() {
            return Ok(Answer::NotYet);
        }
        if let Some(position) = position {
            let pg_wal = self.pg_wal();
            let read = move || timelines::history(&pg_wal, timeline);
            let history = self.disk.run("reading the timeline's history", super::server::FILES, read).await?;
            if let Relation::Left(fork) = timelines::relation(&history, flushed, position.timeline, position.end) {
                tracing::info!(%member, %position, %fork, "a follower's log has left ours");
                self.be_rewound_against(&session, epoch).await?;
                return Ok(Answer::Diverged { timeline: position.timeline, fork });
            }
        }
        let slot = Tag::new(member, epoch).slot();
        let slots = self.our_slots(&session).await?;
        let earlier = |s: &&Slot| {
            s.parsed.ordinal == member.name.ordinal()
                && s.parsed.incarnation == member.incarnation
                && s.parsed.number < epoch.number
        };
        match slots.iter().find(|s| s.name == slot) {
            Some(s) if s.good => {}
            // Its WAL is gone: only a copy can follow us, and for that the slot must keep WAL from now on.
            Some(_) if position.is_some() => {
                return Ok(Answer::Diverged { timeline: position.map_or(timeline, |p| p.timeline), fork: Lsn(0) });
            }
            found => {
                if found.is_some() {
                    self.drop_slot(&session, &slot).await;
                }
                let source = slots.iter().filter(earlier).filter(|s| s.good).max_by_key(|s| s.parsed.number);
                // A copy inherits the WAL that the earlier slot keeps.
                let sql = match source.filter(|_| position.is_some()) {
                    Some(source) => format!(
                        "SELECT pg_copy_physical_replication_slot({}, {})",
                        literal(&source.name),
                        literal(&slot)
                    ),
                    None => format!("SELECT pg_create_physical_replication_slot({}, true)", literal(&slot)),
                };
                session.run("making a replication slot", &sql).await?;
                tracing::info!(%member, slot, "made a replication slot");
            }
        }
        if let Some(position) = position
            && !self.has_log_from(&session, position.end, flushed).await?
        {
            tracing::info!(%member, %position, "the log that a follower needs next is gone here: it needs a copy");
            self.drop_slot(&session, &slot).await;
            return Ok(Answer::Diverged { timeline: position.timeline, fork: Lsn(0) });
        }
        // Another incarnation's data is gone, and an earlier epoch's slot has been inherited.
        for old in slots.iter().filter(|s| s.parsed.ordinal == member.name.ordinal() && s.name != slot && !s.active) {
            self.drop_slot(&session, &old.name).await;
        }
        Ok(Answer::Admitted { slot, from })
    }

    /// Whether the segment that holds `position` is still there, on whatever timeline. The slot is made before this is
    /// asked, so it stays.
    async fn has_log_from(&self, session: &Session, position: Lsn, flushed: Lsn) -> Result<bool, Error> {
        const DOING: &str = "looking for the log that a follower needs";
        let size = "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'";
        let size: u64 = session.row(DOING, size).await?.get(0, DOING)?;
        let segment = SegmentName::holding(TimelineId(1), position, size.max(1));
        if flushed <= segment.start(size) {
            // Nothing of it is written yet.
            return Ok(true);
        }
        let name = segment.to_string();
        let number = name.get(8..).unwrap_or_default();
        let sql =
            format!("SELECT 1 FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{{24}}$' AND substr(name, 9) = '{number}'");
        Ok(!session.rows(DOING, &sql).await?.is_empty())
    }

    /// On a leader: the timeline it writes, and how much of it is on disk.
    pub(crate) async fn own_end(&self, session: &Session) -> Result<(TimelineId, Lsn), Error> {
        const DOING: &str = "asking for the timeline and the end of the log";
        let sql = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), pg_current_wal_flush_lsn()";
        let row = session.row(DOING, sql).await?;
        let hex = row.text(0).unwrap_or_default();
        let timeline = u32::from_str_radix(hex, 16)
            .map_err(|_| Error::Answer { doing: DOING, what: format!("the timeline is {hex:?}") })?;
        Ok((TimelineId(timeline), row.get(1, DOING)?))
    }

    /// On a leader: drops the slots of members that are members no more.
    pub(crate) async fn drop_strangers(&self, session: &Session, rule: &Rule) -> Result<(), Error> {
        let roster = self.settings.borrow().roster.clone();
        if roster.is_empty() {
            return Ok(());
        }
        let set = self.config.identity.member.set().to_owned();
        for slot in self.our_slots(session).await?.iter().filter(|s| !s.active) {
            let name = MemberName::new(&set, slot.parsed.ordinal);
            if !roster.contains(&name) && !rule.followers.iter().any(|f| f.name == name) {
                self.drop_slot(session, &slot.name).await;
            }
        }
        Ok(())
    }

    /// On a follower: drops the slots that it made when it led; they would keep WAL for ever.
    pub(crate) async fn drop_own_slots(&self, session: &Session) -> Result<(), Error> {
        for slot in self.our_slots(session).await?.iter().filter(|s| !s.active) {
            self.drop_slot(session, &slot.name).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::ChangeId;

    #[test]
    fn a_tag_tells_its_member_and_epoch() {
        let member = MemberId { name: MemberName::new("a-b", 12), incarnation: Incarnation::from_random(9) };
        let epoch = Epoch { number: 7, id: ChangeId::from_random(77) };
        let tag = Tag::new(&member, &epoch);
        assert_eq!(member_of(tag.as_str(), "a-b", &epoch), Some(member.clone()));
        assert_eq!(parse(&tag.slot(), '_').unwrap().number, 7);
        let later = Epoch { number: 8, id: epoch.id.clone() };
        let other = Epoch { number: 7, id: ChangeId::from_random(78) };
        assert_eq!(member_of(tag.as_str(), "a-b", &later), None);
        assert_eq!(member_of(tag.as_str(), "a-b", &other), None);
        for text in ["", "m1", "m1.x", "walreceiver", "m1.aaaaaaaaaa.e1.aaaa.b", "m1.aaaaaaaaaa.e1.aaaaa"] {
            assert_eq!(member_of(text, "a-b", &epoch), None);
        }
    }
}
