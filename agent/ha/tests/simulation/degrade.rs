//! Fewer acknowledgements than asked for while too few followers keep up.

use super::*;

fn world(seed: u64, members: u32, acknowledgements: u32) -> World {
    let mut world = World::new(seed, members, acknowledgements, Faults::none());
    world.run(40_000);
    world.degrade_when_short();
    world.run(2_000);
    assert_eq!(world.rule(), (acknowledgements, members as usize - 1), "seed {seed}");
    world
}

/// Commits wait for some seconds, then no more, and again once a follower is back for some seconds.
#[test]
fn a_leader_without_followers_goes_on_and_waits_for_them_again() {
    for seed in 0..20 {
        let mut world = world(seed, 3, 1);
        for who in world.followers() {
            world.restart_pod(&who, 60_000);
        }
        world.run(5_000);
        let before = world.acknowledged();
        world.run(4_000);
        assert_eq!(world.acknowledged(), before, "seed {seed}: nobody may acknowledge alone so soon");
        world.run(6_000);
        assert!(world.acknowledged() > before, "seed {seed}: commits wait");
        assert_eq!(world.rule(), (0, 0), "seed {seed}");
        world.run(90_000);
        assert_eq!((world.epoch(), world.rule()), (1, (1, 2)), "seed {seed}");
        // What was acknowledged meanwhile is as safe as everything else: checked at the promotion.
        world.stop_leader_for(60_000);
        world.run(20_000);
        assert_eq!(world.epoch(), 2, "seed {seed}: not replaced");
        world.run(80_000);
        world.check_recovered();
    }
}

/// Only the leader has what it acknowledged alone: nobody leads without it, and people are told what to do.
#[test]
fn nobody_takes_over_from_a_leader_that_was_alone() {
    for seed in 0..20 {
        let mut world = world(seed, 3, 1);
        for who in world.followers() {
            world.restart_pod(&who, 30_000);
        }
        world.run(20_000);
        assert_eq!(world.rule(), (0, 0), "seed {seed}");
        assert!(world.left_to_person().is_empty(), "seed {seed}: {:?}", world.left_to_person());
        let leader = world.stop_leader_for(100_000);
        world.run(60_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: what only the leader had was given up");
        let said = world.left_to_person();
        let command = "kubectl pgconvoy takeover s --epoch 1 --accept-loss";
        world.expect(said.len() == 2 && said.iter().all(|s| s.ends_with(command)), &format!("{said:?}"));
        if seed % 2 == 0 {
            world.take_over(1);
            world.run(20_000);
            assert!(world.lossy() && world.leader() != Some(leader.ordinal()), "seed {seed}");
        }
        world.run(100_000);
        world.check_recovered();
        assert_eq!(seed % 2 == 0, world.lossy(), "seed {seed}");
        assert!(world.left_to_person().is_empty(), "seed {seed}: {:?}", world.left_to_person());
    }
}

/// Whoever is left counts: commits wait for as many as there are.
#[test]
fn those_who_keep_up_still_count() {
    for seed in 0..10 {
        let mut world = world(seed, 5, 2);
        for who in world.followers().iter().skip(1) {
            world.restart_pod(who, 100_000);
        }
        world.run(20_000);
        assert_eq!(world.rule(), (1, 1), "seed {seed}");
        let before = world.acknowledged();
        world.stop_leader_for(30_000);
        world.run(29_000);
        assert_eq!(
            (world.epoch(), world.acknowledged()),
            (1, before),
            "seed {seed}: with one of two who must confirm it"
        );
        world.run(200_000);
        world.check_recovered();
        assert_eq!(world.rule(), (2, 4), "seed {seed}");
    }
}

/// Nothing acknowledged is lost by itself, alone or not; the check is the one at every promotion.
#[test]
fn under_faults_nothing_is_lost_that_was_acknowledged_alone() {
    let (mut degraded, seeds) = (0, seeds() / 10);
    for seed in 0..seeds {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.degrade_when_short();
        world.set_faults(Faults::frequent());
        for _ in 0..24 {
            world.run(10_000);
            degraded += u64::from(world.rule() == (0, 0));
        }
        world.heal();
        world.run(200_000);
        world.check_recovered();
    }
    assert!(degraded > seeds / 4, "too seldom alone to show anything: {degraded}");
}
