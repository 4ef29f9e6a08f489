//! The schema of a custom kind: defaults, pruning, and what values are refused. Rules in CEL are not run.

use serde_json::{Map, Value, json};

/// A schema, or a part of one.
#[derive(Debug, Clone)]
pub struct Schema(Value);

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrong {
    /// Where, like `spec.members`.
    pub field: String,
    /// Kubernetes' word for it, like `FieldValueInvalid`.
    pub reason: &'static str,
    /// What to do about it.
    pub message: String,
}

/// Parts of every object that its schema says nothing about.
const OF_EVERY_OBJECT: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// The schema of whole objects.
    pub fn root(value: &Value) -> Self {
        Self(value.clone())
    }

    /// As it was defined.
    pub fn value(&self) -> &Value {
        &self.0
    }

    fn part(value: &Value) -> Self {
        Self(value.clone())
    }

    pub(super) fn is_list(&self) -> bool {
        self.0["type"] == "array"
    }

    pub(super) fn list_type(&self) -> &str {
        self.0["x-kubernetes-list-type"].as_str().unwrap_or("atomic")
    }

    pub(super) fn list_keys(&self) -> Vec<String> {
        let keys = self.0["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        keys.filter_map(|k| k.as_str().map(str::to_owned)).collect()
    }

    pub(super) fn items(&self) -> Option<Schema> {
        self.0.get("items").map(Schema::part)
    }

    pub(super) fn property(&self, name: &str) -> Option<Schema> {
        self.0.get("properties")?.get(name).map(Schema::part)
    }

    pub(super) fn default(&self) -> Option<&Value> {
        self.0.get("default")
    }

    pub(super) fn atomic(&self) -> bool {
        self.0["x-kubernetes-map-type"] == "atomic"
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = (&str, Schema)> {
        let map = self.0.get("properties").and_then(Value::as_object);
        map.into_iter().flatten().map(|(name, s)| (name.as_str(), Schema::part(s)))
    }

    pub(super) fn additional(&self) -> Option<Schema> {
        self.0.get("additionalProperties").filter(|a| a.is_object()).map(Schema::part)
    }

    /// Takes away what the schema does not know; their paths, for warnings.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut gone = vec![];
        if let Value::Object(map) = object {
            prune_map(&self.0, map, "", &OF_EVERY_OBJECT, &mut gone);
        }
        gone
    }

    /// Fills in defaults; a null where none is allowed counts as missing.
    pub fn default_into(&self, object: &mut Value) {
        fill(&self.0, object);
    }

    /// What is wrong with an object.
    pub fn validate(&self, object: &Value) -> Vec<Wrong> {
        let mut wrong = vec![];
        check(&self.0, object, "", &mut wrong);
        // The real server says so when its rules in CEL cannot be run on what is there.
        let blocks = |w: &Wrong| {
            matches!(
                w.reason,
                "FieldValueRequired" | "FieldValueTypeInvalid" | "FieldValueTooLong" | "FieldValueTooMany"
            )
        };
        if wrong.iter().any(blocks) && has_rules(&self.0) {
            let message = "Invalid value: null: some validation rules were not checked because the object was invalid; \
                           correct the existing errors to complete validation";
            wrong.push(Wrong { field: "<nil>".into(), reason: "FieldValueInvalid", message: message.into() });
        }
        wrong
    }
}

/// Whether there are rules in CEL somewhere.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn prune_map(schema: &Value, map: &mut Map<String, Value>, path: &str, keep: &[&str], gone: &mut Vec<String>) {
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let known = schema.get("properties").and_then(Value::as_object);
    let other = schema.get("additionalProperties");
    map.retain(|name, value| {
        if keep.contains(&name.as_str()) {
            return true;
        }
        let at = below(path, name);
        match known.and_then(|k| k.get(name)).or_else(|| other.filter(|o| o.is_object())) {
            Some(part) => prune(part, value, &at, gone),
            None if open || other == Some(&Value::Bool(true)) => {}
            None => {
                gone.push(at);
                return false;
            }
        }
        true
    });
}

fn prune(schema: &Value, value: &mut Value, path: &str, gone: &mut Vec<String>) {
    match value {
        Value::Object(map) => prune_map(schema, map, path, &[], gone),
        Value::Array(list) => {
            let Some(items) = schema.get("items") else { return };
            for (i, item) in list.iter_mut().enumerate() {
                prune(items, item, &format!("{path}[{i}]"), gone);
            }
        }
        _ => {}
    }
}

fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, part) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let nullable = part["nullable"] == true;
                let missing = match map.get(name) {
                    None => true,
                    Some(Value::Null) => !nullable,
                    Some(_) => false,
                };
                if let (true, Some(default)) = (missing, part.get("default")) {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(child) = map.get_mut(name) {
                    fill(part, child);
                }
            }
            if let Some(part) = schema.get("additionalProperties").filter(|p| p.is_object()) {
                map.values_mut().for_each(|v| fill(part, v));
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|v| fill(items, v));
            }
        }
        _ => {}
    }
}

/// The type as OpenAPI calls it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => type_of(value).to_owned(),
        other => other.to_string(),
    }
}

fn invalid(path: &str, value: &Value, why: &str) -> Wrong {
    let message = format!("Invalid value: {}: {path} in body {why}", shown(value));
    Wrong { field: path.to_owned(), reason: "FieldValueInvalid", message }
}

fn check(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<Wrong>) {
    if value.is_null() && (schema["nullable"] == true || path.is_empty()) {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        if !(value.is_i64() || value.is_u64() || value.is_string()) {
            let why = format!("must be of type integer,string: {:?}", type_of(value));
            wrong.push(type_invalid(path, value, &why));
        }
    } else if let Some(wanted) = schema["type"].as_str() {
        let is = type_of(value);
        let whole = wanted == "integer" && value.as_f64().is_some_and(|f| f.fract() == 0.0);
        if wanted != is && !(wanted == "number" && is == "integer") && !whole {
            wrong.push(type_invalid(path, value, &format!("must be of type {wanted}: {is:?}")));
            return;
        }
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", "));
        wrong.push(Wrong { field: path.to_owned(), reason: "FieldValueNotSupported", message });
    }
    match value {
        Value::Object(map) => check_map(schema, map, value, path, wrong),
        Value::Array(list) => {
            count(schema, "Items", list.len(), path, value, "items", wrong);
            if let Some(items) = schema.get("items") {
                for (i, item) in list.iter().enumerate() {
                    check(items, item, &format!("{path}[{i}]"), wrong);
                }
            }
            unique(schema, list, path, wrong);
        }
        Value::String(text) => {
            count(schema, "Length", text.chars().count(), path, value, "chars long", wrong);
        }
        Value::Number(n) => {
            let n = n.as_f64().unwrap_or_default();
            for (key, bad, words) in [
                ("minimum", schema["minimum"].as_f64().is_some_and(|m| n < m), "greater than or equal to"),
                ("maximum", schema["maximum"].as_f64().is_some_and(|m| n > m), "less than or equal to"),
            ] {
                if bad {
                    wrong.push(invalid(path, value, &format!("should be {words} {}", plain(&schema[key]))));
                }
            }
        }
        _ => {}
    }
}

/// A bound, without the fraction that YAML gave it.
fn plain(bound: &Value) -> String {
    bound.as_f64().map_or_else(|| bound.to_string(), |f| f.to_string())
}

fn type_invalid(path: &str, value: &Value, why: &str) -> Wrong {
    let message = format!("Invalid value: {}: {path} in body {why}", json!(type_of(value)));
    Wrong { field: path.to_owned(), reason: "FieldValueTypeInvalid", message }
}

fn check_map(schema: &Value, map: &Map<String, Value>, whole: &Value, path: &str, wrong: &mut Vec<Wrong>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            let field = below(path, name);
            wrong.push(Wrong { field, reason: "FieldValueRequired", message: "Required value".to_owned() });
        }
    }
    count(schema, "Properties", map.len(), path, whole, "properties", wrong);
    for (name, value) in map {
        if path.is_empty() && OF_EVERY_OBJECT.contains(&name.as_str()) {
            continue;
        }
        let known = schema.get("properties").and_then(|p| p.get(name));
        if let Some(part) = known.or_else(|| schema.get("additionalProperties").filter(|a| a.is_object())) {
            check(part, value, &below(path, name), wrong);
        }
    }
}

fn count(schema: &Value, what: &str, n: usize, path: &str, value: &Value, unit: &str, wrong: &mut Vec<Wrong>) {
    let (min, max) = (schema[format!("min{what}")].as_u64(), schema[format!("max{what}")].as_u64());
    let n = u64::try_from(n).unwrap_or(u64::MAX);
    if let Some(min) = min.filter(|m| n < *m) {
        let why = match what {
            "Length" => format!("should be at least {min} {unit}"),
            _ => format!("should have at least {min} {unit}"),
        };
        wrong.push(invalid(path, value, &why));
    }
    if let Some(max) = max.filter(|m| n > *m) {
        let message = match what {
            "Length" => format!("Too long: may not be more than {max} bytes"),
            _ => format!("Too many: {n}: must have at most {max} {unit}"),
        };
        let reason = if what == "Length" { "FieldValueTooLong" } else { "FieldValueTooMany" };
        wrong.push(Wrong { field: path.to_owned(), reason, message });
    }
}

/// Items of a list by keys, and of a set, are there once.
fn unique(schema: &Value, list: &[Value], path: &str, wrong: &mut Vec<Wrong>) {
    let part = Schema::part(schema);
    let keys = part.list_keys();
    let key = |item: &Value| -> Value {
        if keys.is_empty() { item.clone() } else { keys.iter().map(|k| (k.clone(), item[k].clone())).collect() }
    };
    if !matches!(part.list_type(), "map" | "set") {
        return;
    }
    let mut seen = vec![];
    for (i, item) in list.iter().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            let message = format!("Duplicate value: {key}");
            wrong.push(Wrong { field: format!("{path}[{i}]"), reason: "FieldValueDuplicate", message });
        }
        seen.push(key);
    }
}
