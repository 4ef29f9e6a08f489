//! What is: PostgreSQL and the volume of this member, as the executor sees them.

use crate::Instant;
use pgconvoy_terms::{Epoch, Incarnation, Lsn, MemberId, Position, SystemId, TimelineId};
use std::collections::BTreeSet;

/// What is on this member, reported whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The revision of the newest [`crate::Want`] that everything below was brought in line with; what is seen while
    /// an older want is still being worked on proves nothing about the new one.
    pub applied: u64,
    /// What is on the volume.
    pub data: Data,
    /// What runs.
    pub server: Server,
    /// Why the want is not reached, when it is not: a sentence for people.
    pub problem: Option<String>,
    /// The revision of a want that cannot be reached, however often it is tried.
    pub in_vain: Option<u64>,
    /// When PostgreSQL was asked the newest question that it has answered (or when it was seen that there is none). Comes
    /// afresh at least once a second while it answers.
    pub answered: Instant,
    /// Whether the disk has taken no log for so long, while somebody waits for it, that it counts as hung.
    pub stalled: bool,
    /// After an orderly stop of a writable server: timeline and *beginning* of its last record, the shutdown checkpoint.
    /// Whoever holds more than this holds all that it wrote.
    pub shutdown: Option<Position>,
}

/// What is on the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Not looked at yet.
    Unknown,
    /// Nothing.
    Empty,
    /// A clone or initdb that did not end; worthless.
    HalfMade,
    /// Something that is not this set's, or cannot be read: never touched. The sentence says what.
    Foreign(String),
    /// A data directory.
    Good {
        /// Its name.
        incarnation: Incarnation,
        /// The set of databases it descends from.
        system: SystemId,
    },
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// No PostgreSQL process at all.
    Down,
    /// It starts, recovers, stops, or cannot be asked.
    Busy,
    /// It replays.
    Standby {
        /// The epoch whose leader it is set to receive from; `None`: from nobody.
        following: Option<Epoch>,
        /// Whether a WAL receiver process exists.
        receiving: bool,
        /// Whether the leader's PostgreSQL itself has been heard on the stream within D: it lives, and this member's
        /// flushes reach it.
        live: bool,
        /// How much of the log it holds; only when it receives nothing and this is known for sure.
        position: Option<Position>,
    },
    /// It is writable.
    Primary {
        /// The epoch it was made writable for.
        epoch: Epoch,
        /// The timeline it writes.
        timeline: TimelineId,
        /// Timeline and place that this one left; `None` for the first timeline.
        fork: Option<(TimelineId, Lsn)>,
        /// The rule that every commit waits for now. See [`RuleInForce`].
        in_force: Option<RuleInForce>,
        /// Whether the epoch's own row is committed under that rule.
        barrier: bool,
        /// Whether clients are let in.
        gate: bool,
        /// Who streams under a tag of this epoch.
        streams: Vec<Stream>,
    },
}

/// A rule that is in force *to the letter*: a new session shows it, no WAL sender lives that began before it, and W of
/// its followers have flushed everything that was flushed here when that was so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInForce {
    /// Whose flushes count.
    pub followers: BTreeSet<MemberId>,
    /// How many of them.
    pub acknowledgements: u32,
}

/// A follower that streams under its tag of this epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Who.
    pub member: MemberId,
    /// Whether it is so near that counting on it would not stall commits.
    pub caught_up: bool,
}
