//! Laying what is applied over what is there, and taking away what is no longer applied.

use super::fields::{Fields, Step};
use super::shape::Shape;
use serde_json::Value;

/// Lays `over` over `under`.
pub(super) fn merge(shape: &Shape, under: &Value, over: &Value) -> Value {
    match (shape, under, over) {
        (Shape::Plain | Shape::Fields(..), Value::Object(a), Value::Object(b)) => {
            let mut all = a.clone();
            for (name, value) in b {
                let merged = match a.get(name) {
                    Some(there) => merge(shape.field(name), there, value),
                    None => value.clone(),
                };
                all.insert(name.clone(), merged);
            }
            Value::Object(all)
        }
        (Shape::ListMap(keys, item), Value::Array(a), Value::Array(b)) => {
            by_order(a, b, |v| Step::of_item(v, keys), |old, new| merge(item, old, new))
        }
        (Shape::Set, Value::Array(a), Value::Array(b)) => {
            by_order(a, b, |v| Step::Value(v.to_string()), |_, new| new.clone())
        }
        _ => over.clone(),
    }
}

/// What is applied keeps its order, and what only others have stays before the next one that both know.
pub(super) fn by_order(
    old: &[Value],
    new: &[Value],
    step: impl Fn(&Value) -> Step,
    merge: impl Fn(&Value, &Value) -> Value,
) -> Value {
    let old_steps: Vec<Step> = old.iter().map(&step).collect();
    let new_steps: Vec<Step> = new.iter().map(&step).collect();
    let shared: Vec<&Step> = new_steps.iter().filter(|s| old_steps.contains(s)).collect();
    let (mut out, mut l, mut r, mut next) = (vec![], 0, 0, 0);
    while l < old.len() || r < new.len() {
        if let (Some(left), Some(right)) = (old_steps.get(l), new_steps.get(r))
            && left != right
            && new_steps.contains(left)
            && shared.get(next).is_some_and(|s| *s != left)
        {
            // Both know it, but it is another one's turn.
            l += 1;
            continue;
        }
        if old_steps.get(l).is_some_and(|s| !new_steps.contains(s)) {
            out.push(old[l].clone());
            l += 1;
            continue;
        }
        let Some(right) = new_steps.get(r) else {
            // It was taken at its turn already.
            l += 1;
            continue;
        };
        if old_steps.get(l) == Some(right) {
            l += 1;
        }
        if shared.get(next) == Some(&right) {
            next += 1;
        }
        let there = old_steps.iter().position(|s| s == right).map(|i| &old[i]);
        out.push(there.map_or_else(|| new[r].clone(), |t| merge(t, &new[r])));
        r += 1;
    }
    Value::Array(out)
}

/// Takes `gone` away, but for what `kept` needs.
pub(super) fn prune(shape: &Shape, value: &mut Value, gone: &Fields, kept: &Fields) {
    let nothing = Fields::default();
    match (shape, value) {
        (Shape::Plain | Shape::Fields(..), Value::Object(map)) => {
            for (step, fields) in &gone.below {
                let Step::Field(name) = step else { continue };
                let kept = kept.below.get(step).unwrap_or(&nothing);
                if fields.itself && kept.is_empty() {
                    map.remove(name);
                } else if let Some(child) = map.get_mut(name) {
                    prune(shape.field(name), child, fields, kept);
                    if kept.is_empty() && hollow(child) {
                        map.remove(name);
                    }
                }
            }
        }
        (Shape::ListMap(keys, item), Value::Array(list)) => list.retain_mut(|one| {
            let step = Step::of_item(one, keys);
            let Some(fields) = gone.below.get(&step) else { return true };
            let kept = kept.below.get(&step).unwrap_or(&nothing);
            if fields.itself && kept.is_empty() {
                return false;
            }
            prune(item, one, fields, kept);
            true
        }),
        (Shape::Set, Value::Array(list)) => list.retain(|one| {
            let step = Step::Value(one.to_string());
            !gone.below.contains_key(&step) || kept.below.contains_key(&step)
        }),
        _ => {}
    }
}

fn hollow(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
