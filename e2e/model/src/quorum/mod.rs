//! Model 1: epoch + pledge + quorum failover, no clock assumption at all.
//!
//! The API server is one linearizable record (`Term`), changed only by compare-and-swap.
//! Every node is a PostgreSQL instance with its agent. Nodes may be arbitrarily slow (a step is
//! simply not taken), may restart (volatile state lost), may lose their disk, acknowledgements may
//! be delayed without bound, anybody may start a new epoch at any moment (the Lease is only a
//! failure detector, so the worst lease is "expires at will").

mod act;
mod effect;
mod enabled;
mod judge;
mod mutants;
mod state;
pub(crate) use act::Act;
pub(crate) use mutants::mutants;
pub(crate) use state::*;
use stateright::{Model, Property};

// array bound; `Opts::n` is the number of nodes used
#[cfg(feature = "five")]
pub(crate) const N: usize = 5;
#[cfg(not(feature = "five"))]
pub(crate) const N: usize = 4;
pub(crate) const L: usize = 8; // WAL bound
pub(crate) const E: usize = 5; // epoch bound
pub(crate) const V: usize = 4; // client writes bound
pub(crate) const C: usize = 5; // configurations that can be pending in Term

/// Safeguards that can be switched off, one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutant {
    None,
    NoPledge,              // recruit only looks (receiver seen down), follower may re-attach to the old leader
    ReportBeforeStop,      // position is reported first, the WAL receiver is stopped later
    VolatilePledge,        // pledge kept in memory only
    QuorumTooSmall,        // R + W >= F instead of >
    BestByLsnOnly,         // pick the longest WAL, ignoring the epoch (timeline) of its last record
    DropConfigsEarly,      // forget the previous configuration when elected, not when activated
    ApplyBeforeRecord,     // change synchronous_standby_names first, record it in Term afterwards
    FinishUncovered,       // drop the old configuration before the new quorum holds the old prefix
    FinishUnsettled,       // drop the old configuration while some walsender may still use it
    UntaggedAcks,          // application_name without epoch, follower can be routed to a stale leader
    NoCas,                 // two coordinators elect in the same epoch
    PromoteUnsynced,       // pg_promote first, synchronous_standby_names afterwards
    ReuseIdentity,         // a member that lost its disk comes back under the same identity
    AckWithoutIncarnation, // flush positions kept per member name, not per (member, disk incarnation)
    AsyncForced,           // W = 0 and failover without the old leader
    ReportReplayOnly,      // a restarted follower reports what it has replayed, not what it has flushed
    UnknownSeals,          // a pledge without a known position counts towards sealing
    AttachUnchecked,       // a diverged follower connects under the right tag (neither agent compares)
    SlotEarly,             // leader's lock alone, slot made for a position reported before the follower promised
    AdoptBlind,            // a restarted agent adopts the running leader without asking anybody
    AnswerAnyDisk,         // answers to "is e still your promise" count per member name, not per incarnation
    AnswerStale,           // answers to an earlier question count for a later one
    TornSeals,             // a member whose data is worthless seals also where it followed
    OtherEpochSeals,       // that it did not follow in the newest epoch counts for every rule
    NotedLate,             // that it follows is noted after it has begun to
    NobodySeals,           // a rule of the leader alone counts as sealed when all of its followers, none, have promised
    NotesUnused,           // safe, but gets stuck
}

impl Mutant {
    pub(crate) const ALL: [Mutant; 15] // those that need no further option
        = [Mutant::NoPledge, Mutant::ReportBeforeStop, Mutant::VolatilePledge, Mutant::QuorumTooSmall,
        Mutant::BestByLsnOnly, Mutant::DropConfigsEarly, Mutant::ApplyBeforeRecord, Mutant::FinishUncovered,
        Mutant::FinishUnsettled, Mutant::UntaggedAcks, Mutant::NoCas, Mutant::PromoteUnsynced, Mutant::ReuseIdentity,
        Mutant::AckWithoutIncarnation, Mutant::AsyncForced];
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Opts {
    pub(crate) n: usize,
    pub(crate) w: u8,
    pub(crate) epochs: u8,
    pub(crate) writes: u8,
    pub(crate) bounces: u8,
    pub(crate) losses: u8,
    pub(crate) reconfs: u8,
    pub(crate) any_mask: bool,
    pub(crate) misroute: bool,
    pub(crate) replay: bool,  // after a restart the position is known only when replay has ended
    pub(crate) steps: bool,   // attach = promise, slot, connect as separate steps; else one checked step
    pub(crate) locks: u8, // steps: 1 the follower's agent compares, 2 the leader's agent compares before it makes the slot
    pub(crate) asks: u8,  // questions "is e still your promise" that leaders may ask
    pub(crate) breaks: u8, // rewinds or copies that may break off; members then note in which epochs they followed
    pub(crate) degrade: bool, // a change may be to a rule of the leader alone
    pub(crate) mutant: Mutant,
}

impl Model for Opts {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        let all = self.all();
        let w = if self.mutant == Mutant::AsyncForced { 0 } else { self.w };
        let c = Cfg { epoch: 1, leader: 0, mask: all & !1, w, incs: 0 };
        let mut cfgs = [Cfg::default(); C];
        cfgs[0] = c;
        let f = Node {
            promised: 1,
            led: 0,
            inc: 0,
            len: 0,
            log: [0; L],
            role: Role::Follower { of: 0, tag: 1 },
            mask: 0,
            w: 0,
            incs: 0,
            omask: 0,
            ow: 0,
            mark: 0,
            acked: [0; N],
            known: true,
            slots: 0,
            torn: 0,
            seen: (self.breaks > 0).into(),
        };
        let mut nodes = [f; N];
        for node in nodes.iter_mut().skip(self.n) {
            node.role = Role::Idle
        }
        nodes[0] = Node { led: 1, role: Role::Leader { epoch: 1 }, mask: c.mask, w, slots: c.mask, ..f };
        let mut ecfg = [Cfg::default(); E];
        ecfg[0] = c;
        let mut elected = [0; E];
        elected[0] = 1;
        vec![State {
            term: Term { epoch: 1, phase: Phase::Active, leader: 0, linc: 0, n: 1, cfgs },
            nodes,
            wire: [[(0, 0, 0); N]; N],
            reports: [(0, 0, 0); N],
            ecfg,
            elected,
            hi: [0; V],
            acked: 0,
            next: 1,
            bounces: self.bounces,
            losses: self.losses,
            reconfs: self.reconfs,
            breaks: self.breaks,
            dual: false,
            stale: false,
            asks: self.asks,
            ask: [(0, false, 0); N],
            blind: false,
        }]
    }

    fn actions(&self, s: &State, a: &mut Vec<Act>) {
        self.enabled(s, a)
    }

    fn next_state(&self, s: &State, act: Act) -> Option<State> {
        self.effect(s, act)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no acknowledged write is lost", |m: &Opts, s: &State| !m.lost(s)),
            Property::always(
                "no write begun after a later election is acknowledged by a deposed leader",
                |_: &Opts, s: &State| !s.dual,
            ),
            Property::always("one leader per epoch", |m: &Opts, s: &State| !m.two_leaders(s)),
            Property::always("no WAL applied from a leader older than the pledge", |m: &Opts, s: &State| {
                m.misroute || !s.stale
            }),
            Property::always("no leader takes itself for undeposed after a later election", |_: &Opts, s: &State| {
                !s.blind
            }),
            Property::sometimes("goal: last epoch active and every write acknowledged", |m: &Opts, s: &State| {
                s.term.epoch == m.epochs && s.term.phase == Phase::Active && bits(s.acked) == m.writes
            }),
        ]
    }
}
