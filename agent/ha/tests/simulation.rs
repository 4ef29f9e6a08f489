//! The real cores under a seeded scheduler, with a register, a network and a PostgreSQL that are crueller than real
//! ones. Safety is checked at every step; when the faults stop, the set must come back by itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

#[path = "simulation/degrade.rs"]
mod degrade;
#[path = "simulation/manual.rs"]
mod manual;
#[path = "simulation/promises.rs"]
mod promises;
#[path = "simulation/register.rs"]
mod register;
#[path = "simulation/unattached.rs"]
mod unattached;
mod world;

use world::{Faults, World};

/// Seeds of the tests that draw faults, altogether; more with `PGCONVOY_SEEDS=n`.
fn seeds() -> u64 {
    std::env::var("PGCONVOY_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2_000)
}

fn run_all(members: u32, acknowledgements: u32, seeds: u64, faults: &Faults) -> (u64, u64) {
    let (mut acknowledged, mut epochs) = (0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed, members, acknowledgements, faults.clone());
        world.run(120_000);
        world.heal();
        world.run(90_000);
        world.check_recovered();
        acknowledged += world.acknowledged();
        epochs += u64::from(world.epoch());
    }
    (acknowledged, epochs)
}

#[test]
fn a_calm_set_comes_up_and_stays() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(60_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 1, "an epoch nobody needed");
        assert!(world.acknowledged() > 50);
    }
}

#[test]
fn one_two_and_five_members_come_up() {
    for (members, w) in [(1, 0), (2, 1), (3, 0), (3, 2), (5, 2)] {
        let mut world = World::new(7, members, w, Faults::none());
        world.run(60_000);
        world.check_recovered();
    }
}

#[test]
fn scaling_up_and_down_goes_through_the_rule() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.scale(5);
        world.run(60_000);
        world.check_recovered();
        world.scale(3);
        world.run(30_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 1);
    }
}

#[test]
fn nothing_acknowledged_is_lost_under_faults() {
    let seeds = seeds() / 2;
    let (acknowledged, epochs) = run_all(3, 1, seeds, &Faults::all());
    assert!(acknowledged > 50 * seeds && epochs > 2 * seeds, "too quiet to show anything: {acknowledged} {epochs}");
}

#[test]
fn nothing_acknowledged_is_lost_with_five_members() {
    run_all(5, 2, seeds() / 4, &Faults::all());
}

#[test]
fn an_api_outage_alone_stops_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        let before = world.acknowledged();
        world.cut_api_for(60_000);
        world.run(60_000);
        assert!(world.acknowledged() > before + 50, "writes stopped");
        assert_eq!(world.epoch(), 1);
        world.run(10_000);
        world.check_recovered();
    }
}

#[test]
fn an_agent_that_restarts_adopts_what_runs() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        for member in 1..=3 {
            world.restart_agent(member);
            world.run(5_000);
        }
        world.check_recovered();
        assert_eq!((world.epoch(), world.server_starts()), (1, 3), "PostgreSQL was restarted for an agent");
    }
}

#[test]
fn a_dead_leader_is_replaced() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.stop_leader_for(60_000);
        let before = world.acknowledged();
        world.run(6_000);
        assert_eq!(world.epoch(), 2, "seed {seed}: nobody took over");
        world.run(4_000);
        assert!(world.acknowledged() > before, "seed {seed}: no writes after the failover");
        world.run(80_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 2, "seed {seed}: an epoch nobody needed");
    }
}

/// Whose host says that nobody listens, and whose stream is gone, need not be waited for.
#[test]
fn a_leader_that_is_seen_to_be_gone_is_replaced_at_once() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.stop_leader_for(60_000);
        world.run(1_500);
        assert_eq!(world.epoch(), 2, "seed {seed}: nobody took over");
        let before = world.acknowledged();
        world.run(1_000);
        assert!(world.acknowledged() > before, "seed {seed}: no writes a second later");
    }
}

/// A leader whose PostgreSQL died gives way to a follower that is ready, rather than that all wait for its recovery.
#[test]
fn a_leader_whose_postgres_died_gives_way() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.kill_leaders_postgres();
        let before = world.acknowledged();
        world.run(1_500);
        assert_eq!(world.epoch(), 2, "seed {seed}: nobody took over");
        assert!(world.acknowledged() > before, "seed {seed}: no writes");
        world.run(30_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 2, "seed {seed}: an epoch nobody needed");
    }
}

/// PostgreSQL hangs and cannot even be killed, while its agent lives: the agent sees to it that another leads.
#[test]
fn a_leader_whose_postgres_hangs_is_replaced() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.freeze_leaders_postgres(2_400);
        world.run(10_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: a short stall cost an epoch");
        world.freeze_leaders_postgres(60_000);
        let before = world.acknowledged();
        world.run(6_000);
        assert_eq!(world.epoch(), 2, "seed {seed}: nobody took over");
        assert!(world.acknowledged() > before, "seed {seed}: no writes");
        world.run(120_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 2, "seed {seed}: an epoch nobody needed");
    }
}

/// Without a quorum a dead leader's rule ends by the clock: nobody leads beside it, and the loss is on record.
#[test]
fn without_a_quorum_a_dead_leader_is_replaced_after_its_permission() {
    for (seed, members) in (0..10).flat_map(|s| [(s, 2), (s, 3)]) {
        let mut world = World::new(seed, members, 0, Faults::none());
        world.run(40_000);
        world.stop_leader_for(100_000);
        let before = world.acknowledged();
        world.run(11_000);
        assert_eq!(world.acknowledged(), before, "seed {seed}: a leader that may still serve was not waited for");
        world.run(if members == 2 { 26_000 } else { 11_000 });
        assert!(world.acknowledged() > before && world.lossy(), "seed {seed}: nobody took over");
        world.run(180_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 2, "seed {seed}: an epoch nobody needed");
    }
}

/// Also one that lives, and is cut off from everybody: it must have stopped before another leads.
#[test]
fn without_a_quorum_two_never_lead_at_once() {
    for seed in 0..10 {
        for agent in [false, true] {
            let mut world = World::new(seed, 3, 0, Faults::none());
            world.run(40_000);
            world.cut_leader_for(60_000, true, true);
            if !agent {
                world.stop_leaders_agent_for(60_000);
            }
            world.run(20_000);
            assert_eq!(world.epoch(), 2, "seed {seed}: nobody took over");
            world.run(130_000);
            world.check_recovered();
        }
    }
    run_all(3, 0, seeds() / 8, &Faults::all());
    run_all(2, 0, seeds() / 8, &Faults::all());
}

#[test]
fn without_a_quorum_lesser_faults_cost_no_epoch() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3, 0, Faults::none());
        world.run(40_000);
        world.cut_follower_for(30_000);
        world.run(40_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: for a follower");
        world.cut_api_for(60_000);
        world.run(70_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: for the API");
        for member in 1..=3 {
            world.restart_agent(member);
            world.run(5_000);
        }
        world.check_recovered();
        assert_eq!((world.epoch(), world.server_starts()), (1, 3), "seed {seed}");
    }
}

/// Too many disks are lost for the rules to be sealed: a person decides, once, for one epoch.
#[test]
fn a_set_without_its_quorum_is_taken_over_by_decision() {
    for seed in 0..10 {
        for survivor in 1..=3 {
            let mut world = World::new(seed, 3, 1, Faults::none());
            world.run(40_000);
            world.take_over(1);
            world.run(5_000);
            assert_eq!(world.epoch(), 1, "seed {seed}: a leader that serves was given up");
            world.take_over_no_more();
            world.lose_everything_but(survivor);
            world.run(60_000);
            let epoch = world.epoch();
            world.take_over(epoch + 100);
            world.run(20_000);
            assert!(!world.lossy(), "seed {seed}: a decision about another epoch was followed");
            world.take_over(epoch);
            world.run(60_000);
            world.check_recovered();
            assert!(world.lossy(), "seed {seed}");
        }
    }
}

/// The members go on opening epochs while a person reads the status and decides: what was decided about the one that was read
/// is carried out at any moment of that.
#[test]
fn a_takeover_is_not_outrun_by_the_next_attempt() {
    let mut outrun = 0;
    for seed in 0..20u64 {
        for survivor in 1..=3 {
            let mut world = World::new(seed, 3, 1, Faults::none());
            world.run(40_000);
            // An epoch is opened and cannot be decided: those who could have pledged are gone.
            world.kill_leaders_postgres();
            while world.epoch() == 1 {
                world.run(1);
            }
            world.lose_everything_but(survivor);
            world.run(10_000 + seed * 500);
            let read = world.last_active();
            world.run(seed * 500);
            outrun += u32::from(world.epoch() > read + 1);
            world.take_over(read);
            world.run(90_000);
            world.check_recovered();
            assert!(world.lossy(), "seed {seed}, survivor {survivor}");
            let (epoch, leader) = (world.epoch(), world.leader());
            world.run(60_000);
            assert_eq!((world.epoch(), world.leader()), (epoch, leader), "seed {seed}: it was carried out again");
        }
    }
    assert!(outrun > 5, "{outrun} of 60");
}

/// A planned change of leader is short, and costs one epoch.
#[test]
fn a_leader_hands_over() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        let to = [2, 3].into_iter().find(|n| world.leader() != Some(*n)).unwrap();
        world.longest_gap();
        world.switch(Some(to));
        world.run(3_000);
        assert_eq!((world.epoch(), world.leader()), (2, Some(to)), "seed {seed}");
        let gap = world.longest_gap();
        assert!(gap < 1_500, "seed {seed}: {gap} ms without an acknowledgement");
        world.run(30_000);
        world.check_recovered();
        let leader = world.stop_leaders_pod();
        let process = world.generation(&leader);
        world.run(1_500);
        // Whoever is still led there is refused, at once.
        assert_eq!((world.epoch(), world.generation(&leader)), (3, process), "seed {seed}: {leader} left too early");
        world.run(2_500);
        assert_ne!(world.generation(&leader), process, "seed {seed}: {leader} does not end");
        assert_eq!(world.epoch(), 3, "seed {seed}");
        assert_ne!(world.leader(), Some(leader.ordinal()), "seed {seed}");
        let gap = world.longest_gap();
        assert!(gap < 1_500, "seed {seed}: {gap} ms without an acknowledgement");
        world.run(80_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 3, "seed {seed}: an epoch nobody needed");
    }
}

/// A leader that leaves while the one follower that has everything is cut off must not have the other one elected: its own
/// pledge seals its rule, and says nothing about what that one lacks.
#[test]
fn a_leaving_leader_does_not_elect_who_lacks_what_it_acknowledged() {
    for seed in 0..40 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.cut_follower(1, 20_000);
        world.run(20_000);
        world.cut_follower(0, 20_000);
        world.stop_leaders_pod();
        world.run(20_000);
        world.heal();
        world.run(90_000);
        world.check_recovered();
    }
}

/// Also without a quorum, where only the stopped leader's own word lets another lead; and with nobody to hand over to.
#[test]
fn other_sets_hand_over_too() {
    for (members, w) in [(2, 0), (3, 0), (5, 2), (2, 1), (1, 0)] {
        for seed in 0..10 {
            let mut world = World::new(seed, members, w, Faults::none());
            world.run(40_000);
            let leader = world.stop_leaders_pod();
            world.run(10_000);
            if members > 1 {
                assert_ne!(world.leader(), Some(leader.ordinal()), "seed {seed}, {members} members, W = {w}");
            }
            world.run(90_000);
            world.check_recovered();
        }
    }
}

/// The elected leader dies before it is active, and stays away: the rest, which is a quorum, goes on without it.
#[test]
fn an_elected_leader_that_dies_is_replaced() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5, 2, Faults::none());
        world.run(60_000);
        world.stop_leader_for(200_000);
        assert!(world.run_until_elected(2, 10_000), "seed {seed}: nobody was elected");
        world.stop_leader_for(200_000);
        let before = world.acknowledged();
        world.run(30_000);
        assert!(world.acknowledged() > before, "seed {seed}: no writes, epoch {}", world.epoch());
    }
}

/// Whoever opened an epoch leaves before it is decided: the others need not wait long.
#[test]
fn an_epoch_whose_opener_is_gone_is_opened_anew() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        // Cut off as it hands over: it opens the epoch and hears no pledge.
        world.stop_leaders_pod();
        while world.epoch() == 1 {
            world.run(10);
        }
        world.cut_leader_of_old(60_000);
        let before = world.acknowledged();
        world.run(20_000);
        assert!(world.acknowledged() > before, "seed {seed}: no writes, epoch {}", world.epoch());
    }
}

/// L4: who cannot know better does not disturb those who can.
#[test]
fn an_isolated_follower_or_a_leader_without_api_cause_no_failover() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.cut_follower_for(30_000);
        world.run(40_000);
        world.cut_leader_for(30_000, false, true);
        world.run(40_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 1, "seed {seed}");
    }
}

#[test]
fn a_leader_cut_off_from_its_followers_is_replaced_and_comes_back() {
    for seed in 0..20 {
        for api in [false, true] {
            let mut world = World::new(seed, 3, 1, Faults::none());
            world.run(40_000);
            world.cut_leader_for(40_000, true, api);
            world.run(10_000);
            assert!(world.epoch() >= 2, "seed {seed}: nobody took over");
            world.run(80_000);
            world.check_recovered();
        }
    }
}

/// What cannot be rewound is not tried for minutes: as soon as that is known it is copied.
#[test]
fn a_leader_that_cannot_be_rewound_is_copied_at_once() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.foil_rewinds();
        world.cut_leader_for(15_000, true, true);
        world.run(35_000);
        assert_eq!(world.epoch(), 2, "seed {seed}: nobody took over, or too many did");
        world.check_recovered();
    }
}
