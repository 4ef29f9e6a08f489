//! Every piece of YAML that somebody may copy out of the documents is one that the API server's schema takes. Rules in CEL are checked on
//! a real API server, for the files of `examples/` (`e2e/tests/tests/crd_rules.rs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_book::pages::documents;
use pgconvoy_book::{root, yaml};
use pgconvoy_embedded::api::schema::Schema;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Kinds of others: what is required of them is what these manifests need to be found and named.
const OF_OTHERS: [&str; 7] = [
    "v1/Secret",
    "v1/ConfigMap",
    "v1/PersistentVolumeClaim",
    "argoproj.io/v1alpha1/Application",
    "source.toolkit.fluxcd.io/v1/GitRepository",
    "helm.toolkit.fluxcd.io/v2/HelmRelease",
    "kustomize.toolkit.fluxcd.io/v1/Kustomization",
];

fn schemas() -> BTreeMap<String, Schema> {
    let definitions = pgconvoy_crds::definitions().unwrap();
    let of = |d: &Value| {
        let kind = d["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        (kind, Schema::root(&d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
    };
    definitions.iter().map(of).collect()
}

/// What a piece leaves out with `# …`, or as a mere `spec:`.
fn completed(piece: &Value) -> Value {
    let rest = match piece["kind"].as_str().unwrap_or("PgReplicaSet") {
        "PgReplicaSet" => json!({ "image": "postgres:17", "members": 3, "storage": { "size": "1Gi" } }),
        "PgArchive" => json!({ "bucket": "b", "credentials": {
            "accessKeyId": { "name": "s", "key": "i" }, "secretAccessKey": { "name": "s", "key": "k" } } }),
        _ => json!({}),
    };
    let mut whole = json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": "x" }, "spec": rest });
    yaml::merge(&mut whole, piece);
    whole
}

/// What is wrong with an object.
fn wrong(object: &Value, schemas: &BTreeMap<String, Schema>) -> Vec<String> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
    if object["metadata"]["name"].as_str().is_none() {
        return vec!["it has no name".to_owned()];
    }
    match version.split_once('/') {
        Some(("pgconvoy.dev", "v1alpha1")) => {
            let Some(schema) = schemas.get(kind) else { return vec![format!("there is no kind {kind}")] };
            let mut pruned = object.clone();
            let unknown = schema.prune(&mut pruned).into_iter().map(|field| format!("there is no field {field}"));
            unknown.chain(schema.validate(object).into_iter().map(|w| format!("{}: {}", w.field, w.message))).collect()
        }
        _ if OF_OTHERS.contains(&format!("{version}/{kind}").as_str()) => vec![],
        _ => vec![format!("nobody checks {version}/{kind}")],
    }
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_example_is_taken_by_the_schema() {
    let schemas = schemas();
    let (mut found, mut complaints) = (vec![], vec![]);
    files(&root().join("examples"), &mut found);
    assert!(found.len() >= 8, "{found:?}");
    for file in found {
        for object in yaml::documents(&std::fs::read_to_string(&file).unwrap()).unwrap() {
            complaints.extend(wrong(&object, &schemas).into_iter().map(|w| format!("{}: {w}", file.display())));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_piece_of_yaml_in_the_documents_is_taken_by_the_schema() {
    let schemas = schemas();
    let (mut seen, mut complaints) = (0, vec![]);
    for (file, page) in documents(&root()).unwrap() {
        for block in &page.blocks {
            let at = format!("{}:{}", file.display(), block.line);
            // An indented block that begins like an object is one, too.
            let begins = ["apiVersion:", "spec:", "kind:"].iter().any(|b| block.text.trim_start().starts_with(b));
            let is_one = matches!(block.language.as_str(), "yaml" | "yml") || (block.language.is_empty() && begins);
            if !is_one {
                continue;
            }
            if let Some(shown) = block.comment.as_deref().and_then(|c| c.strip_prefix("file: ")) {
                let there = std::fs::read_to_string(root().join(shown)).unwrap_or_default();
                if there != block.text {
                    complaints.push(format!("{at} is not what stands in {shown}"));
                }
            }
            let documents = yaml::documents(&block.text).unwrap_or_else(|e| panic!("{at}: {e:#}"));
            assert!(!documents.is_empty(), "{at} is empty");
            for piece in documents {
                seen += 1;
                let part = piece["apiVersion"].is_null() || block.text.contains("# …");
                let ours = piece["apiVersion"].is_null() || piece["apiVersion"] == "pgconvoy.dev/v1alpha1";
                let object = if part && ours { completed(&piece) } else { piece };
                complaints.extend(wrong(&object, &schemas).into_iter().map(|w| format!("{at}: {w}")));
            }
        }
    }
    assert!(seen >= 8, "only {seen} pieces were found");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
