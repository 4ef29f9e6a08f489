//! The definitions of the kinds, as they are installed.

use crate::rules::{self, Rule};
use crate::{PgArchive, PgReplicaSet, PgRequest, PgSnapshot, PgSnapshotSchedule, PgTerm};
use kube::CustomResourceExt;
use serde_json::{Value, json};

/// A definition that cannot be made: a rule or a bound points to a place that the types do not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbuildable {
    /// The types changed under a rule.
    #[error("{kind} has no field {path}, for which there is a rule or a bound")]
    NoSuchField {
        /// The kind.
        kind: &'static str,
        /// The place that is missing.
        path: String,
    },
    /// The derived definition has no schema.
    #[error("the derived definition of {0} has no schema")]
    NoSchema(&'static str),
}

/// The CustomResourceDefinitions, with all rules. `PgReplicaSet::crd()` and `PgTerm::crd()` are their bare forms.
///
/// # Errors
/// When a rule points nowhere; a test makes sure that none does.
pub fn definitions() -> Result<Vec<Value>, Unbuildable> {
    Ok(vec![
        definition("PgReplicaSet", json!(PgReplicaSet::crd()), rules::replica_set(), rules::replica_set_bounds())?,
        definition("PgArchive", json!(PgArchive::crd()), rules::archive(), rules::archive_bounds())?,
        definition("PgSnapshot", json!(PgSnapshot::crd()), rules::snapshot(), rules::snapshot_bounds())?,
        definition(
            "PgSnapshotSchedule",
            json!(PgSnapshotSchedule::crd()),
            rules::snapshot_schedule(),
            rules::snapshot_schedule_bounds(),
        )?,
        definition("PgRequest", json!(PgRequest::crd()), rules::request(), rules::request_bounds())?,
        definition("PgTerm", json!(PgTerm::crd()), rules::term(), rules::term_bounds())?,
    ])
}

fn definition(
    kind: &'static str,
    mut crd: Value,
    rules: Vec<Rule>,
    bounds: Vec<(&'static str, Value)>,
) -> Result<Value, Unbuildable> {
    let schema = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").ok_or(Unbuildable::NoSchema(kind))?;
    tidy(schema);
    for (path, more) in bounds {
        if let (Some(place), Value::Object(more)) = (at(kind, schema, path)?.as_object_mut(), more) {
            place.extend(more);
        }
    }
    for Rule { path, expression, message } in rules {
        let place = at(kind, schema, path)?;
        if !place["x-kubernetes-validations"].is_array() {
            place["x-kubernetes-validations"] = json!([]);
        }
        if let Some(list) = place["x-kubernetes-validations"].as_array_mut() {
            list.push(json!({ "rule": expression, "message": message }));
        }
    }
    Ok(crd)
}

/// What the derive leaves behind and nobody needs.
///
/// `nullable`: the API server drops a null where a field is not nullable, which is what a user means by it, and the rules
/// then see an absent field. `format: uint…` and the like: the server warns about formats that it does not know.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
                // What an optional enumeration lists besides its words.
                if let Some(Value::Array(words)) = map.get_mut("enum") {
                    words.retain(|w| !w.is_null());
                }
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The schema at `path`.
pub(crate) fn at<'a>(kind: &'static str, schema: &'a mut Value, path: &str) -> Result<&'a mut Value, Unbuildable> {
    let missing = || Unbuildable::NoSuchField { kind, path: path.to_owned() };
    let mut place = schema;
    for step in path.split('.').filter(|s| !s.is_empty()) {
        let name = step.trim_end_matches(['[', ']', '{', '}']);
        place = place.get_mut("properties").and_then(|p| p.get_mut(name)).ok_or_else(missing)?;
        if step.ends_with("[]") {
            place = place.get_mut("items").ok_or_else(missing)?;
        } else if step.ends_with("{}") {
            place = place.get_mut("additionalProperties").ok_or_else(missing)?;
        }
    }
    Ok(place)
}
