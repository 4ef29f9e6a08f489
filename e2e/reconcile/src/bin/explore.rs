//! Runs every plan of the operator's reconcile, in a program that the compiler has optimised: `./test --long`.

use clap::Parser;
use pgconvoy_e2e_reconcile::explorer::explore;
use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// After so many plans it says how far it is.
const EVERY: usize = 1_000;

/// Every plan of the operator's reconcile.
#[derive(Debug, Parser)]
struct Cli {
    /// Directory of the custom resources' definitions.
    #[arg(long)]
    crds: PathBuf,
    /// So many plans at most.
    #[arg(long, default_value_t = usize::MAX)]
    plans: usize,
    /// Only plans of this scenario, or this plan.
    #[arg(long)]
    only: Option<String>,
}

thread_local! {
    static PLAN: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let begun = Instant::now();
    // A panic ends a program that is optimised: which plan it was must be said before.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("a panic in the plan {}", PLAN.with_borrow(Clone::clone));
        told(panic);
    }));
    let run = AtomicUsize::new(0);
    let explored = explore(&cli.crds, cli.only.as_deref(), cli.plans, |plan| {
        PLAN.set(plan.to_string());
        let run = run.fetch_add(1, Ordering::Relaxed);
        if run > 0 && run.is_multiple_of(EVERY) {
            eprintln!("{run} plans, {:.0} s", begun.elapsed().as_secs_f64());
        }
    });
    let explored = match explored {
        Ok(explored) => explored,
        Err(why) => {
            eprintln!("explore: {why}");
            return ExitCode::FAILURE;
        }
    };
    for failure in &explored.failures {
        println!("{failure}");
    }
    println!("{}", explored.measured(begun.elapsed()));
    if explored.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
