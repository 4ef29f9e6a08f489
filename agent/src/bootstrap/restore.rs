//! The first data of a set, out of another set's archive: the snapshot's files, then WAL up to the target, then a log of its
//! own.
//!
//! PostgreSQL replays in single-user mode: one program that fetches, replays, makes the end of recovery durable and ends.
//! It asks for WAL by `restore_command`, a shell script of [`Exchange`].

use super::{
    renew,
    target::{choose, not_reached, of_another_major},
    task::Task,
    tries::Key,
};
use crate::{
    archive::Access,
    postgres::{Error, FILES, Postgres},
};
use pgconvoy_archive::{
    fetch::{self, Chain, Exchange, Fetcher},
    layout,
    retain::{Good, Inventory, Reach, reach},
    snapshot::{self, Manifest, RestoreOptions, read_manifest},
    store::{S3, Store, walk},
};
use pgconvoy_crds::{FromArchive, RecoveryTarget};
use pgconvoy_terms::{SystemId, TimelineId};
use std::{
    ffi::OsString,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// For replaying WAL.
const REPLAY: Duration = Duration::from_secs(24 * 3600);
/// For the new log.
const RENEW: Duration = Duration::from_secs(600);
/// How large a segment that is fetched ahead may become together with others, in bytes: it takes room on the volume.
const AHEAD: u64 = 64 << 20;

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
    if let Some(why) = of_another_major(&source.chosen, &source.manifest.postgresql, major) {
        return Err(Error::Unfit(why));
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
    if let Err(e) = files.ended().await? {
        let broken = matches!(e, snapshot::Error::Archive(layout::Error::Damaged { .. } | layout::Error::Newer { .. }));
        if broken && from.snapshot.is_none() {
            // An older one with more log behind it leads to the same data.
            let key = Key::Restore(source.chosen.id.to_string());
            postgres.kept().tries.failed(key, e.to_string(), true, Instant::now());
        }
        return Err(archive(e));
    }

    let exchange = paths.volume.join("restore");
    let prepare = {
        let (exchange, pgdata) = (exchange.clone(), paths.pgdata.clone());
        move || {
            let signal = pgdata.join("recovery.signal");
            fs::write(&signal, "").map_err(Error::disk("write", &signal))?;
            Ok(Exchange::prepare(exchange))
        }
    };
    let meeting = postgres.disk.run("preparing the recovery", FILES, prepare).await?.map_err(archive)?;
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
        never = meeting.serve(&fetcher) => match never {},
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
        let pgdata = paths.pgdata.clone();
        move || {
            let removed = meeting.remove();
            renew::begin_anew(&pgdata, rand::random())?;
            Ok(removed)
        }
    };
    postgres.disk.run("giving the data a log of its own", FILES, begin_anew).await?.map_err(archive)?;
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
    if from.snapshot.is_none() {
        pass_over_broken(postgres, &mut good);
    }
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

/// Leaves out snapshots that were found damaged, unless all of them were.
fn pass_over_broken(postgres: &Postgres, good: &mut Vec<Good>) {
    let mut kept = postgres.kept();
    kept.tries.forget(Instant::now());
    let whole = |g: &Good| kept.tries.given_up(&Key::Restore(g.id.to_string())).is_none();
    if good.iter().any(whole) {
        good.retain(whole);
    }
}

/// What PostgreSQL is started with; it wins over every file.
fn settings(exchange: &Path, timeline: TimelineId, target: Option<&RecoveryTarget>) -> Vec<(&'static str, String)> {
    let mut list = vec![
        ("restore_command", Exchange::command(exchange)),
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

#[cfg(test)]
mod tests {
    use super::*;

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
