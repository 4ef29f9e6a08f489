//! Whatever goes wrong while the operator reconciles, it comes to the same, then writes nothing, and never deletes what must
//! stay.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e_reconcile::explorer::{Disturbance, Grounds, Outcome, Plan, Scenario, all, enumerate, run, sample};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::runtime::Runtime;

/// How many plans `./test` runs.
const SOME: usize = 500;
/// How many failures are told.
const TOLD: usize = 20;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// One thread, and nothing beside it: what comes next depends on the plan alone.
fn local<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(tokio::task::LocalSet::new().run_until(work))
}

/// Does `work` with each of these, on as many threads as there are cores.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&Runtime, &T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some((at, item)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    items.get(at).map(|i| (at, i))
                } {
                    let result = work(&runtime, item);
                    done.lock().unwrap().insert(at, result);
                }
            });
        }
    });
    done.into_inner().unwrap().into_values().collect()
}

#[test]
fn whatever_goes_wrong_it_comes_to_the_same_and_rests() {
    let begun = Instant::now();
    let only = std::env::var("PGCONVOY_PLAN").ok();
    let scenarios: Vec<Scenario> = all()
        .into_iter()
        .filter(|s| only.as_ref().is_none_or(|o| o.split('/').next() == Some(s.name.as_str())))
        .collect();
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let grounds = local(&runtime(), Grounds::new(&crds)).unwrap();
    let undisturbed = each(&scenarios, |runtime, scenario| {
        let plan = Plan { scenario: scenario.name.clone(), disturbance: Disturbance::None };
        local(runtime, run(&grounds, scenario, &plan, None)).map_err(|e| format!("{plan}: {e}"))
    });
    let mut failures: Vec<String> = undisturbed.iter().filter_map(|u| u.as_ref().err().cloned()).collect();
    let known: BTreeMap<&str, (&Scenario, &Outcome)> = scenarios
        .iter()
        .zip(&undisturbed)
        .filter_map(|(s, u)| Some((s.name.as_str(), (s, u.as_ref().ok()?))))
        .collect();
    let possible: Vec<Plan> =
        known.iter().flat_map(|(name, (s, u))| enumerate(name, u.writes, u.events, s.steps.len())).collect();
    let asked = std::env::var("PGCONVOY_PLANS").ok().map(|n| n.parse().unwrap());
    let wanted = if std::env::var_os("PGCONVOY_LONG").is_some() { usize::MAX } else { SOME };
    let wanted = asked.unwrap_or(wanted);
    let plans = match only.filter(|o| o.contains('/')) {
        Some(plan) => vec![plan.parse().unwrap()],
        None => sample(&possible, wanted),
    };
    let results = each(&plans, |runtime, plan| {
        let (scenario, undisturbed) = known.get(plan.scenario.as_str())?;
        local(runtime, run(&grounds, scenario, plan, Some(undisturbed))).err().map(|e| format!("{plan}: {e}"))
    });
    failures.extend(results.into_iter().flatten());
    for failure in failures.iter().take(TOLD) {
        println!("{failure}");
        println!(
            "    again: PGCONVOY_PLAN={} cargo test -p pgconvoy-e2e-reconcile",
            failure.split(": ").next().unwrap()
        );
    }
    println!(
        "measured: {} plans of {} in {} scenarios, {} failed, {:.0} s",
        plans.len(),
        possible.len(),
        scenarios.len(),
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "{} plans failed", failures.len());
}
