//! Two answers, and what differs between them.

pub(crate) mod differences;
pub(crate) mod requests;
pub(crate) mod sides;

use serde_json::{Map, Value};
use std::fmt;

/// Something that differs.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    pub(crate) request: String,
    pub(crate) at: String,
    theirs: String,
    ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}\n  Kubernetes: {}\n  embedded:   {}", self.request, self.at, self.theirs, self.ours)
    }
}

/// An answer, or a line of a watch, without what is different every time.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

/// All differences of two answers to the same request.
pub(crate) fn between(request: &str, theirs: &Answer, ours: &Answer) -> Vec<Difference> {
    let mut all = vec![];
    if theirs.code != ours.code {
        all.push(Difference {
            request: request.to_owned(),
            at: "code".to_owned(),
            theirs: format!("{} {}", theirs.code, theirs.body["message"]),
            ours: format!("{} {}", ours.code, ours.body["message"]),
        });
        return all;
    }
    walk(request, "", &plain(&theirs.body), &plain(&ours.body), &mut all);
    all
}

fn walk(request: &str, at: &str, theirs: &Value, ours: &Value, all: &mut Vec<Difference>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let at = format!("{at}/{name}");
                walk(request, &at, a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null), all);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                walk(request, &format!("{at}/{i}"), a, b, all);
            }
        }
        (a, b) if a == b => {}
        // 64 and 64.0.
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
        (a, b) => all.push(Difference {
            request: request.to_owned(),
            at: at.to_owned(),
            theirs: a.to_string(),
            ours: b.to_string(),
        }),
    }
}

/// Without numbers and times that are another one's.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (name, v) in map {
                let v = match (name.as_str(), v) {
                    (
                        "resourceVersion" | "uid" | "creationTimestamp" | "deletionTimestamp" | "time" | "continue",
                        Value::String(s),
                    ) if !s.is_empty() => Value::from(format!("<{name}>")),
                    ("causes", Value::Array(list)) => {
                        let mut list: Vec<Value> = list.iter().map(plain).collect();
                        list.sort_by_key(|c| format!("{} {}", c["field"], c["message"]));
                        Value::Array(list)
                    }
                    ("description", Value::String(_)) => Value::from("<text>"),
                    ("lastTransitionTime", Value::String(_)) => Value::from("<time>"),
                    ("managedFields", Value::Array(list)) => {
                        let mut list: Vec<Value> = list.iter().map(plain).collect();
                        list.sort_by_key(|m| format!("{} {} {}", m["manager"], m["operation"], m["subresource"]));
                        Value::Array(list)
                    }
                    ("message", Value::String(s)) => Value::from(anonymous(s)),
                    _ => plain(v),
                };
                // Keys of lists in field sets hold UIDs, too.
                let name = if name.starts_with("k:{\"uid\"") { "k:{\"uid\":\"<uid>\"}" } else { name };
                out.insert(name.to_owned(), v);
            }
            Value::Object(out)
        }
        Value::Array(list) => list.iter().map(plain).collect(),
        other => other.clone(),
    }
}

/// A sentence without UIDs, and without revisions and times.
fn anonymous(text: &str) -> String {
    let word = |w: &str| {
        let bare = w.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let uid = bare.len() == 36 && bare.matches('-').count() == 4;
        let number = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit()) && w.contains('(');
        let time = bare.len() == 20 && bare.ends_with('Z') && bare.contains('T');
        if uid || number || time { w.replace(bare, "<>") } else { w.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
