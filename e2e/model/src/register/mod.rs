//! Model 3: the register (PgTerm) itself fails: restored from an older backup, or deleted; a person repairs it.
//!
//! Every change of PgTerm that matters (Open, Elect, Reconfigure, Repair) is a *revision* with a random id; here the
//! id is its index in `revs`. `chain` is the set of ids the revision descends from. Epoch = (number, id of its Open).
//! A member keeps the last revision it acted on (`seen`); it may act on stale reads: every revision that ever was
//! current can still be obeyed by a slow agent, also one that a restored register no longer knows.
//! Left to model 1: delayed acknowledgements, disk loss, walsenders with an old rule, restarts.

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

pub(crate) const N: usize = 4;
pub(crate) const L: usize = 7; // WAL bound
pub(crate) const R: usize = 12; // revisions
pub(crate) const V: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutant {
    None,
    IdsIgnored,     // only epoch numbers are compared
    NumberAndId,    // larger number, or same number and same id, is obeyed; descent is not looked at
    PromoteAtOnce,  // the winner promotes without waiting until others have stored its election
    PromoteAlone,   // those who stored it seal every configuration, but need not be W + 1 members
    RepairByNumber, // a repaired register is obeyed for its greater number (whoever was heard), not for its descent
    RepairNewest,   // repair takes the configurations of the record with the greatest number, not of all
    ApplyUnseen,    // a new rule is applied before W followers of the old one have stored it
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Opts {
    pub(crate) n: usize,
    pub(crate) members: u8, // of the first configuration
    pub(crate) w: u8,
    pub(crate) opens: u8,
    pub(crate) writes: u8,
    pub(crate) restores: u8, // register set back to any older state
    pub(crate) deletes: u8,
    pub(crate) repairs: u8,
    pub(crate) reconfs: u8,
    pub(crate) prefix: &'static [Act], // schedule to start from, for mutants that need a long one
    pub(crate) mutant: Mutant,
}

impl Model for Opts {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        let mut revs = [Rev::default(); R];
        let mask = ((1u8 << self.members) - 1) & !1;
        revs[0] = Rev {
            num: 1,
            open: 0,
            chain: 1,
            kind: Kind::Elect,
            leader: 0,
            mask,
            w: self.w,
            cfgs: 1,
            has: 1,
            led: true,
        };
        let f = Node {
            seen: 0,
            seen_active: true,
            led: 0,
            len: 0,
            log: [0; L],
            role: Role::Follower { of: 0, elect: 0 },
            rule: 0,
            mark: 0,
            acked: [0; N],
        };
        let mut nodes = [f; N];
        for node in nodes.iter_mut().skip(self.n) {
            node.role = Role::Idle
        }
        nodes[0] = Node { led: 1, role: Role::Leader { elect: 0 }, ..f };
        let start = State {
            revs,
            nrev: 1,
            reg: 1,
            active: true,
            had: 2,
            nodes,
            heard: [0; N],
            repaired: 0,
            acked: 0,
            next: 1,
            under: [0; V],
            hi: [0; V],
            opens: self.opens,
            restores: self.restores,
            deletes: self.deletes,
            repairs: self.repairs,
            reconfs: self.reconfs,
            dual: false,
        };
        vec![self.prefix.iter().fold(start, |s, a| {
            let mut all = vec![];
            self.actions(&s, &mut all);
            assert!(all.contains(a), "{a:?} is not possible here");
            self.next_state(&s, *a).unwrap_or(s)
        })]
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
                "no write begun after a later leader was promoted is acknowledged by a deposed leader",
                |_: &Opts, s: &State| !s.dual,
            ),
            Property::always("one leader per epoch", |m: &Opts, s: &State| !m.two_leaders(s)),
            // the timeline id is the epoch's number (S6)
            Property::always("one promoted leader per number", |_: &Opts, s: &State| {
                (0..s.nrev as usize)
                    .all(|a| (0..a).all(|b| !(s.revs[a].led && s.revs[b].led && s.revs[a].num == s.revs[b].num)))
            }),
            Property::sometimes("goal: active after a repair, every write acknowledged", |m: &Opts, s: &State| {
                s.active
                    && s.reg != 0
                    && (m.repairs == 0 || s.repaired != 0 && s.reg > s.repaired)
                    && s.acked.count_ones() as u8 == m.writes
            }),
        ]
    }
}
