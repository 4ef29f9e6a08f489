//! What a client is told of the kinds that are served.

use super::Api;
use super::kinds::Kind;
use serde_json::{Value, json};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Api {
    /// `/apis`.
    pub fn groups(&self) -> Value {
        let mut names: Vec<&str> = self.kinds.iter().map(|k| k.group.as_str()).filter(|g| !g.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": names.iter().map(|n| self.group(n)).collect::<Vec<_>>() })
    }

    /// `/apis/<group>`, or nothing if there is none.
    pub fn find_group(&self, name: &str) -> Option<Value> {
        self.kinds.iter().any(|k| k.group == name).then(|| {
            let mut group = self.group(name);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            group
        })
    }

    fn group(&self, name: &str) -> Value {
        let mut versions: Vec<&str> =
            self.kinds.iter().filter(|k| k.group == name).map(|k| k.version.as_str()).collect();
        versions.dedup();
        let version = |v: &&str| json!({ "groupVersion": format!("{name}/{v}"), "version": v });
        let list: Vec<Value> = versions.iter().map(version).collect();
        json!({ "name": name, "versions": list, "preferredVersion": list.first() })
    }

    /// `/api/v1` and `/apis/<group>/<version>`, or nothing if there is none.
    pub fn resources(&self, group: &str, version: &str) -> Option<Value> {
        let kinds: Vec<_> = self.kinds.iter().filter(|k| k.group == group && k.version == version).collect();
        let group_version = kinds.first()?.api_version();
        let mut list = vec![];
        for kind in kinds {
            let mut entry = json!({
                "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": VERBS, "storageVersionHash": "",
            });
            if matches!(kind.kind.as_str(), "Pod" | "Service") {
                entry["categories"] = json!(["all"]);
            }
            if !kind.short.is_empty() {
                entry["shortNames"] = json!(kind.short);
            }
            list.push(entry);
            let below = |name: &str, group: &str, version: &str, of: &str| {
                json!({
                    "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                    "group": group, "version": version, "kind": of, "verbs": ["get", "patch", "update"],
                })
            };
            if kind.status {
                list.push(below("status", &kind.group, &kind.version, &kind.kind));
            }
            if kind.scale.is_some() {
                list.push(below("scale", "autoscaling", "v1", "Scale"));
            }
            if kind.kind == "Pod" {
                list.push(json!({
                    "name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"],
                }));
            }
        }
        Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list }))
    }

    /// `/openapi/v3`.
    pub fn openapi_index(&self) -> Value {
        let mut paths = serde_json::Map::new();
        for kind in &self.kinds {
            let path = group_path(kind);
            // The hash makes clients ask again when a kind has come.
            let url = format!("/openapi/v3/{path}?hash={}", self.kinds.len());
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
        json!({ "paths": paths })
    }

    /// `/openapi/v3/<path>`: as much as a client needs to leave validation to the server, and for `kubectl explain`.
    pub fn openapi(&self, path: &str) -> Option<Value> {
        let kinds: Vec<_> = self.kinds.iter().filter(|k| group_path(k) == path).collect();
        if kinds.is_empty() {
            return None;
        }
        let (mut paths, mut schemas) = (serde_json::Map::new(), serde_json::Map::new());
        for kind in kinds {
            let gvk = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
            let namespace = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
            let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
            let id = format!("embedded.{}.{}.{}", kind.group, kind.version, kind.kind);
            let verb = |action: &str| {
                json!({
                    "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
                    "responses": { "200": { "description": "OK" } },
                    "x-kubernetes-action": action,
                    "x-kubernetes-group-version-kind": gvk,
                })
            };
            paths.insert(format!("/{path}/{namespace}{}", kind.plural), json!({ "post": verb("post") }));
            let one = json!({ "patch": verb("patch"), "put": verb("put") });
            paths.insert(format!("/{path}/{namespace}{}/{{name}}", kind.plural), one);
            let mut schema = kind.schema.as_ref().map_or_else(|| json!({ "type": "object" }), |s| s.value().clone());
            schema["x-kubernetes-group-version-kind"] = json!([gvk]);
            schemas.insert(id, schema);
        }
        Some(json!({
            "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "embedded" },
            "paths": paths, "components": { "schemas": schemas },
        }))
    }
}

fn group_path(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}
