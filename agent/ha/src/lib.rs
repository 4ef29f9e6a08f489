//! Who leads: the failover protocol of pgconvoy (EPQ: epoch, pledge, quorum) as a pure state machine.
//!
//! No clock, no I/O, no async: [`Core::step`] takes the time and one [`Event`] and returns an [`Output`]. The agent's
//! runtime and the simulator run this same code. `docs/failover.md` describes the protocol.
//!
//! Outputs come in two kinds. *Effects* are deeds that happen once, carried out strictly in order: what comes behind a
//! [`Effect::Persist`] happens only when the record is on disk. The rest of an output ([`Want`], lease, publication, …)
//! is a level: what should be from now on, for executors that converge and report what is as [`Local`].

#![forbid(unsafe_code)]

mod core;
mod event;
mod local;
mod output;

pub use crate::core::Core;
pub use event::{Answer, Ask, AskId, Event, Heard, Register, Repair, Spec, SwapOutcome, Unreachable};
pub use local::{Data, Local, RuleInForce, Server, Stream};
pub use output::{Activity, Effect, Output, Permission, Publication, Record, TermTrouble, Unattached, Want, WantKind};

/// Milliseconds on CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Milliseconds since `earlier`; 0 when it is later.
    pub fn since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The durations of the protocol, in milliseconds. Each says what happens when it is too short and when too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader asks its followers whether its epoch is still theirs. Short: traffic. Long: deposed leaders
    /// notice late.
    pub heartbeat: u64,
    /// H: how long a leader serves without proof that it still leads. Short: fences on a stall of the machine.
    /// Long: a deposed leader serves stale reads for as long.
    pub proof: u64,
    /// How long one question to a peer may take. Short: slow members count as gone. Long: every step waits as long.
    pub ask: u64,
    /// How long to wait before asking a peer again. Short: traffic. Long: slow failovers.
    pub ask_again: u64,
    /// How long an epoch that is not active may stand still before it is opened anew (doubles each time, to 5 min).
    /// Short: two candidates disturb each other. Long: a candidate's crash costs as long.
    pub stalled: u64,
    /// How long PostgreSQL may run as leader without news from the agent, with W >= 1. Short: an agent's restart kills
    /// PostgreSQL. Long: stale reads when the agent is dead too.
    pub permission: u64,
    /// D: how long nothing is heard of a leader that has its quorum before a follower asks the others. Short: stalls of
    /// a busy machine are taken for death. Long: an outage lasts as long.
    pub suspect: u64,
    /// How long each later ordinal waits to found a new set, so that the first does it where it can.
    pub found_stagger: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: 1_000,
            proof: 10_000,
            ask: 2_000,
            ask_again: 300,
            stalled: 10_000,
            permission: 30_000,
            suspect: 3_000,
            found_stagger: 5_000,
        }
    }
}
