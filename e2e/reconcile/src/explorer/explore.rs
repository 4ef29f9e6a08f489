//! Runs many plans, on as many threads as there are cores.

use super::plan::{Disturbance, Plan, enumerate, sample};
use super::run::{Grounds, Outcome, run};
use super::scenarios::{Scenario, all};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// What came of it.
#[derive(Debug)]
pub struct Explored {
    /// How many scenarios were run undisturbed.
    pub scenarios: usize,
    /// How many plans there are.
    pub possible: usize,
    /// How many of them were run.
    pub plans: usize,
    /// What failed: `plan: why`.
    pub failures: Vec<String>,
}

impl Explored {
    /// What is told at the end.
    pub fn measured(&self, took: Duration) -> String {
        format!(
            "measured: {} plans of {} in {} scenarios, {} failed, {:.0} s",
            self.plans,
            self.possible,
            self.scenarios,
            self.failures.len(),
            took.as_secs_f64()
        )
    }
}

/// Runs `wanted` plans, or as many as there are; those of one scenario if `only` names one, a single plan if it names that. `told` hears
/// of every plan before it is run.
///
/// # Errors
/// When there is nothing to run: a name that is none, or an operator that does not even make the first sets.
pub fn explore(
    crds: &Path,
    only: Option<&str>,
    wanted: usize,
    told: impl Fn(&Plan) + Sync,
) -> Result<Explored, String> {
    let name = only.and_then(|o| o.split('/').next());
    let scenarios: Vec<Scenario> = all().into_iter().filter(|s| name.is_none_or(|n| n == s.name)).collect();
    if scenarios.is_empty() {
        return Err(format!("there is no scenario {}", name.unwrap_or_default()));
    }
    let grounds = local(&runtime()?, Grounds::new(crds))?;
    let undisturbed = each(&scenarios, |runtime, scenario| {
        let plan = Plan { scenario: scenario.name.clone(), disturbance: Disturbance::None };
        told(&plan);
        local(runtime, run(&grounds, scenario, &plan, None)).map_err(|e| format!("{plan}: {e}"))
    })?;
    let mut failures: Vec<String> = undisturbed.iter().filter_map(|u| u.as_ref().err().cloned()).collect();
    let known: BTreeMap<&str, (&Scenario, &Outcome)> = scenarios
        .iter()
        .zip(&undisturbed)
        .filter_map(|(s, u)| Some((s.name.as_str(), (s, u.as_ref().ok()?))))
        .collect();
    let possible: Vec<Plan> =
        known.iter().flat_map(|(name, (s, u))| enumerate(name, u.writes, u.events, s.steps.len())).collect();
    let plans = match only.filter(|o| o.contains('/')) {
        Some(plan) => vec![plan.parse()?],
        None => sample(&possible, wanted),
    };
    let results = each(&plans, |runtime, plan| {
        let (scenario, undisturbed) = known.get(plan.scenario.as_str())?;
        told(plan);
        local(runtime, run(&grounds, scenario, plan, Some(undisturbed))).err().map(|e| format!("{plan}: {e}"))
    })?;
    failures.extend(results.into_iter().flatten());
    Ok(Explored { scenarios: scenarios.len(), possible: possible.len(), plans: plans.len(), failures })
}

fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|e| format!("no runtime: {e}"))
}

/// One thread, and nothing beside it: what comes next depends on the plan alone.
fn local<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(tokio::task::LocalSet::new().run_until(work))
}

/// Does `work` with each of these.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&Runtime, &T) -> R + Sync) -> Result<Vec<R>, String> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let one = || {
        let runtime = runtime()?;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(()) };
            let result = work(&runtime, item);
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..std::thread::available_parallelism().map_or(2, usize::from)).map(|_| scope.spawn(one)).collect();
        let ended = threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())));
        ended.collect::<Result<Vec<()>, String>>()
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}
