//! `why`: how it came to the leader that there is, and what would come of losing it.

mod next;
mod past;
#[cfg(test)]
mod tests;

use crate::access::Access;
use crate::cli::WhyArgs;
use crate::objects;
use crate::problem::Problem;
use crate::status::{lag, model};
use crate::words::clean;
use jiff::Timestamp;
use pgconvoy_terms::Term;
use std::io::Write;
use std::process::ExitCode;

/// Prints it.
#[expect(clippy::disallowed_methods, reason = "ages are for people")]
pub(crate) async fn run(access: &Access, args: &WhyArgs) -> Result<ExitCode, Problem> {
    let objects = objects::one(access, &args.set).await?;
    let mut report = model::report(&objects);
    lag::find_out(access, &mut report).await;
    let events = past::read(access, &objects).await?;
    let term = objects.term.as_ref().and_then(|t| t.spec.read().ok().flatten());
    let mut lines = vec![head(&args.set, term.as_ref()), String::new()];
    lines.extend(past::tell(&events, Timestamp::now()));
    lines.push(String::new());
    lines.extend(next::tell(&report, term.as_ref()));
    let text: String = lines.iter().map(|line| clean(line) + "\n").collect();
    std::io::stdout().write_all(text.as_bytes()).map_err(Problem::Print)?;
    Ok(ExitCode::SUCCESS)
}

fn head(set: &str, term: Option<&Term>) -> String {
    match term {
        None => format!("{set}: no epoch was opened yet"),
        Some(term) => {
            let led = match &term.leader {
                Some(leader) => format!("{} is its leader", leader.name),
                None => "nobody is elected".to_owned(),
            };
            format!("{set}: epoch {}, {:?}; {led}", term.epoch.number, term.phase)
        }
    }
}
