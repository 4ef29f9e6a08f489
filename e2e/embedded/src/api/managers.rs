//! Who manages which fields, and server-side apply.

use super::fields::{self, Difference, Fields};
use super::merge::{merge, prune};
use super::shape::Shape;
use serde_json::{Map, Value, json};

/// Nobody manages these.
const UNMANAGED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
    &["metadata", "generation"],
    &["metadata", "resourceVersion"],
    &["metadata", "managedFields"],
    &["metadata", "selfLink"],
];

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The name.
    pub name: String,
    /// Whether by server-side apply.
    pub applies: bool,
    /// The version that it speaks.
    pub api_version: String,
    /// `status`, `scale`, or nothing.
    pub subresource: String,
}

/// A manager and its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Manager {
    /// Who.
    pub writer: Writer,
    /// When it wrote last.
    pub time: String,
    /// What it manages.
    pub fields: Fields,
}

impl Manager {
    fn parse(value: &Value) -> Option<Manager> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Some(Manager {
            writer: Writer {
                name: text("manager"),
                applies: value["operation"] == "Apply",
                api_version: text("apiVersion"),
                subresource: text("subresource"),
            },
            time: text("time"),
            fields: Fields::parse(value.get("fieldsV1")?),
        })
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.writer.name,
            "operation": if self.writer.applies { "Apply" } else { "Update" },
            "apiVersion": self.writer.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if !self.writer.subresource.is_empty() {
            entry["subresource"] = json!(self.writer.subresource);
        }
        if self.writer.subresource == "scale"
            && let Some(entry) = entry.as_object_mut()
        {
            // The real server keeps no time of it.
            entry.remove("time");
        }
        entry
    }
}

/// A field that another manager has.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Whose it is.
    pub owner: Manager,
    /// The field, like `.spec.members`.
    pub field: String,
}

/// The managers of an object.
pub fn read(object: &Value) -> Vec<Manager> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Manager::parse).collect()
}

/// Writes them into it. Those who applied first, then by time and name, as the real server orders them.
pub fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|m| !m.fields.is_empty());
    managers.sort_by(|a, b| {
        let key =
            |m: &Manager| (!m.writer.applies, m.time.clone(), m.writer.name.clone(), m.writer.subresource.clone());
        key(a).cmp(&key(b))
    });
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if managers.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), managers.iter().map(Manager::to_value).collect());
    }
}

fn managed(difference: Difference) -> Difference {
    difference.without(&UNMANAGED)
}

/// Takes what was changed away from everyone else.
fn disown(managers: &mut [Manager], writer: &Writer, changed: &Difference) {
    let written = changed.written();
    for m in managers.iter_mut().filter(|m| m.writer != *writer) {
        m.fields = m.fields.minus(&written).minus(&changed.removed);
    }
}

/// Who manages what after a write that is no apply. `before`: as it was stored, nothing for a new object.
pub fn update(shape: &Shape, before: Option<&Value>, after: &mut Value, writer: &Writer, now: &str) {
    let mut managers = before.map(read).unwrap_or_default();
    let nothing = json!({ "metadata": {} });
    let changed = managed(fields::compare(shape, Some(before.unwrap_or(&nothing)), Some(after)));
    disown(&mut managers, writer, &changed);
    let written = changed.written();
    match managers.iter_mut().find(|m| m.writer == *writer) {
        Some(mine) => {
            let fields = mine.fields.minus(&changed.removed).union(&written);
            if fields != mine.fields || !written.is_empty() {
                now.clone_into(&mut mine.time);
            }
            mine.fields = fields;
        }
        None if written.is_empty() => {}
        None => managers.push(Manager { writer: writer.clone(), time: now.to_owned(), fields: written }),
    }
    write(after, managers);
}

/// The object after an apply of `config`, managers included.
///
/// # Errors
/// The fields that others manage and would get another value, unless it is by force.
pub fn apply(
    shape: &Shape,
    before: Option<&Value>,
    config: &Value,
    writer: &Writer,
    force: bool,
    now: &str,
) -> Result<Value, Vec<Conflict>> {
    let nothing = json!({ "metadata": {} });
    let live = before.unwrap_or(&nothing);
    let mut managers = before.map(read).unwrap_or_default();
    let mut wanted = fields::of_object(shape, config);
    for path in UNMANAGED {
        wanted.remove(path);
    }
    wanted.below.retain(|_, f| !f.is_empty());
    let last = managers.iter().find(|m| m.writer == *writer).map(|m| m.fields.clone()).unwrap_or_default();

    let mut merged = merge(shape, live, config);
    // What this manager no longer names goes, unless somebody else has it too.
    let others = managers.iter().filter(|m| m.writer != *writer);
    let kept = others.fold(wanted.clone(), |all, m| all.union(&m.fields));
    prune(shape, &mut merged, &last.minus(&wanted), &kept);

    let changed = managed(fields::compare(shape, Some(live), Some(&merged)));
    let written = changed.written();
    let mut conflicts = vec![];
    for m in managers.iter().filter(|m| m.writer != *writer) {
        let fields = m.fields.and(&written).paths();
        conflicts.extend(fields.into_iter().map(|field| Conflict { owner: m.clone(), field }));
    }
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    disown(&mut managers, writer, &changed);
    match managers.iter_mut().find(|m| m.writer == *writer) {
        Some(mine) => {
            if mine.fields != wanted || !written.is_empty() || !changed.removed.is_empty() {
                now.clone_into(&mut mine.time);
            }
            mine.fields = wanted;
        }
        None => managers.push(Manager { writer: writer.clone(), time: now.to_owned(), fields: wanted }),
    }
    write(&mut merged, managers);
    Ok(merged)
}

/// The same object but for the times at which its managers wrote.
pub fn same_but_for_times(a: &Value, b: &Value) -> bool {
    let timeless = |v: &Value| {
        let mut v = v.clone();
        if let Some(list) = v.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut) {
            list.iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|m: &mut Map<String, Value>| drop(m.remove("time")));
            list.sort_by_key(Value::to_string);
        }
        v
    };
    timeless(a) == timeless(b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::super::fields::Step;
    use super::super::merge::by_order;
    use super::super::shape::of_built_in;
    use super::*;

    fn applier(name: &str) -> Writer {
        Writer { name: name.into(), applies: true, api_version: "v1".into(), subresource: String::new() }
    }

    fn apply_as(name: &str, before: Option<&Value>, config: Value, force: bool) -> Result<Value, Vec<String>> {
        let fields = |c: Vec<Conflict>| c.into_iter().map(|c| format!("{} {}", c.owner.writer.name, c.field)).collect();
        apply(&of_built_in("Service"), before, &config, &applier(name), force, "now").map_err(fields)
    }

    fn service(labels: Value, ports: Value) -> Value {
        json!({ "metadata": { "name": "s", "labels": labels }, "spec": { "ports": ports } })
    }

    #[test]
    fn each_manager_has_its_own_entries() {
        let one = apply_as("a", None, service(json!({"x": "1"}), json!([{"port": 1}])), false).unwrap();
        let two = apply_as("b", Some(&one), service(json!({"y": "2"}), json!([{"port": 2}])), false).unwrap();
        assert_eq!(two["metadata"]["labels"], json!({"x": "1", "y": "2"}));
        assert_eq!(two["spec"]["ports"], json!([{"port": 1}, {"port": 2}]));
        // What a manager leaves out goes when it was the only one to have it.
        let three = apply_as("a", Some(&two), json!({"metadata": {"name": "s"}}), false).unwrap();
        assert_eq!(three["metadata"]["labels"], json!({"y": "2"}));
        assert_eq!(three["spec"]["ports"], json!([{"port": 2}]));
        let names: Vec<_> = read(&three).into_iter().map(|m| m.writer.name).collect();
        assert_eq!(names, ["b"], "who has nothing is not listed");
    }

    #[test]
    fn another_value_is_a_conflict_and_force_takes_it() {
        let one = apply_as("a", None, service(json!({"x": "1"}), json!([])), false).unwrap();
        let other = service(json!({"x": "2"}), json!([]));
        assert_eq!(apply_as("b", Some(&one), other.clone(), false).unwrap_err(), ["a .metadata.labels.x"]);
        assert!(apply_as("b", Some(&one), service(json!({"x": "1"}), json!([])), false).is_ok(), "the same is shared");
        let two = apply_as("b", Some(&one), other, true).unwrap();
        assert_eq!(two["metadata"]["labels"]["x"], "2");
        let three = apply_as("a", Some(&two), json!({"metadata": {"name": "s"}}), false).unwrap();
        assert_eq!(three["metadata"]["labels"]["x"], "2", "it is b's now");
    }

    #[test]
    fn shared_fields_stay_until_the_last_lets_go() {
        let it = || service(json!({"x": "1"}), json!([{"port": 1, "name": "p"}]));
        let one = apply_as("a", None, it(), false).unwrap();
        let two = apply_as("b", Some(&one), it(), false).unwrap();
        let bare = || json!({"metadata": {"name": "s"}});
        let three = apply_as("a", Some(&two), bare(), false).unwrap();
        assert_eq!(three["spec"]["ports"], json!([{"port": 1, "name": "p"}]));
        let four = apply_as("b", Some(&three), bare(), false).unwrap();
        assert_eq!(four.pointer("/spec/ports"), None);
        assert!(read(&four).is_empty());
    }

    #[test]
    fn an_update_takes_what_it_changes() {
        let one = apply_as("a", None, service(json!({"x": "1", "y": "1"}), json!([])), false).unwrap();
        let mut two = one.clone();
        two["metadata"]["labels"]["x"] = json!("2");
        let writer = Writer { applies: false, ..applier("u") };
        update(&of_built_in("Service"), Some(&one), &mut two, &writer, "later");
        let managers = read(&two);
        assert_eq!(managers[0].fields.paths(), [".metadata.labels.y", ".spec.ports"]);
        assert_eq!(
            (managers[1].writer.applies, managers[1].fields.paths()),
            (false, vec![".metadata.labels.x".into()])
        );
        let again = service(json!({"x": "1", "y": "1"}), json!([]));
        assert_eq!(apply_as("a", Some(&two), again, false).unwrap_err(), ["u .metadata.labels.x"]);
    }

    #[test]
    fn order_is_that_of_who_applies() {
        let names =
            |v: &Value| v.as_array().unwrap().iter().map(|i| i.as_str().unwrap().to_owned()).collect::<String>();
        let order = |old: &str, new: &str| {
            let list = |s: &str| s.chars().map(|c| json!(c.to_string())).collect::<Vec<_>>();
            names(&by_order(&list(old), &list(new), |v| Step::Value(v.to_string()), |_, n| n.clone()))
        };
        assert_eq!(order("abc", "ca"), "bca", "b stays before the next that is known");
        assert_eq!(order("ab", "cd"), "abcd");
        assert_eq!(order("ab", "xb"), "axb");
    }
}
