//! Objects as tables, which is how `kubectl get` asks for them.

use super::kinds::{Column, Kind};
use super::text;
use serde_json::{Value, json};

/// A table of objects. `age`: seconds since a timestamp.
pub fn table(kind: &Kind, objects: &[Value], metadata: &Value, age: impl Fn(&str) -> Option<i64>) -> Value {
    let name = Column { name: "Name".into(), kind: "string".into(), path: ".metadata.name".into(), priority: 0 };
    let columns: Vec<&Column> = std::iter::once(&name).chain(&kind.columns).collect();
    let head = |c: &&Column| {
        let format = if c.path == ".metadata.name" { "name" } else { "" };
        json!({ "name": c.name, "type": c.kind, "format": format, "description": "", "priority": c.priority })
    };
    let row = |o: &Value| {
        let cells: Vec<Value> = columns.iter().map(|c| cell(c, o, &age)).collect();
        json!({
            "cells": cells,
            "object": { "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"] },
        })
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.iter().map(head).collect::<Vec<_>>(),
        "rows": objects.iter().map(row).collect::<Vec<_>>(),
    })
}

fn cell(column: &Column, object: &Value, age: &impl Fn(&str) -> Option<i64>) -> Value {
    if let Some(name) = column.path.strip_prefix('!') {
        return computed(name, object);
    }
    let found = at(object, &column.path);
    match (column.kind.as_str(), found) {
        (_, None | Some(Value::Null)) => Value::Null,
        ("date", Some(Value::String(time))) => json!(age(&time).map_or_else(|| "<unknown>".to_owned(), duration)),
        ("integer" | "number" | "boolean", Some(v)) => v,
        (_, Some(Value::String(s))) => json!(s),
        (_, Some(v)) => json!(v.to_string()),
    }
}

/// Kubernetes' short form: `45s`, `3m12s`, `5h`.
fn duration(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..120 => format!("{s}s"),
        120..600 if s % 60 > 0 => format!("{}m{}s", s / 60, s % 60),
        120..10_800 => format!("{}m", s / 60),
        10_800..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// The value at a JSONPath of fields and `[?(@.field=="text")]`.
fn at(object: &Value, path: &str) -> Option<Value> {
    let mut here = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let (condition, after) = filter.split_once(")]")?;
            let (field, value) = condition.split_once("==")?;
            let value = value.trim().trim_matches(['"', '\'']);
            here = here.as_array()?.iter().find(|i| i[field.trim()] == value)?;
            rest = after;
        } else {
            let field = rest.strip_prefix('.')?;
            let end = field.find(['.', '[']).unwrap_or(field.len());
            here = here.get(&field[..end])?;
            rest = &field[end..];
        }
    }
    Some(here.clone())
}

fn computed(name: &str, object: &Value) -> Value {
    let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    // Sidecars count as containers.
    let statuses = || {
        let sidecar =
            |n: &Value| list("/spec/initContainers").iter().any(|c| c["name"] == *n && c["restartPolicy"] == "Always");
        let init =
            list("/status/initContainerStatuses").into_iter().filter(|s| sidecar(&s["name"])).collect::<Vec<_>>();
        init.into_iter().chain(list("/status/containerStatuses")).collect::<Vec<_>>()
    };
    match name {
        "ready" => {
            let sidecars = list("/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always").count();
            let all = sidecars + list("/spec/containers").len();
            json!(format!("{}/{all}", statuses().iter().filter(|s| s["ready"] == true).count()))
        }
        "restarts" => json!(statuses().iter().filter_map(|s| s["restartCount"].as_i64()).sum::<i64>()),
        "status" => {
            if object.pointer("/metadata/deletionTimestamp").is_some() {
                return json!("Terminating");
            }
            let waiting = statuses().into_iter().find_map(|s| s.pointer("/state/waiting/reason").cloned());
            let phase = text(object, "/status/phase");
            match waiting {
                Some(reason) if phase != "Pending" || reason != "PodInitializing" => reason,
                _ => json!(phase),
            }
        }
        "endpoints" => {
            let all = list("/endpoints");
            let first = |e: &Value| e.pointer("/addresses/0").and_then(Value::as_str).map(str::to_owned);
            let addresses: Vec<String> = all.iter().filter_map(first).collect();
            json!(if addresses.is_empty() { "<unset>".to_owned() } else { addresses.join(",") })
        }
        "node" => json!("Ready"),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_ages() {
        let o = json!({"status": {"conditions": [{"type": "A", "reason": "x"}, {"type": "Ready", "reason": "y"}]}});
        assert_eq!(at(&o, ".status.conditions[?(@.type==\"Ready\")].reason"), Some(json!("y")));
        assert_eq!(at(&o, ".status.nothing"), None);
        let ages =
            [(5, "5s"), (119, "119s"), (125, "2m5s"), (720, "12m"), (7200, "120m"), (20_000, "5h"), (200_000, "2d")];
        for (seconds, words) in ages {
            assert_eq!(duration(seconds), words);
        }
    }
}
