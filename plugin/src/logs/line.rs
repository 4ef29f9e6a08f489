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
pub(super) fn readable(member: &str, line: &str) -> String {
    let text = serde_json::from_str::<Value>(line).ok().and_then(json).unwrap_or_else(|| line.to_owned());
    format!("[{member}] {}", clean(&text))
}

/// What a line of PostgreSQL is about, in the order in which it is shown; the rest of a line's fields goes by name.
const FIRST: [&str; 3] = ["detail", "hint", "statement"];
/// For those who read the source or count lines; they read the raw log.
const NOT_SHOWN: [&str; 4] = ["target", "spans", "span", "backend_type"];

/// Time, level, message and fields of a line of the agent, the supervisor or PostgreSQL; nothing when it is not such a line.
fn json(value: Value) -> Option<String> {
    let Value::Object(mut fields) = value else { return None };
    let message = match fields.remove("message")? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let at = fields.remove("timestamp")?.as_str()?.parse::<Timestamp>().ok()?;
    let mut word = |name: &str| fields.remove(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    let level = word("level");
    // PostgreSQL's own word, where there is one; a line that nobody gave a level has none.
    let level = word("error_severity").or(level).unwrap_or_default().to_uppercase();
    let by = match word("target").as_deref() {
        Some("postgres") => postgres(&mut word),
        Some("pgconvoy_supervisor") => "supervisor: ".to_owned(),
        _ => String::new(),
    };
    let mut text = format!("{} {level:5} {by}{message}", at.strftime("%Y-%m-%d %H:%M:%S%.3f UTC"));
    NOT_SHOWN.iter().for_each(|name| drop(fields.remove(*name)));
    let mut rest: Vec<(String, Value)> = fields.into_iter().collect();
    // The order must not depend on how the parser was built.
    let place = |name: &str| FIRST.iter().position(|f| *f == name).unwrap_or(FIRST.len());
    rest.sort_by(|a, b| (place(&a.0), &a.0).cmp(&(place(&b.0), &b.0)));
    for (name, value) in rest {
        match value {
            Value::String(value) if plain(&value) => text.push_str(&format!("  {name}={value}")),
            other => text.push_str(&format!("  {name}={other}")),
        }
    }
    Some(text)
}

/// `[27] app@shop: `: the process, and whose session it serves.
fn postgres(word: &mut impl FnMut(&str) -> Option<String>) -> String {
    let process = word("pid").map(|pid| format!("[{pid}]"));
    let (user, database) = (word("user"), word("dbname"));
    let session = user.map(|user| format!("{user}@{}", database.unwrap_or_default()));
    // Success says nothing.
    let code = word("state_code").filter(|code| code != "00000");
    let said: Vec<String> = [process, session, code].into_iter().flatten().collect();
    if said.is_empty() { String::new() } else { format!("{}: ", said.join(" ")) }
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
            r#"{"timestamp":"2026-11-26T15:00:24.228640Z","level":"INFO","message":"made the application's database","database":"app","owner":"the app","n":3,"target":"pgconvoy_agent::postgres"}"#,
            r#"{"timestamp":"2026-11-26T15:00:24Z","level":"ERROR","message":"first\nsecond \u001b[31m"}"#,
            r#"{"timestamp":"2026-11-26T15:00:27.689Z","level":"INFO","message":"signalling PostgreSQL","target":"pgconvoy_supervisor","pid":"27","signal":"HUP"}"#,
            r#"{"timestamp":"2026-11-26T15:00:27.697Z","level":"INFO","message":"parameter \"x\" changed to \"ANY 1\"","target":"postgres","error_severity":"LOG","state_code":"00000","pid":27,"backend_type":"postmaster"}"#,
            r#"{"timestamp":"2026-11-26T15:00:27.698Z","level":"ERROR","message":"relation \"t\" does not exist","target":"postgres","error_severity":"ERROR","state_code":"42P01","pid":31,"backend_type":"client backend","remote_host":"10.0.0.9","user":"app","dbname":"shop","application_name":"psql","statement":"select *\nfrom t","hint":"none"}"#,
            r#"{"timestamp":"2026-11-26T15:00:27.699Z","message":"postgres: cannot start","target":"postgres"}"#,
            r#"2026-11-26 15:00:27.697 UTC [27] LOG:  parameter "x" changed to "ANY 1""#,
            "\tcontinued",
            r#"{"message":"no time"}"#,
            "thread 'main' panicked",
            "[1,2]",
            "",
        ];
        let shown: Vec<_> = lines.map(|line| readable("orders-1", line)).into();
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
