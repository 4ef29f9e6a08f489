//! The protocol as it is has no counter-example within these bounds, and each of its safeguards is needed: without it the
//! checker finds one. (Longer runs: docs/model.md.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use crate::check::{Bounds, Outcome, enumerate};
use crate::{archive, canvass, lease, progress, quorum, register};

const BOUNDS: Bounds = Bounds { limit: 120, max: 60_000_000, threads: 2 };

/// Every state was visited, as many as docs/model.md says, nothing is violated, and what is to happen does happen.
fn clean(what: &str, states: usize, o: &Outcome) {
    assert!(o.violations.is_empty(), "{what}: {:?}", o.violations);
    assert!(o.complete, "{what}: stopped after {} states and {:.0} s", o.unique, o.seconds);
    assert_eq!(o.unique, states, "{what}: another model than the one that is written about");
    assert_eq!(o.goals, 1, "{what}: the goal is never reached, so nothing was shown");
}

fn killed(what: &str, o: &Outcome) {
    assert!(!o.violations.is_empty(), "{what}: nothing is violated without this safeguard ({} states)", o.unique);
}

fn base() -> quorum::Opts {
    quorum::Opts {
        n: 3,
        w: 1,
        epochs: 3,
        writes: 2,
        bounces: 0,
        losses: 0,
        reconfs: 0,
        any_mask: false,
        misroute: false,
        replay: false,
        steps: false,
        locks: 3,
        asks: 0,
        breaks: 0,
        degrade: false,
        mutant: quorum::Mutant::None,
    }
}

fn base_register() -> register::Opts {
    register::Opts {
        n: 3,
        members: 3,
        w: 1,
        opens: 1,
        writes: 1,
        restores: 1,
        deletes: 0,
        repairs: 0,
        reconfs: 0,
        prefix: &[],
        mutant: register::Mutant::None,
    }
}

#[test]
fn epochs_pledges_and_quorums_lose_nothing() {
    let b = base();
    for (what, states, o) in [
        ("two members", 148_608, quorum::Opts { n: 2, epochs: 4, ..b }),
        ("three members", 131_805, quorum::Opts { writes: 1, ..b }),
        ("W = 2", 753_333, quorum::Opts { w: 2, ..b }),
        ("a restart", 963_631, quorum::Opts { writes: 1, bounces: 1, replay: true, ..b }),
        ("a lost disk", 507_402, quorum::Opts { epochs: 2, writes: 1, losses: 1, asks: 1, ..b }),
        ("attaching step by step", 187_376, quorum::Opts { writes: 1, steps: true, ..b }),
        ("a copy that breaks off", 1_892_986, quorum::Opts { writes: 1, breaks: 1, ..b }),
        (
            "a copy that breaks off, and a lost disk",
            300_942,
            quorum::Opts { epochs: 2, writes: 1, losses: 1, breaks: 1, ..b },
        ),
        (
            "a leader that goes on alone",
            2_077_297,
            quorum::Opts { epochs: 2, writes: 2, reconfs: 2, degrade: true, ..b },
        ),
    ] {
        clean(what, states, &enumerate(o, BOUNDS));
    }
}

#[test]
fn every_safeguard_of_an_epoch_is_needed() {
    for o in quorum::mutants(base()) {
        killed(&format!("{:?}", o.mutant), &enumerate(o, BOUNDS));
    }
}

#[test]
fn a_register_that_fails_and_is_repaired_loses_nothing() {
    let b = base_register();
    for (what, states, o) in [
        ("four members, set back", 212_956, register::Opts { n: 4, members: 4, ..b }),
        ("W = 2, set back", 186_315, register::Opts { w: 2, opens: 2, ..b }),
        ("a change of the rule", 244_328, register::Opts { reconfs: 1, ..b }),
        ("deleted, and repaired twice", 197_271, register::Opts { opens: 0, restores: 0, deletes: 1, repairs: 2, ..b }),
        ("deleted, and repaired", 168_920, register::Opts { restores: 0, deletes: 1, repairs: 1, ..b }),
        ("repaired although nothing was wrong", 251_163, register::Opts { restores: 0, repairs: 1, ..b }),
    ] {
        clean(what, states, &enumerate(o, BOUNDS));
    }
}

#[test]
fn every_safeguard_of_the_register_is_needed() {
    for o in register::mutants() {
        killed(&format!("{:?}", o.mutant), &enumerate(o, BOUNDS));
    }
}

#[test]
fn nobody_gets_stuck() {
    let o = quorum::Opts { writes: 1, ..base() };
    let p = progress::search(o, |s| s.term.phase == quorum::Phase::Active, |s| s.term.epoch == o.epochs);
    assert!(p.states > 100_000 && p.stuck.is_none(), "{:?}", p.stuck);
    let o = register::Opts { writes: 0, repairs: 1, ..base_register() };
    let p = progress::search(o, |s| o.serves(s), |s| o.spent(s));
    assert!(p.states > 100_000 && p.stuck.is_none(), "{:?}", p.stuck);
}

/// A leader is lost while a follower that never followed it is copied anew: the rest goes on without a person.
#[test]
fn who_never_attached_keeps_nobody_waiting() {
    let o = quorum::Opts { writes: 0, losses: 1, breaks: 1, ..base() };
    let search = |o: quorum::Opts| {
        let active = |s: &quorum::State| s.term.phase == quorum::Phase::Active;
        progress::search(o, active, |s| s.term.epoch == o.epochs || !o.hopeful(s))
    };
    let p = search(o);
    assert!(p.states > 1_000_000 && p.stuck.is_none(), "{:?}", p.stuck);
    let p = search(quorum::Opts { mutant: quorum::Mutant::NotesUnused, ..o });
    assert!(p.stuck.is_some(), "nobody needs the notes");
}

/// A leader that acknowledges is left alone, one that cannot is replaced where others could, and in vain nobody tries.
#[test]
fn canvass_disturbs_nobody_and_leaves_nobody_stalled() {
    use canvass::Rule;
    for (n, w) in [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1)] {
        let seen = |rule, ports| canvass::count(n, w, rule, ports);
        for ports in [false, true] {
            let c = seen(Rule::Probed, ports);
            assert!(c.all > 10, "n={n} w={w}");
            assert_eq!((c.unstable, c.livelock, c.futile), (0, 0, 0), "n={n} w={w} {:?}", c.example);
        }
        assert!(seen(Rule::Silence, false).unstable > 0 || w >= n as u8 - 1, "n={n} w={w}: silence alone would do");
    }
    assert!(canvass::count(4, 2, Rule::NoSayers, false).livelock > 0, "a leader need not say whether it has a quorum");
    assert!(canvass::count(5, 1, Rule::AnyMajority, false).unstable > 0, "a majority of those reached would do");
    assert!(canvass::count(3, 1, Rule::Quorate, true).futile > 0, "nobody need be reached on PostgreSQL's port");
}

/// Which bounds of lease and fencing hold, and which do not.
#[test]
fn a_lease_is_as_good_as_its_arithmetic() {
    for (what, holds, o) in lease::cases() {
        let o = enumerate(o, BOUNDS);
        assert_eq!(o.violations.is_empty(), holds, "{what}: {:?}", o.violations);
        assert!(!holds || o.goals == 1, "{what}: nobody ever takes over");
    }
}

/// What lies in the archive is a part of every later leader's log, nothing is overwritten, and a reader stops at forks.
#[test]
fn the_archive_holds_one_log() {
    for (what, states, o) in archive::cases() {
        let outcome = enumerate(o, BOUNDS);
        match states {
            // Where nobody takes over there is one epoch only.
            Some(states) if !o.moves => {
                assert!(outcome.violations.is_empty() && outcome.complete, "{what}: {:?}", outcome.violations);
                assert_eq!(outcome.unique, states, "{what}: another model than the one that is written about");
            }
            Some(states) => clean(what, states, &outcome),
            None => killed(what, &outcome),
        }
    }
}

#[test]
fn every_safeguard_of_the_archive_is_needed() {
    for o in archive::mutants() {
        killed(&format!("{:?}", o.mutant), &enumerate(o, BOUNDS));
    }
}
