//! Taking a snapshot.

use super::{
    backup::Backup,
    error::Error,
    files::{CONTROL, find, group},
    manifest::{Manifest, SnapshotId, folder, manifest_key, part_key, pg_manifest_key},
    pace::Pace,
    part::{Content, patience, store_part},
    pg_manifest,
};
use crate::{
    layout::{EpochDir, FORMAT},
    store::{Created, Store, create, patiently},
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How to take a snapshot.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of files in one part. Too small: many requests. Too large: a restore is less parallel.
    pub part_size: u64,
    /// Parts at the same time; each holds some 16 MiB of memory. Too few: the store is not busy. Too many: the leader's
    /// disk is.
    pub parallel: usize,
    /// When it begins, in RFC 3339, for people.
    pub time: String,
    /// How fast it reads.
    pub pace: Arc<Pace>,
}

/// Takes a snapshot of the data directory of a running server: `epoch` is the one that it follows or leads. Whoever calls
/// must see to it that WAL from its start to its stop gets into the archive.
///
/// # Errors
/// [`Error`]; what was stored until then stays, without a manifest, and is no snapshot.
pub async fn take(
    store: Arc<dyn Store>,
    epoch: &EpochDir,
    id: &SnapshotId,
    data: &Path,
    server: &pgconvoy_wire::Config,
    options: &Options,
) -> Result<Manifest, Error> {
    let system = epoch.system;
    let there = store.list(&folder(system, id), None, false).await?;
    if !there.objects.is_empty() {
        return Err(Error::Id(format!("there is something under the name {id} already; take another")));
    }
    let (backup, start) = Backup::begin(server, &id.to_string()).await?;
    let (postgresql, major) = backup.version();
    let data: PathBuf = data.to_owned();
    let found = {
        let data = data.clone();
        tokio::task::spawn_blocking(move || find(&data)).await.map_err(|e| Error::Id(e.to_string()))??
    };
    let mut contents: Vec<Vec<Content>> =
        group(found.files, options.part_size).into_iter().map(|files| vec![Content::Files(files)]).collect();
    // Directories come with the first part.
    let directories = Content::Directories(found.directories);
    match contents.first_mut() {
        Some(first) => first.insert(0, directories),
        None => contents.push(vec![directories]),
    }
    let last = contents.len() as u32;
    let numbered = (0u32..).zip(contents).map(|(number, content)| {
        let (store, data, key, pace) =
            (store.clone(), data.clone(), part_key(system, id, number), options.pace.clone());
        async move { store_part(&*store, &key, number, &data, content, pace).await }
    });
    let mut done: Vec<_> = stream::iter(numbered).buffer_unordered(options.parallel.max(1)).try_collect().await?;

    // After all other files, and before the end.
    let control = data.join(CONTROL);
    let control = fs::read(&control).map_err(Error::disk("read", control))?;
    let ended = backup.end().await?;
    let given = vec![(PathBuf::from(CONTROL), control), (PathBuf::from("backup_label"), ended.label.into_bytes())];
    let key = part_key(system, id, last);
    done.push(store_part(&*store, &key, last, &data, vec![Content::Given(given)], options.pace.clone()).await?);

    done.sort_by_key(|(part, _)| part.number);
    let (parts, sums): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    let files: Vec<_> = sums.into_iter().flatten().collect();
    let text = pg_manifest::write(major, system, &files, epoch.timeline(), start, ended.stop);
    let packed = zstd::bulk::compress(text.as_bytes(), 3).map_err(Error::disk("compress", "backup_manifest"))?;
    new(&*store, &pg_manifest_key(system, id), packed).await?;
    let manifest = Manifest {
        format: FORMAT,
        epoch: epoch.epoch.clone(),
        start,
        stop: ended.stop,
        postgresql,
        parts,
        time: options.time.clone(),
    };
    let json = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    new(&*store, &manifest_key(system, id), json).await?;
    Ok(manifest)
}

async fn new(store: &dyn Store, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
    let bytes = bytes::Bytes::from(bytes);
    match patiently(patience, || create(store, key, bytes.clone())).await? {
        Created::New | Created::Same => Ok(()),
        Created::Differs(_) => Err(Error::Id(format!("{key} is there already, from another snapshot"))),
    }
}
