//! Model 2: what a lease plus self-fencing gives when commits need no follower (W = 0), in discrete time.
//! Local clocks may be off by `skew` ticks over the window. `able to acknowledge` = PostgreSQL of the old
//! leader runs and is not frozen. Violation: the new holder has promoted while the old one is able.
use crate::check::{self, Bounds};
use stateright::{Model, Property};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Opts {
    pub(crate) takeover: u8, // D: observer waits this long (its clock) after the last change it saw
    pub(crate) deadline: u8, // F: leader starts to fence this long (its clock) after the reference instant
    pub(crate) kill: u8,     // K: ticks between starting to fence and the last backend being dead
    pub(crate) skew: u8,
    pub(crate) from_response: bool, // reference instant is the arrival of the reply, not the sending of the request
    pub(crate) agent_hang: bool,
    pub(crate) supervisor: bool, // separate process with its own dead-man timer kills PostgreSQL
    pub(crate) vm_pause: u8,     // whole machine frozen for up to this many ticks, its clock stops too
    pub(crate) freeze: u8,       // whole machine frozen, clock keeps running (CLOCK_BOOTTIME)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Pg {
    Runs,
    Dying(u8),
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pg: Pg,
    hung: bool,
    frozen: u8,
    clock_stops: bool,
    froze_once: bool,
    reference: (u8, u8),             // (true, local) time since the reference instant
    request: Option<(u8, u8, bool)>, // renewal under way: (true, local) since sent, applied at the server?
    version: u8,
    holder_b: bool,
    seen: u8,
    waited: (u8, u8), // observer: version seen, (true, local) time since
}
const CAP: u8 = 40;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Tick(u8, u8),
    Send,
    Apply,
    Reply,
    Drop,
    Fence,
    Hang,
    Freeze(bool, u8),
    Observe,
    Take,
}

impl Opts {
    fn adv(&self, x: (u8, u8), d: u8) -> Option<(u8, u8)> {
        let y = ((x.0 + 1).min(CAP), (x.1 + d).min(CAP));
        if y.0 == CAP || y.1 == CAP {
            return Some((CAP, CAP));
        }
        ((y.0 as i8 - y.1 as i8).unsigned_abs() <= self.skew).then_some(y)
    }
    fn must_fence(&self, s: &State) -> bool {
        s.pg == Pg::Runs && s.frozen == 0 && s.reference.1 >= self.deadline && (!s.hung || self.supervisor)
    }
}

impl Model for Opts {
    type State = State;
    type Action = Act;
    fn init_states(&self) -> Vec<State> {
        vec![State {
            pg: Pg::Runs,
            hung: false,
            frozen: 0,
            clock_stops: false,
            froze_once: false,
            reference: (0, 0),
            request: None,
            version: 0,
            holder_b: false,
            seen: 0,
            waited: (0, 0),
        }]
    }
    fn actions(&self, s: &State, a: &mut Vec<Act>) {
        let awake = s.frozen == 0 && !s.hung && s.pg == Pg::Runs;
        if self.must_fence(s) {
            a.push(Act::Fence)
        } else {
            for la in 0..=2 {
                for lb in 0..=2 {
                    a.push(Act::Tick(la, lb))
                }
            }
        }
        if awake && s.request.is_none() && s.version < 2 {
            a.push(Act::Send)
        }
        if let Some((_, _, applied)) = s.request {
            if !applied && !s.holder_b {
                a.push(Act::Apply)
            }
            if applied && awake {
                a.push(Act::Reply)
            }
            if awake {
                a.push(Act::Drop)
            }
        }
        if self.agent_hang && !s.hung {
            a.push(Act::Hang)
        }
        if !s.froze_once {
            for k in 1..=self.vm_pause {
                a.push(Act::Freeze(true, k))
            }
            for k in 1..=self.freeze {
                a.push(Act::Freeze(false, k))
            }
        }
        if s.seen != s.version {
            a.push(Act::Observe)
        }
        if !s.holder_b && s.seen == s.version && s.waited.1 >= self.takeover {
            a.push(Act::Take)
        }
    }
    fn next_state(&self, s0: &State, act: Act) -> Option<State> {
        let mut s = *s0;
        match act {
            Act::Tick(la, lb) => {
                s.waited = self.adv(s.waited, lb)?;
                if s.frozen > 0 && s.clock_stops {
                    if la != 1 {
                        return None;
                    }
                } else {
                    s.reference = self.adv(s.reference, la)?;
                    if let Some(r) = s.request {
                        let x = self.adv((r.0, r.1), la)?;
                        s.request = Some((x.0, x.1, r.2))
                    }
                }
                if s.frozen > 0 {
                    s.frozen -= 1;
                    if s.frozen == 0 {
                        s.clock_stops = false
                    }
                } else if let Pg::Dying(k) = s.pg {
                    s.pg = if k <= 1 { Pg::Dead } else { Pg::Dying(k - 1) }
                }
            }
            Act::Send => s.request = Some((0, 0, false)),
            Act::Apply => {
                s.version += 1;
                let r = s.request?;
                s.request = Some((r.0, r.1, true))
            }
            Act::Reply => {
                let r = s.request?;
                s.reference = if self.from_response { (0, 0) } else { (r.0, r.1) };
                s.request = None;
            }
            Act::Drop => s.request = None,
            Act::Fence => s.pg = if self.kill == 0 { Pg::Dead } else { Pg::Dying(self.kill) },
            Act::Hang => s.hung = true,
            Act::Freeze(stops, k) => {
                s.frozen = k;
                s.clock_stops = stops;
                s.froze_once = true
            }
            Act::Observe => {
                s.seen = s.version;
                s.waited = (0, 0)
            }
            Act::Take => s.holder_b = true,
        }
        Some(s)
    }
    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |_: &Opts, s: &State| !(s.holder_b && s.pg != Pg::Dead && s.frozen == 0)),
            Property::sometimes(GOAL, |_: &Opts, s: &State| s.holder_b),
        ]
    }
}

/// Bounds, their name, and whether they hold.
pub(crate) fn cases() -> Vec<(&'static str, bool, Opts)> {
    let ok = Opts {
        takeover: 10,
        deadline: 6,
        kill: 1,
        skew: 1,
        from_response: false,
        agent_hang: false,
        supervisor: false,
        vm_pause: 0,
        freeze: 0,
    };
    vec![
        ("D=10 F=6 K=1 skew=1", true, ok),
        ("F=7 (F+skew+K = D-skew, boundary)", true, Opts { deadline: 7, ..ok }),
        ("F=8", false, Opts { deadline: 8, ..ok }),
        ("K=4 (slow shutdown)", false, Opts { kill: 4, ..ok }),
        ("skew=2", false, Opts { skew: 2, ..ok }),
        ("deadline counted from the reply", false, Opts { from_response: true, ..ok }),
        ("agent hangs, PostgreSQL runs on", false, Opts { agent_hang: true, ..ok }),
        ("agent hangs, separate supervisor", true, Opts { agent_hang: true, supervisor: true, ..ok }),
        (
            "machine paused, clock stops, supervisor",
            false,
            Opts { agent_hang: true, supervisor: true, vm_pause: 8, ..ok },
        ),
        (
            // When the machine goes on, PostgreSQL does so at once and its killing takes its time.
            "machine paused, clock runs on, supervisor",
            false,
            Opts { agent_hang: true, supervisor: true, freeze: 12, ..ok },
        ),
    ]
}

/// The one thing that must not be.
pub(crate) const SAFE: &str = "old leader cannot acknowledge once the new one holds the lease";
/// Against vacuity.
pub(crate) const GOAL: &str = "goal: take-over happens";

pub(crate) fn run_all(bounds: Bounds) {
    for (name, holds, o) in cases() {
        let name = format!("lease {name} ({})", if holds { "holds" } else { "does not hold" });
        check::print(&name, o, bounds, true);
    }
}
