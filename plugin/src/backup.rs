//! `backup`: a PgSnapshot is made, and what comes of it is told. `restore`: a new set out of the archive, as YAML.

use crate::access::Access;
use crate::archive_args::{BackupArgs, RestoreArgs};
use crate::objects;
use crate::problem::Problem;
use crate::words::clean;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use pgconvoy_crds::{PgArchive, PgReplicaSetSpec, PgSnapshot, PgSnapshotSpec, PgSnapshotStatus, SnapshotPhase};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How often it is looked how far a snapshot is.
const LOOK: Duration = Duration::from_millis(500);

/// Asks for a snapshot.
pub(crate) async fn backup(access: &Access, args: &BackupArgs) -> Result<ExitCode, Problem> {
    let set = objects::one(access, &args.set).await?;
    if set.set.spec.archive.is_none() {
        return Err(Problem::NoArchive { set: args.set.clone() });
    }
    let snapshots: Api<PgSnapshot> = Api::namespaced(access.client.clone(), &access.namespace);
    let metadata = ObjectMeta {
        name: args.name.clone(),
        generate_name: args.name.is_none().then(|| format!("{}-", args.set)),
        ..ObjectMeta::default()
    };
    let snapshot = PgSnapshot { metadata, spec: PgSnapshotSpec { set: args.set.clone() }, status: None };
    let made = access.ask("a new PgSnapshot", snapshots.create(&PostParams::default(), &snapshot)).await?;
    let name = made.name_any();
    say(&format!("pgsnapshot/{name} made"))?;
    let Some(wait) = args.wait else { return Ok(ExitCode::SUCCESS) };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    let mut told = None;
    while tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        let now = access.ask(&format!("PgSnapshot {name}"), snapshots.get(&name)).await?;
        let status = now.status.unwrap_or_default();
        if told != status.phase {
            if let Some(line) = line(&status) {
                say(&line)?;
            }
            told = status.phase;
        }
        match status.phase {
            Some(SnapshotPhase::Completed) => return Ok(ExitCode::SUCCESS),
            Some(SnapshotPhase::Failed | SnapshotPhase::Expired) => return Ok(ExitCode::from(1)),
            Some(SnapshotPhase::Running) | None => {}
        }
    }
    Err(Problem::NotTaken { name, set: args.set.clone(), wait, taken_up: told.is_some() })
}

fn line(status: &PgSnapshotStatus) -> Option<String> {
    let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "?".to_owned());
    Some(match status.phase? {
        SnapshotPhase::Running => format!("under way: {} takes it", text(&status.member)),
        SnapshotPhase::Completed => format!(
            "complete: {} to {}, {:.1} MB in the archive",
            text(&status.start),
            text(&status.stop),
            status.bytes.unwrap_or_default() as f64 / 1e6
        ),
        SnapshotPhase::Failed => format!("failed: {}", text(&status.message)),
        SnapshotPhase::Expired => text(&status.message),
    })
}

fn say(text: &str) -> Result<(), Problem> {
    writeln!(std::io::stdout(), "{}", clean(text)).map_err(Problem::Print)
}

/// Writes a new set out of a set's archive. Nothing is made.
pub(crate) async fn restore(access: &Access, args: &RestoreArgs) -> Result<ExitCode, Problem> {
    let set = objects::one(access, &args.set).await?;
    let Some(archive) = &set.set.spec.archive else {
        return Err(Problem::NoArchive { set: args.set.clone() });
    };
    let name = &archive.reference.name;
    let archives: Api<PgArchive> = Api::namespaced(access.client.clone(), &access.namespace);
    let archive = access.ask(&format!("PgArchive {name}"), archives.get(name)).await?;
    let text = manifest(&access.namespace, args, &set.set.spec, name, archive.spec.prefix.as_deref())?;
    write!(std::io::stdout(), "{text}").map_err(Problem::Print)?;
    Ok(ExitCode::SUCCESS)
}

fn manifest(
    namespace: &str,
    args: &RestoreArgs,
    spec: &PgReplicaSetSpec,
    archive: &str,
    prefix: Option<&str>,
) -> Result<String, Problem> {
    let mut from = json!({ "ref": { "name": archive } });
    // What the PgArchive says goes without saying.
    if prefix.is_none() {
        from["prefix"] = json!(format!("{namespace}/{}", args.set));
    }
    if let Some(snapshot) = &args.snapshot {
        from["snapshot"] = json!(snapshot);
    }
    let targets = [("time", &args.time), ("lsn", &args.lsn), ("xid", &args.xid), ("name", &args.name)];
    if let Some((what, value)) = targets.iter().find_map(|(what, value)| Some((*what, value.as_ref()?))) {
        from["target"] = json!({ what: value });
    } else if args.immediate {
        from["target"] = json!({ "immediate": true });
    }
    let mut spec = serde_json::to_value(spec).map_err(Problem::Json)?;
    let mut notes =
        format!("# {} as it was, out of its archive: look it over, then pipe it into kubectl apply -f -\n", args.set);
    if let Some(fields) = spec.as_object_mut() {
        fields.insert("bootstrap".to_owned(), json!({ "fromArchive": from }));
        if prefix.is_some() {
            // Two sets cannot write below one prefix.
            fields.remove("archive");
            notes.push_str(&format!(
                "# PgArchive {archive} has a prefix of its own, which {} writes to: this set needs another PgArchive in \
                 spec.archive.ref\n",
                args.set
            ));
        }
    }
    let object = json!({
        "apiVersion": format!("{}/{}", pgconvoy_crds::GROUP, pgconvoy_crds::VERSION),
        "kind": "PgReplicaSet",
        "metadata": { "name": args.to, "namespace": namespace },
        "spec": spec,
    });
    Ok(format!("{notes}{}", yaml(&object)))
}

/// YAML of what JSON can say. Everything that is no plain word is quoted as JSON does it, which YAML reads as well.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                text.push_str(&format!("{pad}{}:", scalar(&Value::String(key.clone()))));
                nested(value, depth + 1, text);
            }
        }
        Value::Array(list) => {
            for value in list {
                text.push_str(&format!("{pad}-"));
                nested(value, depth + 1, text);
            }
        }
        other => text.push_str(&format!("{pad}{}\n", scalar(other))),
    }
}

fn nested(value: &Value, depth: usize, text: &mut String) {
    let empty = value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    if (value.is_object() || value.is_array()) && !empty {
        text.push('\n');
        block(value, depth, text);
    } else {
        text.push_str(&format!(" {}\n", scalar(value)));
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(word) if plain(word) => word.clone(),
        other => other.to_string(),
    }
}

/// A word that YAML takes for nothing but text.
fn plain(word: &str) -> bool {
    let body = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let special = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan"];
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(body)
        && !special.contains(&word.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> RestoreArgs {
        RestoreArgs {
            set: "orders".into(),
            to: "again".into(),
            snapshot: None,
            time: Some("2026-01-31 12:00:00+00".into()),
            lsn: None,
            xid: None,
            name: None,
            immediate: false,
        }
    }

    fn spec() -> PgReplicaSetSpec {
        serde_json::from_value(json!({
            "image": "docker.io/library/postgres:17", "members": 3, "storage": { "size": "1Gi" },
            "postgresql": { "parameters": { "work_mem": "64MB", "jit": "off", "max_connections": 200 },
                            "hba": ["hostssl all all 10.0.0.0/8 scram-sha-256"] },
            "bootstrap": { "initdb": { "database": "shop" } },
            "archive": { "ref": { "name": "s3" } },
        }))
        .unwrap()
    }

    #[test]
    fn a_new_set_is_written_that_reads_the_old_archive() {
        let text = manifest("shop", &args(), &spec(), "s3", None).unwrap();
        let object: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(object["metadata"], json!({ "name": "again", "namespace": "shop" }));
        assert_eq!(
            object["spec"]["bootstrap"],
            json!({ "fromArchive": {
                "ref": { "name": "s3" }, "prefix": "shop/orders", "target": { "time": "2026-01-31 12:00:00+00" } } })
        );
        // What it was made from is left behind, everything else is as it was.
        let mut left = object["spec"].clone();
        left["bootstrap"] = json!({ "initdb": { "database": "shop" } });
        assert_eq!(serde_json::from_value::<PgReplicaSetSpec>(left).unwrap(), spec());
        assert!(text.starts_with("# orders as it was"), "{text}");
    }

    #[test]
    fn two_sets_do_not_write_below_one_prefix() {
        let args = RestoreArgs { time: None, immediate: true, snapshot: Some("a-1".into()), ..args() };
        let text = manifest("shop", &args, &spec(), "s3", Some("keep/orders")).unwrap();
        let object: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(object["spec"].get("archive"), None);
        let from = &object["spec"]["bootstrap"]["fromArchive"];
        assert_eq!(*from, json!({ "ref": { "name": "s3" }, "snapshot": "a-1", "target": { "immediate": true } }));
        assert!(text.contains("needs another PgArchive"), "{text}");
    }

    #[test]
    fn yaml_says_what_json_said() {
        let value = json!({
            "a": ["x", "on", "1", 1, true, null, "", "with: colon", "# no comment", "- dash", "tab\t\"quote\"", "ü"],
            "b": { "c": {}, "d": [], "e": [{ "f": 1, "g": [2, [3]] }] },
            "true": "0x1f", "12": "1e3", "~": "!tag", "h": "2026-01-31",
        });
        assert_eq!(serde_yaml::from_str::<Value>(&yaml(&value)).unwrap(), value);
    }

    #[test]
    fn what_came_of_a_snapshot_is_a_line() {
        let mut status = PgSnapshotStatus::default();
        assert_eq!(line(&status), None);
        status.phase = Some(SnapshotPhase::Completed);
        (status.start, status.stop, status.bytes) =
            (Some("0/2000028".into()), Some("0/3000000".into()), Some(4_500_000));
        assert_eq!(line(&status).unwrap(), "complete: 0/2000028 to 0/3000000, 4.5 MB in the archive");
    }
}
