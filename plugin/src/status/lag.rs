//! How far followers are behind, asked of the leader's PostgreSQL: it changes all the time, so no status holds it.

use super::model::Report;
use crate::access::Access;
use crate::kubectl::{self, Terminal};
use crate::words::clean;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How far a follower is behind its leader.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub(crate) enum Lag {
    /// It streams.
    Streaming {
        /// WAL that it has not replayed yet.
        bytes: u64,
        /// How old the newest replayed commit was when it was replayed, as PostgreSQL measures it.
        seconds: f64,
    },
    /// The leader knows no stream to it.
    NotStreaming,
}

/// How long the answer may take altogether. A status must come even when PostgreSQL hangs.
const PATIENCE: Duration = Duration::from_secs(6);

/// Neither waits nor can be fooled by names in the database's own schemas.
const OPTIONS: &str = "-c statement_timeout=3s -c lock_timeout=1s -c search_path=pg_catalog";

const QUERY: &str = "select application_name, greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), replay_lsn), 0)::bigint, \
                     coalesce(extract(epoch from replay_lag), 0)::float8 \
                     from pg_stat_replication where replay_lsn is not null";

/// Asks, and puts it into the report; when it cannot be told, a note says why.
pub(crate) async fn find_out(access: &Access, report: &mut Report) {
    let Some(leader) = report.active_leader().filter(|l| l.reachable()).map(|l| l.name.clone()) else { return };
    if report.members.len() < 2 {
        return;
    }
    match ask(access, &leader).await.and_then(|text| parse(&text)) {
        Ok(lags) => fill(report, &lags),
        Err(why) => report.notes.push(format!("how far followers are behind is not known: {}", clean(&why))),
    }
}

async fn ask(access: &Access, leader: &str) -> Result<String, String> {
    let settings = [("PGOPTIONS", OPTIONS), ("PGCONNECT_TIMEOUT", "3")];
    let args = ["-X", "-A", "-t", "-q", "-F", "\t", "-c", QUERY].map(Into::into);
    let command = kubectl::psql(access, leader, Terminal::None, "postgres", &settings, &args);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true).stdin(std::process::Stdio::null());
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => return Err(format!("{leader} gave no answer within {} s", PATIENCE.as_secs())),
        Ok(Err(why)) => return Err(kubectl::not_started(why).to_string()),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().find(|l| !l.trim().is_empty()).unwrap_or("kubectl exec failed without a word").trim().to_owned())
}

fn parse(text: &str) -> Result<BTreeMap<String, Lag>, String> {
    let bad = |line: &str| format!("psql answers {line:?}");
    text.lines()
        .map(|line| {
            let mut cells = line.split('\t');
            let (Some(tag), Some(bytes), Some(seconds)) = (cells.next(), cells.next(), cells.next()) else {
                return Err(bad(line));
            };
            let bytes = bytes.parse().map_err(|_| bad(line))?;
            let seconds = seconds.parse().map_err(|_| bad(line))?;
            Ok((tag.to_owned(), Lag::Streaming { bytes, seconds }))
        })
        .collect()
}

fn fill(report: &mut Report, lags: &BTreeMap<String, Lag>) {
    report.lag_known = true;
    let leader = report.leader.clone();
    for member in report.members.iter_mut().filter(|m| Some(&m.name) != leader.as_ref()) {
        let lag = member.tag.as_ref().and_then(|t| lags.get(t.as_str())).copied();
        member.lag = Some(lag.unwrap_or(Lag::NotStreaming));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As if psql had answered `text`.
    pub(in crate::status) fn answered(report: &mut Report, text: &str) {
        fill(report, &parse(text).unwrap());
    }

    #[test]
    fn an_answer_that_is_none_is_told() {
        assert_eq!(parse("").unwrap(), BTreeMap::new());
        assert!(parse("m2.x\t12\n").unwrap_err().contains("m2.x"));
        assert!(parse("m2.x\tmany\t0\n").is_err());
    }
}
