//! YAML in the documents.

use anyhow::Context as _;
use serde::Deserialize as _;
use serde_json::Value;

/// The documents of a file; empty ones are left out.
pub fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let read = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    let all = read.collect::<Result<Vec<_>, _>>().context("that is no YAML")?;
    Ok(all.into_iter().filter(|d| !d.is_null()).collect())
}

/// Puts `more` over `into`, field by field.
pub fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => into.clone_from(more),
    }
}
