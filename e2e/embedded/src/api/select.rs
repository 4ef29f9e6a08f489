//! Label and field selectors.

use super::refusal::Refusal;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// What objects are asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    /// JSON pointers and the text that must, or must not, be there.
    fields: Vec<(String, bool, String)>,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// When one cannot be understood.
    pub fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = split(labels).into_iter().map(label).collect::<Result<_, _>>()?;
        let fields = fields.split(',').filter(|f| !f.trim().is_empty()).map(field).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Whether every object is meant.
    pub fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is meant.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.labels.iter().all(|(key, test)| {
            let value = labels.and_then(|l| l.get(key)).and_then(Value::as_str);
            match test {
                Test::In(list) => value.is_some_and(|v| list.iter().any(|l| l == v)),
                Test::NotIn(list) => value.is_none_or(|v| list.iter().all(|l| l != v)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        }) && self.fields.iter().all(|(at, equal, wanted)| {
            let there = match object.pointer(at) {
                Some(Value::String(s)) => s.clone(),
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            };
            (there == *wanted) == *equal
        })
    }
}

/// At commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (vec![], 0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.into_iter().map(str::trim).filter(|p| !p.is_empty()).collect()
}

fn label(text: &str) -> Result<(String, Test), Refusal> {
    let bad = || Refusal::bad_request(format!("unable to parse requirement: {text:?}"));
    let one = |v: &str| vec![v.trim().to_owned()];
    let (key, test) = if let Some(key) = text.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, list)) = text.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(bad)?.split(',').map(|v| v.trim().to_owned()).collect();
        match key.trim().rsplit_once(' ') {
            Some((key, "in")) => (key, Test::In(list)),
            Some((key, "notin")) => (key, Test::NotIn(list)),
            _ => return Err(bad()),
        }
    } else if let Some((key, v)) = text.split_once("!=") {
        (key, Test::NotIn(one(v)))
    } else if let Some((key, v)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Test::In(one(v)))
    } else {
        (text, Test::Exists)
    };
    let key = key.trim();
    let odd = |v: &String| v.contains(|c: char| c.is_whitespace() || c == '=');
    let values_are_odd = matches!(&test, Test::In(list) | Test::NotIn(list) if list.iter().any(odd));
    if key.is_empty() || key.contains(char::is_whitespace) || values_are_odd {
        Err(bad())
    } else {
        Ok((key.to_owned(), test))
    }
}

fn field(text: &str) -> Result<(String, bool, String), Refusal> {
    let bad = || Refusal::bad_request(format!("invalid selector: {text:?}"));
    let (key, equal, value) = match text.split_once("!=") {
        Some((k, v)) => (k, false, v),
        None => {
            let (k, v) = text.split_once("==").or_else(|| text.split_once('=')).ok_or_else(bad)?;
            (k, true, v)
        }
    };
    Ok((format!("/{}", key.trim().replace('.', "/")), equal, value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors() {
        let object = json!({"metadata": {"name": "n", "labels": {"a": "1", "b": "x"}}, "spec": {"nodeName": "n1"}});
        let yes = [
            "",
            "a",
            "a=1",
            "a==1",
            "!c",
            "a in (1,2)",
            "a in (2, 1),b",
            "a notin (2)",
            "c!=5",
            "a=1,b=x",
            "c notin (1)",
        ];
        let no = ["c", "a=2", "!a", "a in (2)", "a notin (1)", "a!=1", "a=1,b=y"];
        for text in yes {
            assert!(Selector::parse(text, "").unwrap().matches(&object), "{text}");
        }
        for text in no {
            assert!(!Selector::parse(text, "").unwrap().matches(&object), "{text}");
        }
        assert!(Selector::parse("", "metadata.name=n,spec.nodeName!=n2,status.phase=").unwrap().matches(&object));
        assert!(!Selector::parse("", "metadata.name=m").unwrap().matches(&object));
        assert!(Selector::parse("a in (1", "").is_err());
        assert!(Selector::parse("", "x").is_err());
    }
}
