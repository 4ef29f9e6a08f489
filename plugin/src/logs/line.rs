//! A log line for people. Pure.

use crate::words::clean;
use jiff::Timestamp;
use serde_json::Value;

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    Agent,
    /// The container of PostgreSQL: the server's own lines, and the supervisor's.
    Postgres,
}

/// The API server's timestamp before a line, and the line.
pub(super) fn split(raw: &str) -> Option<(Timestamp, &str)> {
    let (stamp, line) = raw.split_once(' ').unwrap_or((raw, ""));
    Some((stamp.parse().ok()?, line))
}

/// `[member] …`: JSON made readable, the rest passed through.
pub(super) fn readable(member: &str, source: Source, line: &str) -> String {
    let text = serde_json::from_str::<Value>(line)
        .ok()
        .and_then(|value| json(source, value))
        .unwrap_or_else(|| line.to_owned());
    format!("[{member}] {}", clean(&text))
}

/// Time, level, message and fields of a line of the agent (`timestamp`, `level`, `message`) or the supervisor (`ts`,
/// `level`, `msg`); nothing when it is not such a line.
fn json(source: Source, value: Value) -> Option<String> {
    let Value::Object(mut fields) = value else { return None };
    let mut take = |names: [&str; 2]| names.iter().find_map(|n| fields.remove(*n));
    let message = match take(["message", "msg"])? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let at = take(["timestamp", "ts"])?.as_str()?.parse::<Timestamp>().ok()?;
    let level = take(["level", "level"])?.as_str()?.to_uppercase();
    // Which module it was is for those who read the source; they read the raw log.
    drop(take(["target", "spans"]));
    let by = if source == Source::Postgres { "supervisor: " } else { "" };
    let mut text = format!("{} {level:5} {by}{message}", at.strftime("%Y-%m-%d %H:%M:%S%.3f UTC"));
    // By name: the order must not depend on how the parser was built.
    let mut rest: Vec<(String, Value)> = fields.into_iter().collect();
    rest.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in rest {
        match value {
            Value::String(value) if plain(&value) => text.push_str(&format!("  {name}={value}")),
            other => text.push_str(&format!("  {name}={other}")),
        }
    }
    Some(text)
}

/// Whether a value can stand without quotes.
fn plain(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_made_readable_and_the_rest_passed_through() {
        let lines = [
            (
                Source::Agent,
                r#"{"timestamp":"2026-11-26T15:00:24.228640Z","level":"INFO","message":"made the application's database","database":"app","owner":"the app","n":3,"target":"pgconvoy_agent::postgres"}"#,
            ),
            (
                Source::Agent,
                r#"{"timestamp":"2026-11-26T15:00:24Z","level":"ERROR","message":"first\nsecond \u001b[31m"}"#,
            ),
            (
                Source::Postgres,
                r#"{"ts":"2026-11-26T15:00:27.689Z","level":"info","msg":"signalling PostgreSQL","pid":"27","signal":"HUP"}"#,
            ),
            (Source::Postgres, r#"2026-11-26 15:00:27.697 UTC [27] LOG:  parameter "x" changed to "ANY 1""#),
            (Source::Postgres, "\tcontinued"),
            (Source::Agent, r#"{"message":"no time"}"#),
            (Source::Agent, "thread 'main' panicked"),
            (Source::Agent, "[1,2]"),
            (Source::Agent, ""),
        ];
        let shown: Vec<_> = lines.map(|(source, line)| readable("orders-1", source, line)).into();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn the_stamp_comes_off() {
        let (at, line) = split("2026-11-26T15:00:21.954671843Z {\"a\": 1}").unwrap();
        assert_eq!((at.subsec_nanosecond(), line), (954_671_843, "{\"a\": 1}"));
        assert_eq!(split("2026-11-26T15:00:21Z").unwrap().1, "", "an empty line");
        assert!(split("unable to retrieve container logs").is_none());
    }
}
