//! Promises that have their own test: what may be lost without a quorum (S4), how long a replaced leader serves reads (S9), and
//! that epochs which do not become active do not pile up (L2). The world looks at S1, S2, S3, S4, S8, S9 and S10 in all tests.

use super::*;

/// A leader without a quorum that is cut off acknowledges until its permission ends, not longer. What it acknowledged meanwhile is
/// what is lost; the epoch says so, and it itself says from where on when it comes back.
#[test]
fn without_a_quorum_what_is_lost_has_a_bound_and_is_told() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 0, Faults::none());
        world.run(40_000);
        let before = world.acknowledged();
        world.cut_leader_for(60_000, true, true);
        world.run(9_000);
        let served = world.acknowledged();
        assert!(served > before + 20, "seed {seed}: it stops for nothing");
        // What proved its epoch last was asked a second before, the supervisor gives it 2 s more.
        world.run(4_000);
        let stopped = world.acknowledged();
        world.run(1_000);
        assert_eq!(world.acknowledged(), stopped, "seed {seed}: it acknowledges beyond its permission");
        world.run(40_000);
        assert!(world.lossy(), "seed {seed}");
        let lost = world.lost();
        assert!(lost > 20 && lost <= stopped - before + 5, "seed {seed}: {lost} lost of {}", stopped - before);
        world.run(60_000);
        world.expect(world.was_told("may have been acknowledged, and is given up"), "nobody says what is given up");
        world.check_recovered();
    }
}

/// What is not lost is not called lossy either: the leader's PostgreSQL dies, and what it had is there.
#[test]
fn without_a_quorum_nothing_is_lost_while_the_leader_can_say_what_it_has() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 0, Faults::none());
        world.run(40_000);
        world.kill_leaders_postgres();
        world.run(60_000);
        world.check_recovered();
        assert_eq!((world.lost(), world.lossy()), (0, false), "seed {seed}");
    }
}

/// A leader that is cut off stops serving reads by itself; with its agent dead, by its supervisor; and neither takes longer because
/// its agent begins again and again, and knows nothing each time.
#[test]
fn a_replaced_leader_does_not_serve_reads_for_long() {
    for seed in 0..10 {
        for agent in ["lives", "is dead", "begins again and again"] {
            let mut world = World::new(seed, 3, 1, Faults::none());
            world.run(40_000);
            let leader = world.leader().unwrap();
            world.cut_leader_for(90_000, true, true);
            match agent {
                "is dead" => world.stop_leaders_agent_for(80_000),
                "lives" => {}
                _ => {
                    for _ in 0..14 {
                        world.run(4_500);
                        world.restart_agent(leader);
                    }
                }
            }
            world.run(60_000);
            let stale = world.longest_stale();
            assert!(stale > 2_000, "seed {seed}: the agent {agent}: {stale} ms, too quiet to show anything");
            world.heal();
            world.run(90_000);
            world.check_recovered();
        }
    }
}

/// PostgreSQL of a leader without a quorum stands still, alone or with its agent: another leads, and what thaws acknowledges nothing
/// beside it. (The world looks at that.)
#[test]
fn without_a_quorum_a_frozen_leader_is_replaced() {
    for (seed, agent) in (0..20).map(|s| (s, s % 2 == 0)) {
        let mut world = World::new(seed, 3, 0, Faults::none());
        world.run(40_000);
        let leader = world.freeze_leaders_postgres(150_000);
        if !agent {
            world.stop_leaders_agent_for(150_000);
        }
        let before = world.acknowledged();
        // An agent that lives promises, and says that it does not know yet how much log there is: that is waited for.
        world.run(if agent { 75_000 } else { 25_000 });
        assert!(world.acknowledged() > before, "seed {seed}: no writes, agent lives: {agent}");
        assert_ne!(world.leader(), Some(leader.ordinal()), "seed {seed}");
        world.run(200_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 2, "seed {seed}: an epoch nobody needed");
    }
}

/// No other member reaches the PostgreSQL of the leader: another leads, although that one has most of the log.
#[test]
fn a_leader_whose_postgres_nobody_reaches_is_replaced() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        let leader = world.leader().unwrap();
        world.block_ports(&[leader]);
        world.run(20_000);
        let before = world.acknowledged();
        world.run(10_000);
        assert!(world.acknowledged() > before, "seed {seed}: no writes, epoch {} {:?}", world.epoch(), world.phase());
        assert_ne!(world.leader(), Some(leader), "seed {seed}");
        world.block_ports(&[]);
        world.run(90_000);
        world.check_recovered();
    }
}

/// The agents' certificates expired: no agent hears another, and PostgreSQL's connections stand. Nothing stops while the API server
/// answers, nobody is replaced; and when they are renewed, failover works as before.
#[test]
fn agents_that_do_not_hear_each_other_stop_nothing() {
    for (seed, w) in (0..20).map(|s| (s, if s % 4 == 3 { 0 } else { 1 })) {
        let mut world = World::new(seed, 3, w, Faults::none());
        world.run(40_000);
        world.longest_gap();
        world.set_agents_apart_for(300_000);
        world.run(300_000);
        let gap = world.longest_gap();
        assert!(gap < 1_000, "seed {seed}: {gap} ms without an acknowledgement");
        assert_eq!((world.epoch(), world.server_starts()), (1, 3), "seed {seed}");
        world.run(10_000);
        world.check_recovered();
        world.stop_leader_for(60_000);
        world.run(if w == 0 { 25_000 } else { 8_000 });
        assert_eq!(world.epoch(), 2, "seed {seed}: nobody took over");
    }
}
