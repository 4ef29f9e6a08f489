//! The first data of a set, out of another set's archive: the snapshot's files, then WAL up to the target, then a log of its
//! own.
//!
//! PostgreSQL replays in single-user mode: one program that fetches, replays, makes the end of recovery durable and ends.
//! It asks for WAL by `restore_command`, a shell script that hands the name over in a directory of the volume and moves what
//! the agent puts there: nothing but a shell is needed in the image.

use super::{
    renew,
    target::{choose, not_reached},
    task::Task,
};
use crate::{
    archive::Access,
    postgres::{Error, FILES, Postgres},
};
use pgconvoy_archive::{
    fetch::{self, Chain, Fetched, Fetcher},
    retain::{Good, Inventory, Reach, reach},
    snapshot::{self, Manifest, RestoreOptions, read_manifest},
    store::{S3, Store, walk},
};
use pgconvoy_crds::{FromArchive, RecoveryTarget};
use pgconvoy_terms::{SystemId, TimelineId};
use std::{
    convert::Infallible,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// For replaying WAL.
const REPLAY: Duration = Duration::from_secs(24 * 3600);
/// For the new log.
const RENEW: Duration = Duration::from_secs(600);
/// How often it is looked whether PostgreSQL asks for a file.
const ASKED: Duration = Duration::from_millis(10);
/// How large a segment that is fetched ahead may become together with others, in bytes: it takes room on the volume.
const AHEAD: u64 = 64 << 20;

/// `restore_command`: 0 = there; 1 = no such file, which ends recovery; 126 and more = an error, which stops it.
const SCRIPT: &str = r#"#!/bin/sh
# restore_command of pgconvoy: asks the agent for file $1 and moves it to $2
dir=${0%/*}
rm -f "$dir/ready.$1" "$dir/absent.$1" "$dir/failed.$1"
: > "$dir/want.$1" || exit 126
n=0
while [ $n -lt 60000 ]; do
  if [ -e "$dir/ready.$1" ]; then mv "$dir/ready.$1" "$2" && exit 0; exit 126; fi
  if [ -e "$dir/absent.$1" ]; then rm -f "$dir/absent.$1"; exit 1; fi
  if [ -e "$dir/failed.$1" ]; then cat "$dir/failed.$1" >&2; exit 126; fi
  n=$((n + 1))
  sleep 0.01
done
echo "the agent gave no answer about $1" >&2
exit 126
"#;

/// What is restored.
struct Source {
    store: Arc<dyn Store>,
    system: SystemId,
    chosen: Good,
    manifest: Manifest,
    chain: Chain,
    timeline: TimelineId,
    reach: Reach,
}

/// Fills the empty data directory. Nothing runs afterwards, and it is as if initdb had made it: on timeline 1, under a system
/// identifier of its own.
pub(super) async fn restore(postgres: &Postgres, from: &FromArchive) -> Result<(), Error> {
    let source = find(postgres, from).await?;
    let (major, _) = postgres.image().await?;
    let taken = &source.manifest.postgresql;
    if taken.split(['.', ' ']).next() != Some(major.to_string().as_str()) {
        return Err(Error::Unfit(format!(
            "snapshot {} was taken by PostgreSQL {taken}, and the pod's image has {major}: name an image of that version",
            source.chosen.id
        )));
    }
    let paths = postgres.paths().clone();
    tracing::info!(snapshot = %source.chosen.id, system = %source.system, timeline = %source.timeline, "restoring");
    let files = {
        let (store, system, id, manifest) =
            (source.store.clone(), source.system, source.chosen.id.clone(), source.manifest.clone());
        let (pgdata, unpacking) = (paths.pgdata.clone(), postgres.kept().unpacking.clone());
        // Of its own: it ends with this, and borrows nothing.
        Task::begin(async move {
            let options = RestoreOptions { parallel: 2, unpacking, ..RestoreOptions::default() };
            snapshot::restore(store, system, &id, &manifest, &pgdata, &options).await
        })
    };
    files.ended().await?.map_err(archive)?;

    let exchange = paths.volume.join("restore");
    let prepare = {
        let (exchange, pgdata) = (exchange.clone(), paths.pgdata.clone());
        move || prepare(&exchange, &pgdata)
    };
    postgres.disk.run("preparing the recovery", FILES, prepare).await?;
    let ahead = fetch::Options { ahead: AHEAD, ..fetch::Options::new(exchange.join("ahead")) };
    let fetcher = Fetcher::new(source.store.clone(), source.chain.clone(), ahead).map_err(archive)?;
    let mut args: Vec<OsString> = vec!["--single".into(), "-D".into(), paths.pgdata.clone().into()];
    for (name, value) in settings(&exchange, source.timeline, from.target.as_ref()) {
        args.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    args.push("postgres".into());
    tracing::info!("replaying WAL from the archive");
    let done = tokio::select! {
        done = postgres.programs.output("postgres", args, REPLAY) => done,
        never = serve(&fetcher, &exchange) => match never {},
    };
    drop(fetcher);
    if let Err(Error::Program { said, .. }) = &done
        && let Some(why) = not_reached(said, &source.chosen, &source.reach, from.target.as_ref())
    {
        return Err(Error::Unfit(format!("spec.bootstrap.fromArchive cannot be followed: {why}")));
    }
    done?;
    let state = postgres.programs.control_data(&paths.pgdata).await?;
    if state.get("Database cluster state").map(String::as_str) != Some("shut down") {
        return Err(Error::Unfit(format!("after the recovery PostgreSQL's state is {state:?}")));
    }
    let begin_anew = {
        let (exchange, pgdata) = (exchange.clone(), paths.pgdata.clone());
        move || {
            remove(&exchange)?;
            renew::begin_anew(&pgdata, rand::random())
        }
    };
    postgres.disk.run("giving the data a log of its own", FILES, begin_anew).await?;
    let args: [OsString; 2] = ["-D".into(), paths.pgdata.clone().into()];
    postgres.programs.output("pg_resetwal", args, RENEW).await?;
    // pg_resetwal leaves a log of wal_level = minimal, which PostgreSQL refuses to start from as a standby; and that is how a
    // member starts that could not lead at once. A start and a stop write down another level, as initdb's own do.
    let mut args: Vec<OsString> = vec!["--single".into(), "-D".into(), paths.pgdata.into()];
    let mut quiet = settings(&exchange, TimelineId(1), None);
    quiet.push(("wal_level", "replica".to_owned()));
    for (name, value) in quiet {
        args.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    args.push("postgres".into());
    postgres.programs.output("postgres", args, RENEW).await.map(drop)
}

fn archive(e: impl std::fmt::Display) -> Error {
    Error::NotYet(format!("restoring from the archive: {e}"))
}

async fn find(postgres: &Postgres, from: &FromArchive) -> Result<Source, Error> {
    let dir = postgres.paths().archive.clone();
    let read = move || Ok(Access::read(&dir, pgconvoy_crds::pod::archive::SOURCE));
    let access = postgres.disk.run("looking for the way to the archive", FILES, read).await?;
    let access = access.map_err(Error::NotYet)?.ok_or_else(|| {
        Error::NotYet(format!(
            "waiting for what leads to PgArchive {}, see the condition Archiving",
            from.reference.name
        ))
    })?;
    let store: Arc<dyn Store> = Arc::new(S3::new(access.config()).await.map_err(archive)?);
    let place = format!("{} below {}/", store.describe(), access.place.prefix);
    let mut systems: Vec<SystemId> = Vec::new();
    let folders = walk(&*store, "", None, true, |page| {
        systems.extend(page.folders.iter().filter_map(|f| f.trim_end_matches('/').parse::<SystemId>().ok()));
        true
    });
    folders.await.map_err(archive)?;
    // The one with the newest complete snapshot, of those that count.
    let mut found: Option<(Inventory, Vec<Good>)> = None;
    for system in systems {
        let inventory = Inventory::look(&*store, system).await.map_err(archive)?;
        let named = |g: &&Good| from.snapshot.as_ref().is_none_or(|s| *s == g.id.to_string());
        let good: Vec<Good> = inventory.good.iter().filter(named).cloned().collect();
        let newest = |list: &[Good]| list.iter().map(|g| g.time).max();
        if found.as_ref().is_none_or(|(_, there)| newest(there) < newest(&good)) && !good.is_empty() {
            found = Some((inventory, good));
        }
    }
    let Some((inventory, mut good)) = found else {
        let what = from.snapshot.as_ref().map_or_else(|| "no snapshot".to_owned(), |s| format!("no snapshot {s}"));
        return Err(Error::NotYet(format!("there is {what} in {place}; check spec.bootstrap.fromArchive")));
    };
    let system = inventory.system;
    let last = inventory.epochs.last().ok_or_else(|| Error::NotYet(format!("there is no WAL in {place}")))?;
    let chain = Chain::to(&*store, system, &last.dir.epoch).await.map_err(archive)?;
    let timeline = last.dir.timeline();
    if let (Some(named), [only]) = (&from.snapshot, good.as_slice())
        && !chain.links().iter().any(|l| l.dir.epoch == only.epoch)
    {
        return Err(Error::Unfit(format!(
            "snapshot {named} was taken in epoch {}, which the newest one, {}, did not go on from; name another snapshot",
            only.epoch, last.dir.epoch
        )));
    }
    good.retain(|g| chain.links().iter().any(|l| l.dir.epoch == g.epoch));
    good.sort_by_key(|g| (g.epoch.number, g.stop));
    let newest = good.last().ok_or_else(|| {
        Error::Unfit(format!(
            "no snapshot in {place} was taken in an epoch that the newest one, {}, went on from",
            last.dir.epoch
        ))
    })?;
    let reach = reach(&*store, &inventory, newest).await.map_err(archive)?;
    let reach = reach.ok_or_else(|| Error::NotYet(format!("there is no WAL in {place}")))?;
    let chosen = choose(&good, &reach, from.target.as_ref())
        .map_err(|why| Error::Unfit(format!("spec.bootstrap.fromArchive cannot be followed: {why}")))?
        .clone();
    let manifest = read_manifest(&*store, system, &chosen.id).await.map_err(archive)?;
    let manifest = manifest.ok_or_else(|| Error::NotYet(format!("snapshot {} has just been removed", chosen.id)))?;
    Ok(Source { store, system, chosen, manifest, chain, timeline, reach })
}

/// What PostgreSQL is started with; it wins over every file.
fn settings(exchange: &Path, timeline: TimelineId, target: Option<&RecoveryTarget>) -> Vec<(&'static str, String)> {
    let mut list = vec![
        ("restore_command", format!("sh \"{}\" \"%f\" \"%p\"", exchange.join("fetch").display())),
        ("recovery_target_timeline", timeline.0.to_string()),
        ("recovery_target_action", "promote".to_owned()),
        ("recovery_target_inclusive", "on".to_owned()),
        // Without it PostgreSQL does not insist on limits as high as they were.
        ("hot_standby", "off".to_owned()),
        ("archive_mode", "off".to_owned()),
        ("primary_conninfo", String::new()),
        ("ssl", "off".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("synchronous_standby_names", String::new()),
    ];
    let target = target.cloned().unwrap_or_default();
    list.extend(target.time.map(|t| ("recovery_target_time", t)));
    list.extend(target.lsn.map(|t| ("recovery_target_lsn", t)));
    list.extend(target.xid.map(|t| ("recovery_target_xid", t)));
    list.extend(target.name.map(|t| ("recovery_target_name", t)));
    list.extend((target.immediate == Some(true)).then(|| ("recovery_target", "immediate".to_owned())));
    list
}

fn prepare(exchange: &Path, pgdata: &Path) -> Result<(), Error> {
    remove(exchange)?;
    fs::create_dir_all(exchange).map_err(Error::disk("create", exchange))?;
    let script = exchange.join("fetch");
    fs::write(&script, SCRIPT).map_err(Error::disk("write", &script))?;
    let signal = pgdata.join("recovery.signal");
    fs::write(&signal, "").map_err(Error::disk("write", &signal))
}

fn remove(exchange: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(exchange) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::disk("remove", exchange)(e)),
        _ => Ok(()),
    }
}

/// Answers the script for as long as PostgreSQL runs.
async fn serve(fetcher: &Fetcher, exchange: &Path) -> Infallible {
    loop {
        for name in wanted(exchange) {
            let at = |what: &str| exchange.join(format!("{what}.{name}"));
            let part = at("part");
            let answer = match fetcher.fetch(&name, &part).await {
                Ok(Fetched::Done) => fs::rename(&part, at("ready")),
                Ok(Fetched::Absent) => fs::write(at("absent"), ""),
                Err(e) => {
                    tracing::error!("restoring from the archive: {name}: {e}");
                    fs::write(at("failed"), format!("{e}\n"))
                }
            };
            if let Err(e) = answer {
                tracing::error!("{} cannot be written: {e}", exchange.display());
            }
        }
        sleep(ASKED).await;
    }
}

/// Files that PostgreSQL asks for; each is told once.
fn wanted(exchange: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(exchange) else { return Vec::new() };
    let paths = entries.flatten().map(|e| e.path());
    let name = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("want.")?.to_owned();
        fs::remove_file(&path).ok()?;
        Some(name)
    };
    paths.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What the script says to a file, with an agent that answers as `answer` has it.
    fn asked(answer: impl FnOnce(&Path) + Send + 'static) -> (Option<i32>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (exchange, pgdata) = (dir.path().join("restore"), dir.path().join("data"));
        fs::create_dir(&pgdata).unwrap();
        prepare(&exchange, &pgdata).unwrap();
        let agent = exchange.clone();
        let agent = std::thread::spawn(move || {
            while wanted(&agent) != ["one"] {
                std::thread::sleep(Duration::from_millis(5));
            }
            answer(&agent);
        });
        let mut command = Command::new("sh");
        let status = command.arg(exchange.join("fetch")).arg("one").arg(dir.path().join("to")).status().unwrap();
        agent.join().unwrap();
        (status.code(), dir)
    }

    #[test]
    fn postgresql_is_told_a_missing_file_from_an_error() {
        let (code, dir) = asked(|e| fs::write(e.join("ready.one"), "wal").unwrap());
        assert_eq!((code, fs::read_to_string(dir.path().join("to")).unwrap().as_str()), (Some(0), "wal"));
        assert_eq!(asked(|e| fs::write(e.join("absent.one"), "").unwrap()).0, Some(1));
        assert_eq!(asked(|e| fs::write(e.join("failed.one"), "a gap\n").unwrap()).0, Some(126));
    }

    #[test]
    fn a_target_is_postgresqls_own() {
        let target = RecoveryTarget { lsn: Some("0/3000148".into()), ..RecoveryTarget::default() };
        let list = settings(Path::new("/v/restore"), TimelineId(26), Some(&target));
        let value = |name: &str| list.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("recovery_target_timeline"), Some("26"));
        assert_eq!(value("recovery_target_lsn"), Some("0/3000148"));
        assert_eq!(value("restore_command"), Some("sh \"/v/restore/fetch\" \"%f\" \"%p\""));
        assert_eq!(value("recovery_target_time"), None);
    }
}
