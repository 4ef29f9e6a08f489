//! The set's log in object storage, and another set out of it.

use super::Context;
use super::client::Client;
use super::sql::Sql;
use super::steps::{READY, SET, SOON, example, title, until, watch_set};
use super::view::Look;
use crate::machine::BUCKET;
use crate::store::{self, ARCHIVE};
use anyhow::{Context as _, bail};
use pgconvoy_terms::Lsn;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The set that is made out of the archive.
const AGAIN: &str = "again";

/// Ships the set's log, takes a snapshot, writes, and makes a new set out of the store that has what was written.
///
/// # Errors
/// What did not work.
pub(super) async fn restore(context: &Context, client: &Client, sql: &Sql) -> anyhow::Result<()> {
    title("6. Its log goes into object storage, and a new set comes out of it");
    client.apply("secrets", &store::secret(&context.keys)).await?;
    let archive = store::archive();
    println!("  $ kubectl apply -f -     # an S3 server inside this cluster; its keys are in the Secret {ARCHIVE}");
    for line in serde_yaml::to_string(&archive)?.lines() {
        println!("    {line}");
    }
    client.apply("pgarchives", &archive).await?;
    let patch = json!({ "spec": { "archive": { "ref": { "name": ARCHIVE } } } });
    println!("  $ kubectl patch pgrs {SET} --type merge -p '{patch}'");
    client.change(SET, &patch).await?;
    let begun = Instant::now();
    let from = until(READY, || async { Ok(archiving(&client.get("pgreplicasets", SET).await?)) }).await?;
    println!(
        "  Archiving, up to {from} so far, after {:.1} s. No pod was made anew for it.",
        begun.elapsed().as_secs_f64()
    );

    println!("  $ kubectl apply -f -     # a PgSnapshot named first");
    let snapshot = json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshot",
        "metadata": { "name": "first" }, "spec": { "set": SET } });
    client.apply("pgsnapshots", &snapshot).await?;
    let begun = Instant::now();
    let told = until(READY, || async { snapshot_told(&client.get("pgsnapshots", "first").await?["status"]) }).await?;
    println!("  {told}, complete after {:.1} s.", begun.elapsed().as_secs_f64());

    sql.must("rw", "insert into visits values (3, 'written after the snapshot')").await?;
    let committed = Instant::now();
    let end: Lsn = sql.quietly("rw", "select pg_current_wal_flush_lsn()").await?.parse()?;
    let objects = context.directory.join("store").join(BUCKET).join("default").join(SET);
    let object =
        until(SOON, || async { Ok(holding(&objects, end)) }).await.context("its log did not reach the store")?;
    let (seconds, key) = (committed.elapsed().as_secs_f64(), object.strip_prefix(&objects).unwrap_or(&object));
    println!("  {seconds:.1} s after that commit its log lay in the bucket: default/{SET}/{}", key.display());

    let again = again(serde_yaml::from_str(&example(context)?).context("the example is no YAML")?);
    println!("  $ kubectl apply -f -");
    for line in serde_yaml::to_string(&again)?.lines() {
        println!("    {line}");
    }
    client.apply("pgreplicasets", &again).await?;
    let took = watch_set(client, AGAIN, Look::default(), |l| l.whole(1, "")).await?;
    println!("  Ready 1/1 after {:.1} s.", took.as_secs_f64());
    let other = Sql::of(context, client, AGAIN).await?;
    let found = "select n, word from visits where n = 3";
    other.must(&format!("{AGAIN}-rw"), found).await?;
    if other.quietly(&format!("{AGAIN}-rw"), found).await? != "3|written after the snapshot" {
        bail!("what was written after the snapshot is missing in the new set");
    }
    Ok(())
}

/// The example's set once more: one member, out of the archive.
fn again(mut set: Value) -> Value {
    set["metadata"] = json!({ "name": AGAIN });
    set["spec"]["members"] = json!(1);
    let from = json!({ "ref": { "name": ARCHIVE }, "prefix": format!("default/{SET}") });
    set["spec"]["bootstrap"] = json!({ "fromArchive": from });
    set
}

/// Up to where a set's log is archived, once the set says that it is.
fn archiving(set: &Value) -> Option<String> {
    let conditions = set["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|c| c["type"] == "Archiving")?;
    let leader = set["status"]["memberStates"].as_array()?.iter().find(|m| m["role"] == "Leader")?;
    let at = leader["archive"]["archived"].as_str()?;
    (condition["status"] == "True").then(|| at.to_owned())
}

/// What a snapshot says of itself once it is complete.
fn snapshot_told(status: &Value) -> anyhow::Result<Option<String>> {
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    match text("phase").as_str() {
        "Completed" => {
            let mib = |key: &str| status[key].as_f64().unwrap_or_default() / 1_048_576.0;
            let (packed, whole) = (mib("bytes"), mib("unpackedBytes"));
            Ok(Some(format!("{} took it: {whole:.0} MiB, {packed:.1} in the bucket", text("member"))))
        }
        "Failed" => bail!("the snapshot failed: {}", text("message")),
        _ => Ok(None),
    }
}

/// The object of this archive that holds the log up to `end`, if there is one (docs/archive-format.md, WAL objects).
fn holding(objects: &Path, end: Lsn) -> Option<PathBuf> {
    let mut folders = vec![objects.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if covers(&path, end) {
                return Some(path);
            }
        }
    }
    None
}

/// Whether the first frame of a WAL object ends there or later.
fn covers(object: &Path, end: Lsn) -> bool {
    let mut head = [0; 32];
    let read = std::fs::File::open(object).and_then(|mut f| f.read_exact(&mut head));
    // A frame that zstd passes over: its magic and its length, then ours.
    read.is_ok() && head[8..12] == *b"PGCW" && head[24..32].try_into().is_ok_and(|b| u64::from_le_bytes(b) >= end.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn the_object_that_holds_a_position_is_found_by_its_head() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("7/00000001-e/wal/live");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(place.path().join("owner-1.json"), "{}").unwrap();
        let (start, end) = (Lsn(0x500_0000), Lsn(0x500_0148));
        let mut frame = [0x184D_2A50u32.to_le_bytes(), 32u32.to_le_bytes(), *b"PGCW", 1u32.to_le_bytes()].concat();
        frame.extend([start.0.to_le_bytes(), end.0.to_le_bytes()].concat());
        let piece = folder.join("00000001-0000000005000000.zst");
        std::fs::write(&piece, frame).unwrap();
        assert_eq!(holding(place.path(), end), Some(piece));
        assert_eq!(holding(place.path(), Lsn(end.0 + 1)), None);
    }

    #[test]
    fn what_a_set_and_a_snapshot_say_is_read() {
        let leader = json!({ "role": "Leader", "archive": { "archived": "0/5000148" } });
        let mut set = json!({ "status": { "memberStates": [leader], "conditions": [{ "type": "Archiving", "status": "False" }] } });
        assert_eq!(archiving(&set), None);
        set["status"]["conditions"][0]["status"] = json!("True");
        assert_eq!(archiving(&set).as_deref(), Some("0/5000148"));
        assert_eq!(snapshot_told(&json!({ "phase": "Running" })).unwrap(), None);
        let done = json!({ "phase": "Completed", "member": "q-2", "bytes": 1_048_576, "unpackedBytes": 31_457_280 });
        assert_eq!(snapshot_told(&done).unwrap().unwrap(), "q-2 took it: 30 MiB, 1.0 in the bucket");
        assert!(snapshot_told(&json!({ "phase": "Failed", "message": "no room" })).is_err());
    }
}
