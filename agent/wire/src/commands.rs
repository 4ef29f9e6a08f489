//! The short commands: who is this, which timelines, which slots.

use crate::{
    client::{Client, Row},
    error::Error,
    history::{History, HistoryFile},
};
use pgconvoy_terms::{Lsn, SystemId, TimelineId};
use std::str::FromStr;

/// What IDENTIFY_SYSTEM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifySystem {
    /// Which `initdb` this data descends from.
    pub system_id: SystemId,
    /// The timeline that the server writes, or replays if it is a standby.
    pub timeline: TimelineId,
    /// How far WAL is flushed, on a standby: received and replayed.
    pub position: Lsn,
    /// The database, if the connection is to one.
    pub dbname: Option<String>,
}

/// A new physical slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Its name.
    pub name: String,
    /// Where a backup would become consistent; `0/0` for a physical slot.
    pub consistent_point: Lsn,
}

/// A physical slot as READ_REPLICATION_SLOT shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// From where WAL is kept; `None` as long as nothing is reserved.
    pub restart_lsn: Option<Lsn>,
    /// The timeline of that position.
    pub restart_timeline: Option<TimelineId>,
}

/// A slot's name, checked: nothing else ever stands in a command where a slot does.
pub(crate) fn slot_name(name: &str) -> Result<&str, Error> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=63).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name);
    }
    Err(Error::Invalid(format!("a slot's name is 1 to 63 characters of a-z, 0-9 and _, got {name:?}")))
}

impl Client {
    /// IDENTIFY_SYSTEM.
    ///
    /// # Errors
    /// [`Error::Server`], [`Error::Protocol`], [`Error::Timeout`], [`Error::Cut`].
    pub async fn identify_system(&mut self) -> Result<IdentifySystem, Error> {
        const DOING: &str = "identifying the system";
        let row = self.one_row("IDENTIFY_SYSTEM", 4, DOING).await?;
        Ok(IdentifySystem {
            system_id: self.parse(&row, 0, DOING)?,
            timeline: TimelineId(self.parse(&row, 1, DOING)?),
            position: self.parse(&row, 2, DOING)?,
            dbname: optional(&row, 3),
        })
    }

    /// The history file of `timeline`, which the server must have: all but the first timeline do.
    ///
    /// # Errors
    /// [`Error::Server`] with code `58P01` when the server has no such file; [`Error::Protocol`] when it is no history
    /// file; [`Error::Timeout`], [`Error::Cut`].
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<HistoryFile, Error> {
        const DOING: &str = "reading a timeline's history";
        let row = self.one_row(&format!("TIMELINE_HISTORY {timeline}"), 2, DOING).await?;
        let (Some(name), Some(Some(content))) = (optional(&row, 0), row.get(1)) else {
            return Err(self.frames.protocol(DOING, "a NULL where the history should be"));
        };
        let history = History::parse(timeline, content).map_err(|e| self.frames.protocol(DOING, e))?;
        Ok(HistoryFile { name, content: content.clone(), history })
    }

    /// Makes a physical slot. With `reserve` it keeps WAL from now on, otherwise from the first connection through it;
    /// a `temporary` one ends with this connection.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible name; [`Error::Server`] with code `42710` when there is such a slot, `53400`
    /// when `max_replication_slots` is reached; [`Error::Timeout`], [`Error::Cut`].
    pub async fn create_physical_slot(
        &mut self,
        name: &str,
        reserve: bool,
        temporary: bool,
    ) -> Result<CreatedSlot, Error> {
        const DOING: &str = "creating a slot";
        let temporary = if temporary { " TEMPORARY" } else { "" };
        let command =
            format!("CREATE_REPLICATION_SLOT \"{}\"{temporary} PHYSICAL (RESERVE_WAL {reserve})", slot_name(name)?);
        let row = self.one_row(&command, 4, DOING).await?;
        Ok(CreatedSlot { name: self.parse(&row, 0, DOING)?, consistent_point: self.parse(&row, 1, DOING)? })
    }

    /// Drops a slot. A slot in use is not waited for.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Server`] with code `42704` when there is no such slot, `55006` when it is in use;
    /// [`Error::Timeout`], [`Error::Cut`].
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), Error> {
        let command = format!("DROP_REPLICATION_SLOT \"{}\"", slot_name(name)?);
        self.rows(&command, "dropping a slot").await.map(drop)
    }

    /// Looks at a physical slot; `None` when there is no such slot.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Server`] when it is a logical slot; [`Error::Timeout`], [`Error::Cut`].
    pub async fn read_slot(&mut self, name: &str) -> Result<Option<Slot>, Error> {
        const DOING: &str = "reading a slot";
        let row = self.one_row(&format!("READ_REPLICATION_SLOT \"{}\"", slot_name(name)?), 3, DOING).await?;
        if optional(&row, 0).is_none() {
            return Ok(None);
        }
        let restart_lsn = optional(&row, 1).map(|_| self.parse(&row, 1, DOING)).transpose()?;
        let restart_timeline = optional(&row, 2).map(|_| self.parse(&row, 2, DOING)).transpose()?.map(TimelineId);
        Ok(Some(Slot { restart_lsn, restart_timeline }))
    }

    /// The value of a setting, as SHOW writes it (`16MB`).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible name; [`Error::Server`] with code `42704` for an unknown one;
    /// [`Error::Timeout`], [`Error::Cut`].
    pub async fn show(&mut self, name: &str) -> Result<String, Error> {
        const DOING: &str = "reading a setting";
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
        if name.is_empty() || !name.bytes().all(good) {
            return Err(Error::Invalid(format!("{name:?} can be no setting")));
        }
        let row = self.one_row(&format!("SHOW {name}"), 1, DOING).await?;
        self.parse(&row, 0, DOING)
    }

    async fn one_row(&mut self, command: &str, columns: usize, doing: &'static str) -> Result<Row, Error> {
        let mut rows = self.rows(command, doing).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) if row.len() >= columns => Ok(row),
            _ => Err(self.frames.protocol(doing, "not one row of the expected columns")),
        }
    }

    fn parse<T: FromStr>(&self, row: &Row, column: usize, doing: &'static str) -> Result<T, Error> {
        parse(row, column).ok_or_else(|| self.frames.protocol(doing, format!("column {} is unreadable", column + 1)))
    }
}

/// A column that may be NULL.
pub(crate) fn optional(row: &Row, column: usize) -> Option<String> {
    row.get(column)?.as_ref().map(|b| String::from_utf8_lossy(b).into_owned())
}

/// A column that must be there and readable.
pub(crate) fn parse<T: FromStr>(row: &Row, column: usize) -> Option<T> {
    optional(row, column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_slot_name_gets_into_a_command() {
        assert!(slot_name("m1_abc_e7_wxyz").is_ok());
        for bad in ["", "A", "a-b", "a\" PHYSICAL", "a b", &"x".repeat(64)] {
            assert!(slot_name(bad).is_err(), "{bad:?}");
        }
    }
}
