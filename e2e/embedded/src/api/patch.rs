//! Patches that are no apply: merge patch, JSON patch, strategic merge patch.

use super::fields::Step;
use super::refusal::Refusal;
use super::shape::Shape;
use serde_json::{Map, Value};

/// JSON Merge Patch (RFC 7386).
pub(super) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(map) = into.as_object_mut() else { return };
    for (name, change) in changes {
        if change.is_null() {
            map.remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Strategic merge patch, as `kubectl apply` sends it for Kubernetes' own kinds: lists merge as the kind says.
pub(super) fn strategic(shape: &Shape, into: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *into = patch.clone();
        return;
    };
    if changes.get("$patch").is_some_and(|p| p == "replace") || !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(map) = into.as_object_mut() else { return };
    for (name, change) in changes {
        if name == "$patch" || name == "$retainKeys" || name.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(name) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (map.get_mut(name), change) {
                list.retain(|v| !gone.contains(v));
            }
            continue;
        }
        match (shape.field(name), change, map.get_mut(name)) {
            (_, Value::Null, _) => drop(map.remove(name)),
            (Shape::ListMap(keys, item), Value::Array(changes), Some(Value::Array(list))) => {
                for change in changes {
                    let at = list.iter().position(|v| Step::of_item(v, keys) == Step::of_item(change, keys));
                    match (at, change["$patch"] == "delete") {
                        (Some(at), true) => drop(list.remove(at)),
                        (None, true) => {}
                        (Some(at), false) => strategic(item, &mut list[at], change),
                        (None, false) => list.push(change.clone()),
                    }
                }
            }
            (Shape::Set, Value::Array(more), Some(Value::Array(list))) => {
                let new: Vec<Value> = more.iter().filter(|v| !list.contains(v)).cloned().collect();
                list.extend(new);
            }
            (part, Value::Object(_), there) => {
                let part = if matches!(part, Shape::Atomic) { &Shape::Plain } else { part };
                match there {
                    Some(there) => strategic(part, there, change),
                    None => {
                        let mut new = Value::Object(Map::new());
                        strategic(part, &mut new, change);
                        map.insert(name.clone(), new);
                    }
                }
            }
            _ => drop(map.insert(name.clone(), change.clone())),
        }
    }
}

/// JSON Patch (RFC 6902).
///
/// # Errors
/// When an operation cannot be done.
pub(super) fn json(into: &mut Value, operations: &Value) -> Result<(), Refusal> {
    let list = operations.as_array().ok_or_else(|| Refusal::bad_request("a JSON patch is a list of operations"))?;
    for op in list {
        let text = |name: &str| op[name].as_str().unwrap_or_default();
        let (kind, path) = (text("op"), text("path"));
        let unable = Refusal::patch_failed;
        match kind {
            "test" => {
                if into.pointer(path) != Some(&op["value"]) {
                    return Err(unable());
                }
            }
            "add" => add(into, path, op["value"].clone()).ok_or_else(unable)?,
            "replace" => *into.pointer_mut(path).ok_or_else(unable)? = op["value"].clone(),
            "remove" => drop(remove(into, path).ok_or_else(unable)?),
            "move" => {
                let value = remove(into, text("from")).ok_or_else(unable)?;
                add(into, path, value).ok_or_else(unable)?;
            }
            "copy" => {
                let value = into.pointer(text("from")).cloned().ok_or_else(unable)?;
                add(into, path, value).ok_or_else(unable)?;
            }
            _ => return Err(Refusal::bad_request(format!("unknown operation {kind:?} in a JSON patch"))),
        }
    }
    Ok(())
}

fn add(into: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *into = value;
        return Some(());
    }
    let (parent, last) = path.rsplit_once('/')?;
    match into.pointer_mut(parent)? {
        Value::Object(map) => drop(map.insert(unescape(last), value)),
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let at = last.parse().ok().filter(|i| *i <= list.len())?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(from: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = path.rsplit_once('/')?;
    match from.pointer_mut(parent)? {
        Value::Object(map) => map.remove(&unescape(last)),
        Value::Array(list) => {
            let at = last.parse().ok().filter(|i| *i < list.len())?;
            Some(list.remove(at))
        }
        _ => None,
    }
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::super::shape::of_built_in;
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patch() {
        let mut v = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut v, &json!({"a": {"b": null, "e": 3}, "d": [2], "f": {"g": null}}));
        assert_eq!(v, json!({"a": {"c": 2, "e": 3}, "d": [2], "f": {}}));
    }

    #[test]
    fn json_patch() {
        let mut v = json!({"a": [1, 3], "b": {"x/y": 1}});
        let ops = json!([
            {"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/1", "value": 2},
            {"op": "add", "path": "/a/-", "value": 4}, {"op": "remove", "path": "/b/x~1y"},
            {"op": "replace", "path": "/a/0", "value": 0}, {"op": "copy", "from": "/a", "path": "/c"},
            {"op": "move", "from": "/b", "path": "/d"},
        ]);
        json(&mut v, &ops).unwrap();
        assert_eq!(v, json!({"a": [0, 2, 3, 4], "c": [0, 2, 3, 4], "d": {}}));
        assert_eq!(json(&mut v, &json!([{"op": "test", "path": "/a/0", "value": 9}])).unwrap_err().code, 422);
        assert_eq!(json(&mut v, &json!([{"op": "remove", "path": "/nothing"}])).unwrap_err().code, 422);
    }

    #[test]
    fn strategic_patch() {
        let mut v = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}]},
            "metadata": {"finalizers": ["f"]}});
        let patch = json!({"spec": {"$setElementOrder/containers": [], "containers": [
            {"name": "a", "image": "2", "env": [{"name": "X", "$patch": "delete"}, {"name": "Y", "value": "2"}]},
            {"name": "b"}]}, "metadata": {"finalizers": ["g"], "$deleteFromPrimitiveList/finalizers": ["f"]}});
        strategic(&of_built_in("Pod"), &mut v, &patch);
        assert_eq!(
            v["spec"]["containers"],
            json!([
            {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "b"}])
        );
        assert_eq!(v["metadata"]["finalizers"], json!(["g"]));
    }
}
