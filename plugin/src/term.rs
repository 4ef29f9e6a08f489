//! `term`: what the set's PgTerm holds, what its members go by, and the repair when these are not the same.

use crate::access::Access;
use crate::cli::{Output, TermShowArgs};
use crate::objects::{self, Objects};
use crate::problem::Problem;
use crate::words::{clean, columns};
use pgconvoy_crds::MemberState;
use pgconvoy_terms::{MemberName, Rule, Term};
use std::io::Write;
use std::process::ExitCode;

/// Prints it. The exit status says whether the members go by it.
pub(crate) async fn show(access: &Access, args: &TermShowArgs) -> Result<ExitCode, Problem> {
    let objects = objects::one(access, &args.set).await?;
    let text = match (args.output, &objects.term) {
        (Some(Output::Json), Some(term)) => serde_json::to_string_pretty(&term.spec).map_err(Problem::Json)? + "\n",
        (Some(Output::Json), None) => "null\n".to_owned(),
        (None, _) => tell(&args.set, &objects).iter().map(|line| clean(line) + "\n").collect(),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Problem::Print)?;
    Ok(ExitCode::from(u8::from(wrong(&objects).is_some())))
}

fn states(objects: &Objects) -> impl Iterator<Item = &MemberState> {
    objects.set.status.iter().flat_map(|s| &s.member_states)
}

/// What is wrong with the PgTerm, if anything is.
fn wrong(objects: &Objects) -> Option<String> {
    let said = states(objects).find(|s| s.reason.as_deref().is_some_and(|r| r.starts_with("Term")));
    let known = objects.set.status.as_ref().and_then(|s| s.epoch);
    let known = states(objects).filter_map(|s| s.epoch).chain(known).max().unwrap_or_default();
    let lost = match &objects.term {
        None => known > 0,
        Some(term) => term.spec.epoch.number == 0 && known > 0,
    };
    match said {
        Some(state) => state.message.clone(),
        None if lost => Some(format!("it was lost: the set has been in epoch {known}")),
        None => objects.term.as_ref().and_then(|t| t.spec.read().err()).map(|why| why.to_string()),
    }
}

fn tell(set: &str, objects: &Objects) -> Vec<String> {
    let read = objects.term.as_ref().and_then(|t| t.spec.read().ok());
    let mut lines = match (&objects.term, read.flatten()) {
        (None, _) => vec![format!("PgTerm {set} does not exist")],
        (Some(_), Some(term)) => of(set, &term),
        (Some(term), None) => vec![format!("PgTerm {set} is at number {}", term.spec.epoch.number)],
    };
    let mut rows = vec![["NAME", "EPOCH", "STATE", "DATA"].map(str::to_owned).to_vec()];
    let mut states: Vec<_> = states(objects).collect();
    states.sort_by_key(|s| s.name.parse::<MemberName>().ok());
    for state in states {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            state.name.clone(),
            or_dash(state.epoch.map(|e| e.to_string())),
            or_dash(state.state.map(|s| format!("{s:?}"))),
            or_dash(state.incarnation.clone()),
        ]);
    }
    lines.push(String::new());
    lines.extend(columns(&rows));
    if let Some(what) = wrong(objects) {
        lines.extend([String::new(), format!("WRONG  {what}")]);
        if !what.contains("term repair") {
            lines.push(format!("       kubectl pgconvoy term repair {set}"));
        }
    }
    lines
}

fn of(set: &str, term: &Term) -> Vec<String> {
    let led = term.leader.as_ref().map_or_else(|| "nobody yet".to_owned(), ToString::to_string);
    let mut lines =
        vec![format!("PgTerm {set}: epoch {}, {:?}", term.epoch.number, term.phase), format!("Leader   {led}")];
    for rule in &term.rules {
        lines.push(format!("Rule     {}", of_rule(rule)));
    }
    if term.lossy {
        lines.push("Lossy    a rule was given up: commits acknowledged under it may be missing".to_owned());
    }
    for fork in term.history.iter().rev().take(5) {
        let from = match (fork.parent, fork.at) {
            (Some(parent), Some(at)) => format!(", from timeline {} at {at}", parent.0),
            _ => String::new(),
        };
        let lossy = if fork.lossy { ", lossy" } else { "" };
        lines.push(format!("History  epoch {} led by {}{from}{lossy}", fork.epoch.number, fork.leader.name));
    }
    let head = term.head().map(ToString::to_string).unwrap_or_default();
    lines.push(format!("Chain    {} changes, the newest {head}", term.chain.len()));
    lines
}

fn of_rule(rule: &Rule) -> String {
    let followers: Vec<_> = rule.followers.iter().map(ToString::to_string).collect();
    match rule.acknowledgements {
        0 => format!("of epoch {}: {} alone", rule.epoch.number, rule.leader),
        w => format!("of epoch {}: {} and {w} of {}", rule.epoch.number, rule.leader, followers.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::running;

    #[test]
    fn a_term_that_the_members_do_not_go_by_is_told_with_what_to_type() {
        let mut there = running();
        let told = tell("orders", &there).join("\n");
        assert!(told.starts_with("PgTerm orders: epoch ") && told.contains("\nRule     of epoch "), "{told}");
        assert!(wrong(&there).is_none() && !told.contains("repair"), "{told}");
        there.term = None;
        let told = tell("orders", &there).join("\n");
        assert!(told.starts_with("PgTerm orders does not exist"), "{told}");
        assert!(told.contains("WRONG") && told.ends_with("kubectl pgconvoy term repair orders"), "{told}");
    }
}
