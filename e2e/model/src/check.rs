//! Enumerates a model within bounds, and says what came of it.

use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long, how many states, how many threads.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Seconds.
    pub(crate) limit: u64,
    /// Generated states; about 0.4 kB of memory for each different one, more while the frontier is wide.
    pub(crate) max: u64,
    pub(crate) threads: usize,
}

/// What came of an enumeration. Properties whose name begins with "goal" are to be reached; all others must hold.
pub(crate) struct Outcome {
    pub(crate) unique: usize,
    pub(crate) generated: usize,
    pub(crate) depth: usize,
    pub(crate) seconds: f64,
    /// Every state within the model's bounds was visited, unless a violation ended it.
    pub(crate) complete: bool,
    pub(crate) goals: usize,
    /// Properties that do not hold, each with the acts that lead there.
    pub(crate) violations: Vec<(&'static str, Vec<String>)>,
}

pub(crate) fn enumerate<M>(model: M, bounds: Bounds) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync,
    M::Action: Debug + Clone + PartialEq,
{
    let started = Instant::now();
    let limit = Duration::from_secs(bounds.limit);
    let checker = model
        .checker()
        .threads(bounds.threads)
        .timeout(limit)
        .target_state_count(usize::try_from(bounds.max).unwrap_or(usize::MAX))
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let complete = started.elapsed() < limit && (checker.state_count() as u64) < bounds.max;
    let (goals, bad): (Vec<_>, Vec<_>) =
        checker.discoveries().into_iter().partition(|(name, _)| name.starts_with("goal"));
    let acts =
        |path: stateright::Path<M::State, M::Action>| path.into_actions().iter().map(|a| format!("{a:?}")).collect();
    Outcome {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        seconds: started.elapsed().as_secs_f64(),
        complete,
        goals: goals.len(),
        violations: bad.into_iter().map(|(name, path)| (name, acts(path))).collect(),
    }
}

/// Enumerates, and prints the outcome; with `trace` also how a property came to be violated.
pub(crate) fn print<M>(name: &str, model: M, bounds: Bounds, trace: bool)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync,
    M::Action: Debug + Clone + PartialEq,
{
    let o = enumerate(model, bounds);
    let how = match (o.violations.is_empty(), o.complete) {
        (true, true) => "complete, no violation".to_owned(),
        (true, false) => "STOPPED AT LIMIT (not exhaustive), no violation".to_owned(),
        _ => format!("VIOLATED {:?}", o.violations.iter().map(|v| v.0).collect::<Vec<_>>()),
    };
    println!(
        "{name}: unique={} generated={} depth={} {:.1}s goals-reached={} -> {how}",
        o.unique, o.generated, o.depth, o.seconds, o.goals
    );
    if trace {
        for (property, acts) in o.violations {
            println!("  counter-example to '{property}':");
            for (i, act) in acts.iter().enumerate() {
                println!("    {:2}. {act}", i + 1);
            }
        }
    }
}
