//! What happens to a member.

use crate::{Local, Unattached};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, Lsn, MemberId, MemberName, Position, Term, TimelineId};
use std::collections::BTreeSet;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time passed. Comes at least every 500 ms, and at [`crate::Output::wake`].
    Tick,
    /// The PgTerm was read, by watch or by GET. `proof` = the time at which a quorum GET that returned it was *sent*;
    /// a watch proves nothing.
    Term {
        /// What it holds.
        register: Register,
        /// When the reading was asked for.
        proof: Option<crate::Instant>,
    },
    /// How [`crate::Effect::Swap`] ended.
    Swapped(SwapOutcome),
    /// Whether this member holds the Lease now.
    Lease(bool),
    /// The spec, as far as it matters here.
    Spec(Spec),
    /// PostgreSQL and the volume, as they are.
    Local(Local),
    /// A peer asks; it gets its answer by [`crate::Effect::Reply`] or through [`crate::Effect::Admit`].
    Asked {
        /// Who asks (the name in its certificate).
        from: MemberName,
        /// To name the question in the answer.
        id: AskId,
        /// What.
        ask: Ask,
    },
    /// A peer answered what [`crate::Effect::Ask`] asked, or did not within its deadline.
    Answered {
        /// The question.
        id: AskId,
        /// Who was asked.
        from: MemberName,
        /// What it said.
        answer: Result<Answer, Unreachable>,
    },
    /// The checkpoints that [`Effect::Checkpoint`](crate::Effect::Checkpoint) asked for are done, or could not be.
    Checkpointed,
    /// A planned switchover: if this member leads, another is to lead in its place.
    HandOver {
        /// Who, if somebody wishes for one; another leads when that one cannot.
        to: Option<MemberName>,
    },
    /// Whether a person has another member lead in place of one that is gone, by the rules, or gives up what stands in the way of
    /// that: the rules of this epoch, and with them commits that only members that are gone may hold. A level: `None` takes it back.
    TakeOver {
        /// The number of the epoch that it ends; nothing happens once a later one became active.
        epoch: Option<u32>,
        /// Whether its rules are given up. Otherwise the next leader has everything that was acknowledged, or there is none.
        accept_loss: bool,
    },
    /// Whether a person wants the register repaired. A level: `None` takes it back.
    Repair(Option<Repair>),
    /// The pod is to stop.
    Stop,
}

/// The register as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Its resourceVersion: what a swap is based on.
    pub version: String,
    /// The term in it; `None` at number 0.
    pub term: Option<Term>,
    /// At number 0: whether it was made again in place of one that was lost, so that nobody may found a database.
    pub remade: bool,
}

/// That the register, which was lost or rolled back, be made from the members' records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// Whether a person gives up what only members hold that cannot be asked.
    pub accept_loss: bool,
    /// The spec says that kept data is gone on with: this is tried until it is done, and only in a register that nobody has used.
    pub adopt: bool,
}

/// How a compare-and-swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapOutcome {
    /// Done; this is the register now.
    Won(Register),
    /// Somebody else changed it before. Read it again.
    Lost,
    /// No answer: it may have been done or not. Read it again.
    Unknown,
    /// The API server refuses the content; a bug or a tampered term. The sentence is for a person.
    Refused(String),
}

/// What the user asks for, as far as the protocol is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// Who should be a member now; empty = not known yet.
    pub roster: BTreeSet<MemberName>,
    /// W that is asked for.
    pub acknowledgements: u32,
    /// Whether another member leads only when a person has said so.
    pub manual: bool,
    /// Whether a leader that serves goes on with fewer acknowledgements, rather than let commits wait, while too few followers
    /// keep up.
    pub degrade: bool,
}

/// The name of one question between agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Why a peer gave no answer. Neither proves anything about its PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// It did not answer in time, or not usably.
    Silent,
    /// Its address answers that nobody listens on the agent's port, or it has no address (any more).
    Nobody,
}

/// What members ask each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Promise to take part in no epoch before this one.
    Pledge {
        /// The term that opened it.
        term: Term,
    },
    /// Keep this term on your volume (Confirm, and the first half of Reconfigure).
    Store {
        /// The term.
        term: Term,
    },
    /// Is this epoch still your promise?
    Vouch {
        /// The epoch.
        epoch: Epoch,
        /// Names this very question.
        nonce: u64,
        /// Whether the asker has a quorum: W followers of every rule stream and have vouched within D.
        quorate: bool,
    },
    /// Have you, within D, heard a leader that has a quorum? (Canvass: changes nothing.)
    Canvass {
        /// The epoch that the asker suspects to be without a leader.
        epoch: Epoch,
    },
    /// What do you go by? (Repair: changes nothing.)
    Recall {},
    /// Let me follow you in this epoch.
    Attach {
        /// The epoch, which the asker has stored as its promise.
        epoch: Epoch,
        /// The asker and its data.
        member: MemberId,
        /// How much of the log it holds; `None`: nothing yet, it is about to clone.
        position: Option<Position>,
    },
}

/// Whether a leader with a quorum was heard of within D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Yes.
    Yes,
    /// No.
    No,
    /// This member has not been listening for that long; not a no.
    Unknown,
}

/// What members answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Promised, and on disk. The position is there once it is known for sure and nothing is received any more.
    Pledged {
        /// Who promised; `None`: a member without data, which counts for nothing.
        member: Option<MemberId>,
        /// How much of the log it holds; `None`: not known yet, ask again.
        position: Option<Position>,
        /// Where data of this volume acknowledged nothing, whatever has become of it.
        unattached: Vec<Unattached>,
    },
    /// Stored, and on disk; nothing is received from an earlier leader any more.
    Stored {
        /// Who stored it; `None`: a member without data, which counts for nothing.
        member: Option<MemberId>,
        /// Names of data that was on this volume and is gone: what the record holds binds it all the same.
        former: Vec<Incarnation>,
    },
    /// The epoch is still what I promised.
    Vouched {
        /// Who says so.
        member: MemberId,
        /// The question.
        nonce: u64,
    },
    /// What I have heard of the epoch's leader.
    Canvassed {
        /// Who says so; `None`: a member without data.
        member: Option<MemberId>,
        /// Heard or not.
        heard: Heard,
        /// Whether its PostgreSQL is up as a standby, so that it could lead or acknowledge.
        able: bool,
        /// Whether it hears the leader's PostgreSQL itself on the stream ([`crate::Server::Standby`]).
        live: bool,
        /// Where data of this volume acknowledged nothing, as of now.
        unattached: Vec<Unattached>,
    },
    /// What I go by.
    Recalled {
        /// Who says so; `None`: a member without data.
        member: Option<MemberId>,
        /// The term that it acted on last.
        term: Option<Term>,
    },
    /// You may stream through this slot.
    Admitted {
        /// The replication slot.
        slot: String,
        /// Whom to copy from, if a copy is needed: a follower that is near where there is one, else the leader.
        from: MemberName,
    },
    /// Your log left mine.
    Diverged {
        /// Your timeline.
        timeline: TimelineId,
        /// Where mine left it; 0/0: it did not, but the log that you need next is gone here, so only a copy helps.
        fork: Lsn,
    },
    /// Not now; ask again later.
    NotYet,
    /// No. The asker learns what this member goes by.
    Refused {
        /// A sentence.
        why: String,
        /// The newest change this member acted on.
        head: Option<ChangeId>,
        /// The epoch it promised.
        promised: Option<Epoch>,
    },
}
