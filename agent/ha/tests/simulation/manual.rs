//! Failover by hand.

use super::*;

/// Whatever happens by itself, the same member leads, and comes back to do so.
#[test]
fn nobody_else_leads_unless_a_person_says_so() {
    let (mut epochs, seeds) = (0, seeds() / 4);
    for seed in 0..seeds {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.fail_over_by_hand();
        world.set_faults(Faults::unplanned());
        world.run(120_000);
        world.heal();
        world.run(120_000);
        world.check_recovered();
        epochs += u64::from(world.epoch());
    }
    assert!(epochs > 2 * seeds, "too quiet to show anything: {epochs}");
}

/// A leader that stays away is told of, with what to do, and nothing is lost by doing it.
#[test]
fn a_person_has_a_dead_leader_replaced() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.fail_over_by_hand();
        world.run(1_000);
        assert!(world.left_to_person().is_empty(), "seed {seed}");
        let leader = world.stop_leader_for(200_000);
        world.run(60_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: not by hand");
        let said = world.left_to_person();
        let command = "kubectl pgconvoy takeover s --epoch 1";
        world.expect(
            said.len() == 2 && said.iter().all(|s| s.contains("every acknowledged commit") && s.ends_with(command)),
            &format!("what a person is told: {said:?}"),
        );
        world.replace_leader(2);
        world.run(5_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: a word about another epoch was followed");
        let before = world.acknowledged();
        world.replace_leader(1);
        world.run(5_000);
        assert_ne!(world.leader(), Some(leader.ordinal()), "seed {seed}");
        assert!(world.acknowledged() > before && !world.lossy(), "seed {seed}: no writes, or something was given up");
        assert!(world.left_to_person().is_empty(), "seed {seed}: {:?}", world.left_to_person());
        world.run(200_000);
        world.check_recovered();
        assert_eq!(world.epoch(), 2, "seed {seed}: an epoch nobody needed");
    }
}

/// Without a quorum only the leader is known to have everything.
#[test]
fn without_a_quorum_a_takeover_says_that_it_accepts_the_loss() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3, 0, Faults::none());
        world.run(40_000);
        world.fail_over_by_hand();
        world.stop_leader_for(300_000);
        world.run(60_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: not by hand");
        let said = world.left_to_person();
        world.expect(
            !said.is_empty() && said.iter().all(|s| s.ends_with("--epoch 1 --accept-loss")),
            &format!("{said:?}"),
        );
        world.replace_leader(1);
        world.run(30_000);
        assert_eq!(world.epoch(), 1, "seed {seed}: the loss was accepted by nobody");
        world.take_over(1);
        world.run(30_000);
        assert!(world.lossy() && world.epoch() == 2, "seed {seed}");
    }
}

/// Its PostgreSQL dies, its pod restarts, it hands over: what a person expects of one that is looked after.
#[test]
fn the_same_leader_begins_again_and_hands_over_when_told() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.fail_over_by_hand();
        let leader = world.kill_leaders_postgres();
        let before = world.acknowledged();
        world.run(6_000);
        assert_eq!((world.epoch(), world.leader()), (2, Some(leader.ordinal())), "seed {seed}");
        assert!(world.acknowledged() > before, "seed {seed}: no writes");
        world.stop_leader_for(10_000);
        world.run(20_000);
        assert_eq!((world.epoch(), world.leader()), (3, Some(leader.ordinal())), "seed {seed}");
        world.freeze_leaders_postgres(20_000);
        world.run(40_000);
        assert_eq!(
            (world.epoch(), world.leader()),
            (3, Some(leader.ordinal())),
            "seed {seed}: a leader that hung gave way"
        );
        world.check_recovered();
        world.plan_a_change();
        world.switch(None);
        world.run(5_000);
        assert_ne!(world.leader(), Some(leader.ordinal()), "seed {seed}");
        world.run(60_000);
        world.check_recovered();
    }
}
