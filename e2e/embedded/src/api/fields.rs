//! Sets of fields, as `metadata.managedFields` holds them.

use super::shape::Shape;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One step into an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field by name.
    Field(String),
    /// The item of a list that has these values, as JSON with sorted keys.
    Key(String),
    /// A value in a set, as JSON.
    Value(String),
}

impl Step {
    fn parse(text: &str) -> Option<Step> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Step::Field(rest.to_owned())),
            // Written by somebody else, it may have another order or blanks.
            "k" => Some(Step::Key(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "v" => Some(Step::Value(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(json) => format!("k:{json}"),
            Step::Value(json) => format!("v:{json}"),
        }
    }

    /// The item's step in a list by keys; an item that lacks a key has its default.
    pub fn of_item(item: &Value, keys: &[(String, Option<Value>)]) -> Step {
        let of = |(name, default): &(String, Option<Value>)| {
            let value = item.get(name).or(default.as_ref())?;
            Some((name.clone(), value.clone()))
        };
        let map: Map<String, Value> = keys.iter().filter_map(of).collect();
        Step::Key(Value::Object(map).to_string())
    }
}

/// A set of fields: this one, perhaps, and some below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    /// Whether the place itself belongs to the set.
    pub itself: bool,
    /// What is below it.
    pub below: BTreeMap<Step, Fields>,
}

impl Fields {
    /// Reads `fieldsV1`.
    pub fn parse(value: &Value) -> Fields {
        let mut fields = Fields::default();
        let Some(map) = value.as_object() else { return fields };
        for (name, child) in map {
            if name == "." {
                fields.itself = true;
            } else if let Some(step) = Step::parse(name) {
                let mut below = Fields::parse(child);
                below.itself |= below.below.is_empty();
                fields.below.insert(step, below);
            }
        }
        fields
    }

    /// As `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.itself && !self.below.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        map.extend(self.below.iter().map(|(step, child)| (step.text(), child.to_value())));
        Value::Object(map)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        !self.itself && self.below.values().all(Fields::is_empty)
    }

    fn tidy(mut self) -> Fields {
        self.below.retain(|_, f| !f.is_empty());
        self
    }

    fn child(&mut self, step: Step) -> &mut Fields {
        self.below.entry(step).or_default()
    }

    /// What is in either.
    pub fn union(mut self, other: &Fields) -> Fields {
        self.itself |= other.itself;
        for (step, fields) in &other.below {
            let mine = self.below.remove(step).unwrap_or_default();
            self.below.insert(step.clone(), mine.union(fields));
        }
        self
    }

    /// What is in this but not in the other.
    pub fn minus(&self, other: &Fields) -> Fields {
        let empty = Fields::default();
        let below = self.below.iter().map(|(s, f)| (s.clone(), f.minus(other.below.get(s).unwrap_or(&empty))));
        Fields { itself: self.itself && !other.itself, below: below.collect() }.tidy()
    }

    /// What is in both.
    pub fn and(&self, other: &Fields) -> Fields {
        let both = |(s, f): (&Step, &Fields)| Some((s.clone(), f.and(other.below.get(s)?)));
        Fields { itself: self.itself && other.itself, below: self.below.iter().filter_map(both).collect() }.tidy()
    }

    /// Without everything that lies at or below one of the other's places.
    pub fn without_below(&self, other: &Fields) -> Fields {
        if other.itself {
            return Fields::default();
        }
        let empty = Fields::default();
        let below = self.below.iter().map(|(s, f)| (s.clone(), f.without_below(other.below.get(s).unwrap_or(&empty))));
        Fields { itself: self.itself, below: below.collect() }.tidy()
    }

    /// Every place in it, as people write it: `.spec.ports[port=80].name`.
    pub fn paths(&self) -> Vec<String> {
        fn walk(fields: &Fields, at: &str, out: &mut Vec<String>) {
            if fields.itself && !at.is_empty() {
                out.push(at.to_owned());
            }
            for (step, child) in &fields.below {
                let at = match step {
                    Step::Field(name) => format!("{at}.{name}"),
                    Step::Key(json) => {
                        let map: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                        let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
                        format!("{at}[{}]", pairs.join(","))
                    }
                    Step::Value(json) => format!("{at}[={json}]"),
                };
                walk(child, &at, out);
            }
        }
        let mut out = vec![];
        walk(self, "", &mut out);
        out
    }

    /// Forgets a place and everything below it.
    pub fn remove(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let step = Step::Field((*first).to_owned());
        if rest.is_empty() {
            self.below.remove(&step);
        } else if let Some(child) = self.below.get_mut(&step) {
            child.remove(rest);
            if child.is_empty() {
                self.below.remove(&step);
            }
        }
    }
}

/// The fields that an applied object names.
pub fn of_object(shape: &Shape, value: &Value) -> Fields {
    let mut fields = Fields::default();
    match (shape, value) {
        (Shape::Atomic, _) => fields.itself = true,
        (Shape::ListMap(keys, item), Value::Array(list)) => {
            for one in list {
                let child = fields.child(Step::of_item(one, keys));
                *child = of_object(item, one);
                child.itself = true;
            }
        }
        (Shape::Set, Value::Array(list)) => {
            for one in list {
                fields.child(Step::Value(one.to_string())).itself = true;
            }
        }
        (_, Value::Object(map)) => {
            for (name, one) in map {
                let child = fields.child(Step::Field(name.clone()));
                *child = of_object(shape.field(name), one);
                let empty = one.is_null() || one.as_object().is_some_and(Map::is_empty);
                let empty_list = one.as_array().is_some_and(Vec::is_empty) && !child.itself;
                // A field of the kind that holds others is not owned for itself; a map's entry is.
                child.itself |= empty || empty_list || (child.below.is_empty());
            }
        }
        _ => fields.itself = true,
    }
    fields
}

/// What differs between two forms of an object.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    /// Was not there before.
    pub added: Fields,
    /// Is another now.
    pub modified: Fields,
    /// Is no longer there.
    pub removed: Fields,
}

impl Difference {
    /// What is written by whoever made the change.
    pub fn written(&self) -> Fields {
        self.added.clone().union(&self.modified)
    }

    fn put(&mut self, step: Step, child: Difference) {
        for (set, of_child) in
            [(&mut self.added, child.added), (&mut self.modified, child.modified), (&mut self.removed, child.removed)]
        {
            if !of_child.is_empty() {
                set.below.insert(step.clone(), of_child);
            }
        }
    }

    /// Leaves out what nobody manages.
    pub fn without(mut self, unmanaged: &[&[&str]]) -> Difference {
        for path in unmanaged {
            self.added.remove(path);
            self.modified.remove(path);
            self.removed.remove(path);
        }
        self
    }
}

/// Every place of a value, itself included.
fn everything(shape: &Shape, value: &Value) -> Fields {
    let mut all = match (shape, value) {
        (Shape::ListMap(keys, item), Value::Array(list)) => {
            let below = list.iter().map(|one| (Step::of_item(one, keys), everything(item, one)));
            Fields { itself: true, below: below.collect() }
        }
        (Shape::Plain | Shape::Fields(..), Value::Object(map)) => {
            let below = map.iter().map(|(name, one)| (Step::Field(name.clone()), everything(shape.field(name), one)));
            Fields { itself: true, below: below.collect() }
        }
        _ => of_object(shape, value),
    };
    all.itself = true;
    all
}

/// Compares two forms of an object.
pub fn compare(shape: &Shape, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut all = Difference::default();
    match (old, new) {
        (None, None) => {}
        (None, Some(new)) => all.added = everything(shape, new),
        (Some(old), None) => all.removed = everything(shape, old),
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => match (shape, old, new) {
            (Shape::Plain | Shape::Fields(..), Value::Object(a), Value::Object(b)) => {
                for name in a.keys().chain(b.keys().filter(|n| !a.contains_key(*n))) {
                    let child = compare(shape.field(name), a.get(name), b.get(name));
                    all.put(Step::Field(name.clone()), child);
                }
            }
            (Shape::ListMap(keys, item), Value::Array(a), Value::Array(b)) => {
                let index = |list: &'_ [Value]| -> BTreeMap<Step, Value> {
                    list.iter().map(|i| (Step::of_item(i, keys), i.clone())).collect()
                };
                let (a, b) = (index(a), index(b));
                for step in a.keys().chain(b.keys().filter(|s| !a.contains_key(*s))) {
                    all.put(step.clone(), compare(item, a.get(step), b.get(step)));
                }
            }
            (Shape::Set, Value::Array(a), Value::Array(b)) => {
                let step = |v: &Value| Step::Value(v.to_string());
                let one = Fields { itself: true, below: BTreeMap::new() };
                let extra = |from: &[Value], other: &[Value]| -> BTreeMap<Step, Fields> {
                    from.iter().filter(|v| !other.contains(v)).map(|v| (step(v), one.clone())).collect()
                };
                all.added.below = extra(b, a);
                all.removed.below = extra(a, b);
            }
            _ => all.modified.itself = true,
        },
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_kubernetes_writes_them() {
        let shape = super::super::shape::of_built_in("Service");
        let object = json!({
            "metadata": { "labels": { "a": "b" }, "annotations": {} },
            "spec": { "selector": { "x": "y" }, "ports": [{ "port": 80, "name": "http" }] },
        });
        let fields = of_object(&shape, &object);
        let text = json!({
            "f:metadata": { "f:labels": { "f:a": {} }, "f:annotations": {} },
            "f:spec": {
                "f:selector": {},
                "f:ports": { "k:{\"port\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:port": {}, "f:name": {} } },
            },
        });
        assert_eq!(fields.to_value(), text);
        assert_eq!(Fields::parse(&text), fields);
        assert!(fields.paths().contains(&".spec.ports[port=80,protocol=\"TCP\"].name".to_owned()));
    }

    #[test]
    fn sets_are_added_and_taken_away() {
        let parse = |v: Value| Fields::parse(&v);
        let (a, b) = (parse(json!({"f:a": {"f:x": {}, "f:y": {}}, "f:b": {}})), parse(json!({"f:a": {"f:x": {}}})));
        assert_eq!(a.minus(&b), parse(json!({"f:a": {"f:y": {}}, "f:b": {}})));
        assert_eq!(a.and(&b), b);
        assert_eq!(b.clone().union(&a), a);
        assert!(b.minus(&a).is_empty());
        assert_eq!(a.without_below(&parse(json!({"f:a": {}}))), parse(json!({"f:b": {}})));
    }

    #[test]
    fn a_change_in_an_item_is_found_by_its_key() {
        let shape = super::super::shape::of_built_in("Pod");
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let new = json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c"}]}});
        let d = compare(&shape, Some(&old), Some(&new));
        assert_eq!(d.modified.paths(), [".spec.containers[name=\"b\"].image"]);
        assert_eq!(d.added.paths(), [".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].name"]);
        assert_eq!(d.removed.paths().len(), 3);
    }
}
