//! `status`: how a replica set stands, on one screen.

pub(crate) mod lag;
pub(crate) mod model;
pub(crate) mod pod;
mod text;
mod waiting;

#[cfg(test)]
pub(crate) mod tests;

use crate::access::Access;
use crate::cli::{Output, StatusArgs};
use crate::objects;
use crate::problem::Problem;
use jiff::Timestamp;
use model::{Report, report};
use std::io::Write;
use std::process::ExitCode;

/// Prints it; the exit status says whether everything is Ready.
#[expect(clippy::disallowed_methods, reason = "ages are for people")]
pub(crate) async fn run(access: &Access, args: &StatusArgs) -> Result<ExitCode, Problem> {
    let (ready, shown) = match &args.set {
        Some(set) => {
            let objects = objects::one(access, set).await?;
            let mut report = report(&objects);
            lag::find_out(access, &mut report).await;
            let shown = match args.output {
                Some(Output::Json) => json(&report)?,
                None => text::screen(&report, Timestamp::now()),
            };
            (report.ready, shown)
        }
        None => {
            let reports: Vec<Report> = objects::all(access, args.all_namespaces).await?.iter().map(report).collect();
            let shown = match args.output {
                Some(Output::Json) => json(&serde_json::json!({ "sets": reports }))?,
                None if args.all_namespaces => text::summary(&reports, None),
                None => text::summary(&reports, Some(&access.namespace)),
            };
            (reports.iter().all(|r| r.ready), shown)
        }
    };
    std::io::stdout().write_all(shown.as_bytes()).map_err(Problem::Print)?;
    Ok(ExitCode::from(u8::from(!ready)))
}

fn json(what: &impl serde::Serialize) -> Result<String, Problem> {
    let mut text = serde_json::to_string_pretty(what).map_err(Problem::Json)?;
    text.push('\n');
    Ok(text)
}
