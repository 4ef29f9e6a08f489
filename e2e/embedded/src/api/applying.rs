//! Server-side apply, and the scale subresource.

use super::kinds::Kind;
use super::refusal::Refusal;
use super::rules::{check_type, nulls_go, unknown};
use super::write::{WriteOptions, metadata_of, same_uid};
use super::{Api, Done, defaults, managers, read, text};
use serde_json::{Value, json};

impl Api {
    pub(super) fn apply(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &str,
        config: &Value,
        options: &WriteOptions,
    ) -> Result<Done, Refusal> {
        check_type(kind, config)?;
        if options.manager.is_empty() {
            return Err(Refusal::no_manager());
        }
        if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let given = text(config, "/metadata/name");
        if !given.is_empty() && given != name {
            return Err(Refusal::other_name(given, name));
        }
        let now = self.surroundings.time(0);
        let writer = Self::writer(kind, options, true, subresource);
        let mut config = config.clone();
        defaults::to_store(kind, &mut config);
        let mut warnings = vec![];
        if let Some(schema) = &kind.schema {
            warnings = unknown(kind, schema.prune(&mut config), options)?;
        } else {
            nulls_go(&mut config);
        }
        let before = self.store.get(&Self::key(kind, namespace, name)).map(|s| s.object.clone());
        // Of a subresource nothing else counts, and of the rest not the status.
        if let Some(map) = config.as_object_mut() {
            if subresource == "status" {
                map.retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
                if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
                    metadata.retain(|k, _| matches!(k.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
                }
            } else if kind.status {
                map.remove("status");
            }
        }
        let merged = managers::apply(&kind.shape, before.as_deref(), &config, &writer, options.force, &now)
            .map_err(|c| Refusal::apply_conflict(&c))?;
        let mut done = match before {
            None if subresource.is_empty() => {
                let uid = text(&config, "/metadata/uid");
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(Refusal::conflict(kind, name, &why));
                }
                let mut object = merged;
                metadata_of(&mut object)?.insert("name".to_owned(), json!(name));
                let applied = Value::Null;
                self.make(kind, namespace, object, options, Some(&applied))?
            }
            None => return Err(Refusal::not_found(kind, name)),
            Some(before) => {
                let mut object = merged;
                let metadata = metadata_of(&mut object)?;
                match config.pointer("/metadata/resourceVersion") {
                    Some(v) => drop(metadata.insert("resourceVersion".to_owned(), v.clone())),
                    None => drop(metadata.remove("resourceVersion")),
                }
                same_uid(kind, name, subresource, &before, &mut object)?;
                let managers = managers::read(&object);
                self.finish(kind, name, subresource, &before, object, options, Some(managers))?
            }
        };
        done.warnings.append(&mut warnings);
        Ok(done)
    }

    pub(super) fn update_scale(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        scale: &Value,
        options: &WriteOptions,
    ) -> Result<Done, Refusal> {
        let Some(at) = kind.scale.as_ref().map(|s| read::pointer(&s.spec)) else { return Err(Refusal::no_path()) };
        let before = self.there(kind, namespace, name)?.object.clone();
        let mut object = (*before).clone();
        let number = scale.pointer("/spec/replicas").cloned().unwrap_or_else(|| json!(0));
        if let Some((parent, last)) = at.rsplit_once('/')
            && let Some(Value::Object(map)) = object.pointer_mut(parent)
        {
            map.insert(last.to_owned(), number);
        }
        if let Ok(metadata) = metadata_of(&mut object) {
            match scale.pointer("/metadata/resourceVersion") {
                Some(v) => drop(metadata.insert("resourceVersion".to_owned(), v.clone())),
                None => drop(metadata.remove("resourceVersion")),
            }
        }
        let mut done = self.finish(kind, name, "scale", &before, object, options, None)?;
        done.object = read::scale_of(kind, &done.object);
        Ok(done)
    }
}
