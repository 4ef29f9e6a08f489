//! A report as text. Pure.

use super::lag::Lag;
use super::model::{Member, Report, RuleSeen};
use crate::words::{age, clean, columns, size};
use jiff::Timestamp;
use pgconvoy_crds::conditions::{ARCHIVING, READY};
use std::collections::BTreeSet;

/// One screen about one set.
pub(super) fn screen(report: &Report, now: Timestamp) -> String {
    let mut lines = head(report);
    lines.push(String::new());
    lines.extend(facts(report));
    lines.push(String::new());
    match report.members.is_empty() {
        true => lines.push("It has no members yet.".to_owned()),
        false => lines.extend(table(report, now)),
    }
    let messages = report.members.iter().flat_map(|m| m.messages.iter().map(move |text| format!("{}: {text}", m.name)));
    let mut messages: Vec<String> = messages.collect();
    if !messages.is_empty() {
        lines.push(String::new());
        lines.append(&mut messages);
    }
    print(&lines)
}

fn print(lines: &[String]) -> String {
    lines.iter().map(|line| clean(line) + "\n").collect()
}

/// Whether it is Ready, and what the operator says about that.
fn head(report: &Report) -> Vec<String> {
    let title = format!("{} in {}: {}", report.set, report.namespace, if report.ready { "Ready" } else { "not Ready" });
    let Some(ready) = report.condition(READY) else { return vec![title] };
    let mut lines = match ready.status.as_str() {
        "True" if report.ready => vec![title, format!("  {}", ready.message)],
        // It was, by an earlier spec or before something happened.
        "True" => vec![title, format!("  the operator's last word: {}", ready.message)],
        _ => vec![format!("{title} ({})", ready.reason), format!("  {}", ready.message)],
    };
    for told in report.conditions.iter().filter(|c| c.type_ != READY && c.matters()) {
        // Ready's sentence is often the same one.
        if told.message != ready.message {
            let not = if told.status == "True" { "" } else { "not " };
            lines.push(format!("  {not}{} ({}): {}", told.type_, told.reason, told.message));
        }
    }
    lines
}

fn facts(report: &Report) -> Vec<String> {
    let mut rows: Vec<Vec<String>> = vec![];
    let mut fact = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    fact("Leader", report.leader.clone().unwrap_or_else(|| "none".to_owned()));
    fact(
        "Epoch",
        match (&report.epoch, &report.phase) {
            (Some(epoch), Some(phase)) => format!("{}, {phase}", epoch.number),
            _ => "none".to_owned(),
        },
    );
    fact("Rule", report.rule.as_ref().map_or_else(|| "none in force".to_owned(), rule));
    if let Some(pending) = &report.pending {
        fact("Pending", rule(pending));
    }
    for text in &report.waiting {
        fact("Waiting for", text.clone());
    }
    for text in &report.notes {
        fact("Note", text.clone());
    }
    if let Some(archiving) = report.condition(ARCHIVING) {
        let lsn =
            report.archived.as_ref().map(|lsn| format!(", up to {lsn} when it was last told")).unwrap_or_default();
        fact("Archive", format!("{}{lsn}", archiving.reason));
    }
    let versions: BTreeSet<&str> = report.members.iter().filter_map(|m| m.version.as_deref()).collect();
    let mut postgresql: Vec<String> = versions.into_iter().map(ToOwned::to_owned).collect();
    postgresql.push(report.image.clone());
    postgresql.extend(report.system_id.iter().map(|id| format!("system {id}")));
    fact("PostgreSQL", postgresql.join(", "));
    columns(&rows)
}

/// The rule with whose flushes count.
fn rule(rule: &RuleSeen) -> String {
    if rule.followers.is_empty() {
        return format!("{}: a commit returns once it is on its disk", rule.short());
    }
    format!("{}: {}", rule.short(), rule.followers.join(", "))
}

fn table(report: &Report, now: Timestamp) -> Vec<String> {
    let mut head = vec!["NAME", "ROLE", "STATE", "EPOCH", "NODE", "POD", "VERSION"];
    if report.lag_known {
        head.push("LAG");
    }
    head.push("SINCE");
    let mut rows: Vec<Vec<String>> = vec![head.into_iter().map(ToOwned::to_owned).collect()];
    rows.extend(report.members.iter().map(|m| row(m, report.lag_known, now)));
    columns(&rows)
}

fn row(member: &Member, lag_known: bool, now: Timestamp) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut cells = vec![
        member.name.clone(),
        or_dash(member.role.map(|r| format!("{r:?}"))),
        or_dash(member.state.map(|s| format!("{s:?}"))),
        or_dash(member.epoch.map(|e| e.to_string())),
        or_dash(member.node.clone()),
        pod(member),
        or_dash(member.version.clone()),
    ];
    if lag_known {
        cells.push(or_dash(member.lag.map(lag)));
    }
    cells.push(or_dash(member.since.map(|since| age(now, since))));
    cells
}

fn pod(member: &Member) -> String {
    let Some(pod) = &member.pod else { return "none".to_owned() };
    let mut text = format!("{}/{}", pod.ready, pod.containers);
    if pod.state != "Running" {
        text = format!("{text} {}", pod.state);
    }
    match pod.restarts {
        0 => text,
        1 => format!("{text}, 1 restart"),
        n => format!("{text}, {n} restarts"),
    }
}

fn lag(lag: Lag) -> String {
    match lag {
        Lag::Streaming { bytes, seconds } if seconds >= 0.1 => format!("{}, {seconds:.1} s", size(bytes)),
        Lag::Streaming { bytes, .. } => size(bytes),
        Lag::NotStreaming => "no stream".to_owned(),
    }
}

/// A line for each set; `namespace` is the only one there is, or every line says its own.
pub(super) fn summary(reports: &[Report], namespace: Option<&str>) -> String {
    if reports.is_empty() {
        return match namespace {
            Some(namespace) => format!("There is no PgReplicaSet in namespace {namespace}.\n"),
            None => "There is no PgReplicaSet in any namespace.\n".to_owned(),
        };
    }
    let mut head = vec!["NAME", "READY", "LEADER", "EPOCH", "PHASE", "RULE", "MESSAGE"];
    if namespace.is_none() {
        head.insert(0, "NAMESPACE");
    }
    let mut rows: Vec<Vec<String>> = vec![head.into_iter().map(ToOwned::to_owned).collect()];
    for report in reports {
        let dash = || "-".to_owned();
        let attached = report.members.iter().filter(|m| m.state == Some(pgconvoy_crds::MemberPhase::Attached)).count();
        let mut cells = vec![
            report.set.clone(),
            if report.ready { "yes".to_owned() } else { format!("no ({attached}/{})", report.members_asked) },
            report.leader.clone().unwrap_or_else(dash),
            report.epoch.as_ref().map_or_else(dash, |e| e.number.to_string()),
            report.phase.clone().unwrap_or_else(dash),
            report.rule.as_ref().map_or_else(dash, RuleSeen::short),
            message(report),
        ];
        if namespace.is_none() {
            cells.insert(0, report.namespace.clone());
        }
        rows.push(cells);
    }
    print(&columns(&rows))
}

/// What a person should read first; nothing when all is well.
fn message(report: &Report) -> String {
    if report.ready {
        return report.notes.first().cloned().unwrap_or_default();
    }
    let ready = report.condition(READY).filter(|c| c.status != "True").map(|c| c.message.clone());
    let waiting = || report.waiting.first().map(|w| format!("waiting for {w}"));
    ready.or_else(waiting).or_else(|| report.notes.first().cloned()).unwrap_or_default()
}
