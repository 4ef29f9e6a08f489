//! The register is deleted, or set back to an older state, and a person has it repaired.

use super::*;

/// S1 and S2 hold when the register is deleted or set back to any older state, again and again, and a person repairs it.
#[test]
fn nothing_acknowledged_is_lost_when_the_register_is() {
    let seeds = seeds() / 8;
    let (acknowledged, epochs) = run_all(3, 1, seeds, &Faults::of_the_register());
    assert!(acknowledged > 50 * seeds && epochs > 3 * seeds, "too quiet to show anything: {acknowledged} {epochs}");
    run_all(5, 2, seeds / 4, &Faults::of_the_register());
}

/// A lost register stops no write; repaired, it costs one epoch, and failovers work again.
#[test]
fn a_lost_register_is_repaired() {
    for (seed, deleted) in (0..20).map(|s| (s, s % 2 == 0)) {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.stop_leader_for(5_000);
        world.run(60_000);
        let (epoch, before) = (world.epoch(), world.acknowledged());
        world.leave_register_to_itself();
        if deleted {
            world.delete_register();
        } else {
            world.set_register_back(3);
        }
        world.longest_gap();
        world.run(30_000);
        assert!(world.troubled(), "seed {seed}: nobody noticed");
        assert!(world.acknowledged() > before + 50 && world.longest_gap() < 1_000, "seed {seed}: writes stopped");
        world.have_it_repaired(false);
        world.run(30_000);
        world.check_recovered();
        assert!(!world.troubled() && !world.lossy(), "seed {seed}");
        assert_eq!(world.epoch(), epoch + 1, "seed {seed}: more than one epoch");
        world.stop_leader_for(60_000);
        world.run(6_000);
        assert_eq!(world.epoch(), epoch + 2, "seed {seed}: no failover after the repair");
    }
}

/// What a set that is deleted and made again over its kept volumes has of its data: all, as soon as enough of them are there.
#[test]
fn kept_volumes_are_adopted() {
    for (seed, members, w) in (0..10).flat_map(|s| [(s, 3, 1), (s, 1, 0), (s, 2, 1), (s, 3, 0)]) {
        let mut world = World::new(seed, members, w, Faults::none());
        world.run(40_000);
        world.stop_leader_for(5_000);
        world.run(90_000);
        let (epoch, before) = (world.epoch(), world.acknowledged());
        world.make_again_over_kept_volumes();
        world.run(150_000);
        world.check_recovered();
        assert_eq!(world.epoch(), epoch + 1, "seed {seed}, {members} members, W = {w}");
        assert!(world.acknowledged() > before, "seed {seed}, {members} members: no writes");
        assert!(!world.lossy(), "seed {seed}, {members} members: commits were given up");
    }
}

/// A member whose disk is empty does not found a second database when the register of its set is made again at number 0.
#[test]
fn nobody_founds_a_database_in_place_of_a_lost_register() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3, 1, Faults::none());
        world.run(40_000);
        world.leave_register_to_itself();
        world.delete_register();
        world.lose_everything_but(1);
        world.run(60_000);
        assert_eq!(world.epoch(), 0, "seed {seed}: an empty member opened an epoch");
        // Too few are left to know everything: only by decision.
        world.have_it_repaired(false);
        world.run(30_000);
        assert_eq!(world.epoch(), 0, "seed {seed}: repaired without what is needed for it");
        world.have_it_repaired(true);
        world.run(90_000);
        world.check_recovered();
        assert!(world.lossy(), "seed {seed}: nobody says that something may be missing");
    }
}
