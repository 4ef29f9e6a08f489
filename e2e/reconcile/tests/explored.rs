//! Whatever goes wrong while the operator reconciles, it comes to the same, then writes nothing, and never deletes what must
//! stay. All plans, not some: `./test --long`, which runs the program `explore`.
#![allow(clippy::unwrap_used, reason = "to panic is how a test fails")]

use pgconvoy_e2e_reconcile::explorer::explore;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How many plans `./test` runs.
const SOME: usize = 500;
/// How many failures are told.
const TOLD: usize = 20;

/// Plans that have found something that others do not find, whatever the sample.
const ALWAYS: [&str; 1] = ["image-and-pods-taken/hurry-stale:18"];

fn crds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds")
}

#[test]
fn a_roll_out_begins_with_a_fresh_look() {
    for plan in ALWAYS {
        let explored = explore(&crds(), Some(plan), 1, |_| {}).unwrap();
        assert_eq!((explored.plans, explored.failures), (1, vec![]), "{plan}");
    }
}

#[test]
fn whatever_goes_wrong_it_comes_to_the_same_and_rests() {
    let begun = Instant::now();
    let only = std::env::var("PGCONVOY_PLAN").ok();
    let wanted = std::env::var("PGCONVOY_PLANS").map_or(SOME, |n| n.parse().unwrap());
    let explored = explore(&crds(), only.as_deref(), wanted, |_| {}).unwrap();
    for failure in explored.failures.iter().take(TOLD) {
        println!("{failure}");
        println!(
            "    again: PGCONVOY_PLAN={} cargo test -p pgconvoy-e2e-reconcile",
            failure.split(": ").next().unwrap()
        );
    }
    println!("{}", explored.measured(begun.elapsed()));
    assert!(explored.failures.is_empty(), "{} plans failed", explored.failures.len());
}
