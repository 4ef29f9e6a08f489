//! What the machine can do: everything that must be done, and nothing else, by the same client for S3 and four at a time.

use super::files;
use crate::{
    gateway::store,
    process::{Cost, measured},
};
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use pgconvoy_archive::store::{Put as Done, S3, Store, read, walk};
use std::{
    fs::{self, File},
    io::Read,
    os::{fd::AsFd, unix::fs::FileExt},
    path::PathBuf,
};
use tokio::task::spawn_blocking;

/// So much becomes one object.
const UNIT: u64 = 16 << 20;
const PARALLEL: usize = 4;

#[derive(clap::Args)]
pub(crate) struct Put {
    #[arg(long)]
    prefix: String,
    /// The files, one a line.
    #[arg(long)]
    list: PathBuf,
}

/// A piece of a file: where it begins, and how long it is.
type Extent = (PathBuf, u64, u64);

/// Files in units of 16 MiB: small ones together, large ones cut.
fn units(files: Vec<PathBuf>) -> Vec<Vec<Extent>> {
    let (mut units, mut unit, mut length) = (Vec::new(), Vec::new(), 0);
    for file in files {
        let size = fs::metadata(&file).map_or(0, |m| m.len());
        let mut at = 0;
        while at < size {
            let take = (size - at).min(UNIT - length);
            unit.push((file.clone(), at, take));
            (at, length) = (at + take, length + take);
            if length == UNIT {
                units.push(std::mem::take(&mut unit));
                length = 0;
            }
        }
    }
    units.extend((!unit.is_empty()).then_some(unit));
    units
}

impl Put {
    pub(crate) async fn run(self) -> Result<Cost> {
        let store = store(&self.prefix).await?;
        let units = units(files(&self.list)?);
        measured(async {
            let all = (0..).zip(units).map(|(n, unit)| put(&store, n, unit));
            let sizes: Vec<u64> = stream::iter(all).buffer_unordered(PARALLEL).try_collect().await?;
            Ok(sizes.iter().sum())
        })
        .await
    }
}

async fn put(store: &S3, number: u32, unit: Vec<Extent>) -> Result<u64> {
    let (bytes, size) = spawn_blocking(move || -> Result<_> {
        let mut raw = vec![0; usize::try_from(unit.iter().map(|(.., n)| n).sum::<u64>())?];
        let mut rest = &mut raw[..];
        for (path, at, length) in unit {
            let (part, behind) = rest.split_at_mut(usize::try_from(length)?);
            File::open(&path)?.read_exact_at(part, at).with_context(|| path.display().to_string())?;
            rest = behind;
        }
        Ok((zstd::bulk::compress(&raw, 1)?, raw.len() as u64))
    })
    .await??;
    anyhow::ensure!(store.put_new(&format!("{number:08}.zst"), bytes.into()).await? == Done::Stored, "it exists");
    Ok(size)
}

#[derive(clap::Args)]
pub(crate) struct Get {
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    into: PathBuf,
}

impl Get {
    pub(crate) async fn run(self) -> Result<Cost> {
        let store = store(&self.prefix).await?;
        fs::create_dir_all(&self.into)?;
        measured(async {
            let mut keys = Vec::new();
            walk(&store, "", None, false, |page| {
                keys.extend(page.objects.into_iter().map(|o| o.key));
                true
            })
            .await?;
            let all = keys.into_iter().map(|key| get(&store, key, self.into.clone()));
            let sizes: Vec<u64> = stream::iter(all).buffer_unordered(PARALLEL).try_collect().await?;
            nix::unistd::syncfs(File::open(&self.into)?.as_fd())?;
            Ok(sizes.iter().sum())
        })
        .await
    }
}

async fn get(store: &S3, key: String, into: PathBuf) -> Result<u64> {
    let object = read(store, &key).await?.context("it is missing")?;
    spawn_blocking(move || {
        let mut raw = Vec::with_capacity(usize::try_from(UNIT)?);
        zstd::stream::read::Decoder::with_buffer(&object[..])?.read_to_end(&mut raw)?;
        fs::write(into.join(key), &raw)?;
        Ok(raw.len() as u64)
    })
    .await?
}
