//! Where a member may be when something happens.

use crate::bench::{Bench, EPOCH, active, elected, epoch, member, opened, rule, writable};
use crate::cases;
use pgconvoy_ha::{Data, Event, Server};
use pgconvoy_terms::{Lsn, Position, SystemId};

pub(crate) struct State {
    pub(crate) name: &'static str,
    /// In a sentence.
    pub(crate) means: &'static str,
    /// The state of which only the differences are told.
    pub(crate) like: Option<&'static str>,
    pub(crate) make: fn() -> Bench,
}

fn data(me: u32) -> Data {
    Data::Good { incarnation: member(me).incarnation, system: SystemId(1) }
}

fn detached() -> Server {
    let position = Some(Position { timeline: epoch(EPOCH).timeline(), end: Lsn(0x500) });
    Server::Standby { following: None, receiving: false, live: false, position }
}

fn leader() -> Bench {
    let server = writable(&member(1), epoch(EPOCH), &rule(EPOCH, 1), true);
    Bench::start(1, Some(active()), data(1), server).settle()
}

fn follower() -> Bench {
    Bench::start(2, Some(active()), data(2), detached()).settle()
}

fn opener() -> Bench {
    let mut bench = follower();
    cases::alone(&mut bench);
    let register = bench.its_change().unwrap();
    bench.step(Event::Swapped(pgconvoy_ha::SwapOutcome::Won(register)));
    bench
}

fn bystander(leader: Option<u32>) -> Bench {
    let open = opened(&active());
    let term = leader.map_or_else(|| open.clone(), |l| elected(&open, l));
    let me = if leader == Some(2) { 2 } else { 3 };
    let mut bench = Bench::start(me, Some(term.clone()), data(me), detached());
    bench.step(Event::Spec(Bench::spec(1, 3)));
    bench.reads(Some(term), true);
    bench
}

pub(crate) fn all() -> Vec<State> {
    vec![
        State {
            name: "Nobody ever led",
            means: "The PgTerm is at number 0, the volume is empty, and this member is the first of the roster.",
            like: None,
            make: || {
                let mut bench = Bench::start(1, None, Data::Empty, Server::Down);
                bench.step(Event::Spec(Bench::spec(1, 3)));
                bench.reads(None, true);
                bench
            },
        },
        State {
            name: "It follows",
            means: "Member 2 streams from member 1, which leads epoch 7.",
            like: None,
            make: follower,
        },
        State { name: "It leads", means: "Member 1, in epoch 7; W = 1, both others follow.", like: None, make: leader },
        State {
            name: "It opened the next epoch",
            means: "Member 2 heard nothing of member 1 and opened epoch 8; nobody has promised it yet.",
            like: None,
            make: opener,
        },
        State {
            name: "Another opened the next epoch",
            means: "Member 3 has promised epoch 8 and receives nothing any more.",
            like: None,
            make: || bystander(None),
        },
        State {
            name: "It is elected",
            means: "Member 2, in epoch 8; it does not know yet who has stored that.",
            like: None,
            make: || bystander(Some(2)),
        },
        State {
            name: "Another is elected",
            means: "Member 3 has stored that member 1 is elected in epoch 8, and asks it to be let in.",
            like: None,
            make: || bystander(Some(1)),
        },
        State {
            name: "It hands over",
            means: "Member 1 leads epoch 7 and its pod is to stop; checkpoints are under way. As one that leads, but for:",
            like: Some("It leads"),
            make: || {
                let mut bench = leader();
                bench.step(Event::Stop);
                bench
            },
        },
        State {
            name: "Its agent has just begun",
            means: "Member 1 led epoch 7 when its last agent ended, and its PostgreSQL runs; the PgTerm was not read yet.",
            like: None,
            make: || {
                let server = writable(&member(1), epoch(EPOCH), &rule(EPOCH, 1), true);
                let mut bench = Bench::start(1, Some(active()), data(1), server);
                bench.step(Event::Spec(Bench::spec(1, 3)));
                bench
            },
        },
    ]
}
