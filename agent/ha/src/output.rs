//! What a member should do.

use crate::{Ask, AskId, Instant};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, MemberId, MemberName, Position, Rule, Tag, Term};
use std::collections::BTreeSet;

/// What follows from one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Deeds that happen once, in this order. One behind [`Effect::Persist`] waits until that is on disk.
    pub effects: Vec<Effect>,
    /// What the volume and PostgreSQL should be.
    pub want: Want,
    /// How long PostgreSQL may run without news from this agent.
    pub permission: Permission,
    /// Whether the Lease should be held: taken when free, renewed, given up when no longer wanted.
    pub lease: bool,
    /// Whether the Lease does no more than order those who want to open an epoch: no rule depends on the clock, so that a
    /// holder whose pod is gone need not be waited for.
    pub lease_orders: bool,
    /// What the Services should lead to; `None`: not this member's business.
    pub publish: Option<Publication>,
    /// Whether the pod is Ready: attached in the epoch in force.
    pub ready: bool,
    /// What this member is doing, for its status entry and for people.
    pub activity: Activity,
    /// After [`crate::Event::Stop`]: PostgreSQL is stopped and nothing is left to be handed over, so the agent may end.
    pub done: bool,
    /// When to step again at the latest.
    pub wake: Instant,
}

/// The register is not what this member goes by, and a person must put it right. Until then what runs goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermTrouble {
    /// One word, a reason in CamelCase: TermLost, TermRolledBack or TermForeign.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// A deed that happens once.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Put this record on the volume: written, renamed, fsynced. When that fails the agent ends itself.
    Persist(Record),
    /// Replace the register by `term`, if its version is still this one.
    Swap {
        /// The version it must still have.
        version: String,
        /// What to put there.
        term: Term,
    },
    /// Read the register by a quorum GET, and report it as [`crate::Event::Term`] with proof.
    Read,
    /// Ask a peer; answer or deadline come back as [`crate::Event::Answered`].
    Ask {
        /// Names the question.
        id: AskId,
        /// Whom.
        to: MemberName,
        /// What.
        ask: Ask,
        /// Milliseconds.
        within: u64,
    },
    /// Answer a peer.
    Reply {
        /// The question.
        id: AskId,
        /// The answer.
        answer: crate::Answer,
    },
    /// Look whether this follower's log is a part of ours; make its slot and answer [`crate::Answer::Admitted`], or
    /// answer [`crate::Answer::Diverged`]. Only while PostgreSQL is writable for `epoch`; else answer
    /// [`crate::Answer::NotYet`].
    Admit {
        /// The question to answer.
        id: AskId,
        /// Our epoch.
        epoch: Epoch,
        /// Who wants in.
        member: MemberId,
        /// How much of the log it holds; `None`: it is about to clone.
        position: Option<Position>,
        /// Whom it should copy from, if it must.
        from: MemberName,
    },
    /// Run checkpoints while PostgreSQL serves, so that stopping it is quick, and report [`crate::Event::Checkpointed`].
    Checkpoint,
    /// What a person asked for ([`crate::Event::HandOver`], [`crate::Event::TakeOver`]) will not be done.
    RefuseRequest {
        /// A sentence.
        why: String,
    },
    /// Something that people may want to read later: written as an Event of type Normal and logged.
    Tell {
        /// One word, a reason in CamelCase.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
    /// Something that a person must know: written as an Event and logged.
    Alarm {
        /// One word, a reason in CamelCase.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
}

/// What a member keeps on its volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The name of its data.
    pub incarnation: Option<Incarnation>,
    /// The name of data that is being made (a new database, a copy); it becomes `incarnation` once that is complete.
    pub making: Option<Incarnation>,
    /// It takes part in no earlier epoch.
    pub promised: Option<Epoch>,
    /// The term it acted on last.
    pub head: Option<Term>,
    /// The last epoch for which its PostgreSQL was made writable.
    pub led: Option<Epoch>,
    /// Names of data that was on this volume before, as far as a rule still names it.
    pub former: Vec<Incarnation>,
    /// Where data that is or was on this volume acknowledged nothing.
    pub unattached: Vec<Unattached>,
}

/// That the data of this name, which is or was on this volume, never followed anybody in that epoch, and never will: it acknowledged
/// nothing in it. On disk from the moment in which the epoch was promised until the one before the data is first attached in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unattached {
    /// Which data.
    pub incarnation: Incarnation,
    /// In which epoch.
    pub epoch: Epoch,
}

impl Record {
    /// The id of the newest change acted on.
    pub fn head_id(&self) -> Option<&ChangeId> {
        self.head.as_ref().and_then(Term::head)
    }
}

/// What the volume and PostgreSQL should be, numbered: [`crate::Local::applied`] says which one has been reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Goes up whenever `kind` changes.
    pub revision: u64,
    /// What.
    pub kind: WantKind,
}

/// What the volume and PostgreSQL should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantKind {
    /// Leave everything as it is.
    Keep,
    /// Kill every process of PostgreSQL at once (fence), and stay down.
    Fenced,
    /// Stop PostgreSQL in an orderly way, and stay down.
    Stopped,
    /// The volume is empty: make a new database on it, under this name. Nothing runs afterwards.
    Found {
        /// The name of the new data.
        incarnation: Incarnation,
    },
    /// The volume is empty (or holds what may be thrown away): copy the set's data onto it. Nothing runs afterwards.
    Clone {
        /// The name of the new data.
        incarnation: Incarnation,
        /// Whom to copy from.
        from: MemberName,
        /// Slot of the leader that keeps the log meanwhile.
        slot: String,
        /// Whether good data is to be thrown away first.
        replace: bool,
    },
    /// The data's log left the leader's: bring it back to where they part (`pg_rewind`), under its own name. Nothing
    /// runs afterwards. Interrupted half-way, the data counts as half made.
    Rewind {
        /// Whose log is the right one.
        leader: MemberName,
    },
    /// A standby that receives from nobody and whose position is known.
    Detached,
    /// A standby that streams from the leader.
    Follow {
        /// Whom.
        leader: MemberName,
        /// In which epoch.
        epoch: Epoch,
        /// Under which name.
        tag: Tag,
        /// Through which slot.
        slot: String,
        /// Whether clients are let in.
        gate: bool,
    },
    /// Writable: promoted (from [`WantKind::Detached`]) for this epoch, or, with epoch number 1, started as initdb made
    /// it; then with `rule` in force and the epoch's row committed.
    Lead {
        /// The epoch, whose number the timeline must have.
        epoch: Epoch,
        /// By which rule commits are acknowledged.
        rule: Rule,
        /// Whether clients are let in; never before `rule` is in force and the row is committed.
        gate: bool,
    },
}

/// How long PostgreSQL may run without news from the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// No limit.
    Forever,
    /// Until then; every step may move it.
    Until(Instant),
}

/// What the Services should lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whose leader says so.
    pub epoch: Epoch,
    /// The leader, for `-rw` and `-r`; `None` while clients are not let in.
    pub leader: Option<MemberName>,
    /// Followers that stream, for `-ro` and `-r`.
    pub followers: BTreeSet<MemberName>,
}

/// What this member is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// Waiting: for what.
    Waiting(String),
    /// Making the first database.
    Founding,
    /// Copying data from this member.
    Cloning(MemberName),
    /// Going back to where its log left this leader's.
    Rewinding(MemberName),
    /// PostgreSQL replays its own log.
    Recovering,
    /// Collecting pledges for this epoch, becoming its leader, or waiting for its barrier.
    Electing(Epoch),
    /// Not yet streaming from this leader.
    Attaching(MemberName),
    /// Streaming in this epoch.
    Following(MemberName, Epoch),
    /// Leading in this epoch; the text says what is not as asked for, if anything.
    Leading(Epoch, Option<String>),
    /// PostgreSQL was stopped because leadership is in doubt.
    Fenced(String),
    /// A person must look.
    Failed(String),
    /// On the way down.
    Stopping,
}
