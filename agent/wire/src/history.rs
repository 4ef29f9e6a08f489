//! Timeline history files.

use bytes::Bytes;
use pgconvoy_terms::{Lsn, TimelineId};

/// A history file as the server sent it, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    /// The file's name, `0000000A.history`.
    pub name: String,
    /// Its bytes, to be written as they are.
    pub content: Bytes,
    /// What they say.
    pub history: History,
}

/// One line of a history file: a timeline was left for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// Where: WAL of it from here on is not part of this history.
    pub fork: Lsn,
    /// Why, as PostgreSQL wrote it.
    pub reason: String,
}

/// How a timeline came to be: its ancestors, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The timeline whose history it is.
    pub timeline: TimelineId,
    /// Its ancestors. Empty for a first timeline, and for a file of comments only.
    pub entries: Vec<HistoryEntry>,
}

impl History {
    /// The history of a timeline that came from no other.
    pub fn first(timeline: TimelineId) -> Self {
        Self { timeline, entries: Vec::new() }
    }

    /// Reads the history file of `timeline`. Comments and empty lines count for nothing.
    ///
    /// Timelines must rise; forks need not: a standby that had heard of a newer timeline but held no byte of it writes,
    /// when promoted, a fork that lies before the one above it. [`History::fork_of`] takes that into account.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn parse(timeline: TimelineId, content: &[u8]) -> Result<Self, String> {
        let mut entries: Vec<HistoryEntry> = Vec::new();
        // The reason is free text in whatever encoding the server's log has.
        for (number, line) in String::from_utf8_lossy(content).lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |what: &str| {
                let shown: String = line.chars().take(80).collect();
                format!("line {} of the history of timeline {timeline} {what}: {shown:?}", number + 1)
            };
            let (parent, rest) =
                line.split_once(char::is_whitespace).ok_or_else(|| bad("is no timeline and position"))?;
            let rest = rest.trim_start();
            let (fork, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let parent = TimelineId(parent.parse().map_err(|_| bad("does not begin with a timeline"))?);
            let fork = fork.parse().map_err(|_| bad("has no position"))?;
            if entries.last().is_some_and(|last| last.timeline >= parent) || parent >= timeline || parent.0 == 0 {
                return Err(bad("names a timeline out of order"));
            }
            entries.push(HistoryEntry { timeline: parent, fork, reason: reason.trim().to_owned() });
        }
        Ok(Self { timeline, entries })
    }

    /// The timeline from which this one was forked, and where.
    pub fn parent(&self) -> Option<(TimelineId, Lsn)> {
        self.entries.last().map(|e| (e.timeline, e.fork))
    }

    /// Up to where WAL of `timeline` is part of this history; `None` when it is the newest timeline itself (no end) or
    /// no ancestor (see [`History::contains`]).
    ///
    /// It is the *lowest* fork from that line on. The line's own fork is not enough when a later fork lies before it:
    /// then the log turned off already there.
    pub fn fork_of(&self, timeline: TimelineId) -> Option<Lsn> {
        let from = self.entries.iter().position(|e| e.timeline == timeline)?;
        self.entries.get(from..)?.iter().map(|e| e.fork).min()
    }

    /// Whether `timeline` is this one or an ancestor of it.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.entries.iter().any(|e| e.timeline == timeline)
    }

    /// The timeline whose WAL holds the byte at `position`.
    pub fn timeline_at(&self, position: Lsn) -> TimelineId {
        let holds = |e: &&HistoryEntry| self.fork_of(e.timeline).is_some_and(|end| position < end);
        self.entries.iter().find(holds).map_or(self.timeline, |e| e.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: u32, text: &str) -> Result<History, String> {
        History::parse(TimelineId(timeline), text.as_bytes())
    }

    #[test]
    fn postgresqls_own_file_is_read() {
        let h =
            history(9, "1\t0/3000148\tno recovery target specified\n\n  # pgconvoy: no timeline\n5  1/0\n").unwrap();
        assert_eq!(h.parent(), Some((TimelineId(5), Lsn(0x1_0000_0000))));
        assert_eq!(h.entries[0].reason, "no recovery target specified");
        assert_eq!(h.fork_of(TimelineId(1)), Some(Lsn(0x300_0148)));
        assert_eq!(h.fork_of(TimelineId(9)), None);
        assert!(h.contains(TimelineId(9)) && h.contains(TimelineId(5)) && !h.contains(TimelineId(4)));
        assert_eq!(h.timeline_at(Lsn(0x300_0147)), TimelineId(1));
        assert_eq!(h.timeline_at(Lsn(0x300_0148)), TimelineId(5));
        assert_eq!(h.timeline_at(Lsn(0x1_0000_0000)), TimelineId(9));
    }

    #[test]
    fn a_stub_of_comments_has_no_ancestors() {
        assert_eq!(history(6, "# pgconvoy: no timeline\n").unwrap(), History::first(TimelineId(6)));
    }

    #[test]
    fn forks_that_go_backwards_shorten_what_lies_before() {
        // 8 was heard of, 9 was forked from 5's WAL before 8 began: WAL of 5 behind 0/4000 belongs to nobody.
        let h = history(9, "5\t0/5000\tx\n8\t0/4000\ty\n").unwrap();
        assert_eq!(h.fork_of(TimelineId(5)), Some(Lsn(0x4000)));
        assert_eq!(h.timeline_at(Lsn(0x3FFF)), TimelineId(5));
        assert_eq!(h.timeline_at(Lsn(0x4800)), TimelineId(9));
    }

    #[test]
    fn what_is_no_history_is_refused_with_its_line() {
        for (text, part) in [
            ("x\n", "line 1"),
            ("1\t0/1\na 0/2\n", "line 2"),
            ("1\tzero\n", "no position"),
            ("1\n", "no timeline and position"),
            ("2\t0/1\n1\t0/2\n", "out of order"),
            ("1\t0/1\n1\t0/2\n", "out of order"),
            ("9\t0/1\n", "out of order"),
            ("0\t0/1\n", "out of order"),
        ] {
            let said = history(9, text).unwrap_err();
            assert!(said.contains(part), "{text:?}: {said}");
        }
        assert!(History::parse(TimelineId(2), b"1\t0/1\t\xff\xfe\n").is_ok(), "a reason in another encoding");
    }
}
