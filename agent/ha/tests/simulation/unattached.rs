//! The leader's disk is lost while a follower is being rewound or copied anew: how much log that one has is not known.

use super::*;
use pgconvoy_terms::Phase;

/// A leader that was cut off, with writes that nobody has, comes back to follow the next one and is rewound.
fn with_a_rewind_under_way(seed: u64) -> World {
    let mut world = World::new(seed, 3, 1, Faults::none());
    world.run(40_000);
    world.slow_down_rewinds(20_000);
    world.cut_leader_for(15_000, true, true);
    world.run(10_000);
    assert_eq!((world.epoch(), world.phase()), (2, Some(Phase::Active)), "seed {seed}");
    world.run_until_half_made(30_000);
    world
}

/// The rewound one never followed the lost leader, so it has acknowledged nothing in that epoch: the other one has everything.
#[test]
fn a_leader_lost_during_a_rewind_is_replaced_by_who_has_everything() {
    for (seed, restarted) in (0..20).map(|s| (s, s % 2 == 1)) {
        let mut world = with_a_rewind_under_way(seed);
        if restarted {
            // What it never did is known to its next agent, too. By then a copy is under way in place of the rewind.
            let who = world.run_until_half_made(0);
            world.restart_agent(who.ordinal());
            world.run(4_400);
        }
        let before = world.acknowledged();
        world.lose_leaders_disk_for(100_000);
        world.run(60_000);
        world.expect(world.acknowledged() > before, "no writes");
        assert!(!world.lossy(), "seed {seed}: something was given up");
        world.run(120_000);
        world.check_recovered();
    }
}

/// One that did follow the lost leader, and may have acknowledged what nobody else has, counts for nothing once its data is gone.
#[test]
fn who_followed_in_an_epoch_does_not_end_its_rule_without_its_log() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        // Only the first follower has what is acknowledged now.
        world.cut_follower(1, 30_000);
        world.run(5_000);
        let first = world.followers()[0].clone();
        world.forget_leaders_log(true);
        world.restart_pod(&first, 500);
        assert_eq!(world.run_until_half_made(20_000), first, "seed {seed}");
        let (epoch, before) = (world.epoch(), world.acknowledged());
        world.lose_leaders_disk_for(500);
        world.heal();
        world.run(60_000);
        assert_eq!(world.acknowledged(), before, "seed {seed}: somebody leads without what was acknowledged");
        world.take_over(world.epoch());
        world.run(90_000);
        world.check_recovered();
        assert!(world.lossy() && world.epoch() > epoch, "seed {seed}");
    }
}
