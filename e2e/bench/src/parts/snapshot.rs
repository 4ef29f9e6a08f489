//! A data directory into the store, and back.

use super::{
    bed::{Bed, arguments, text},
    seen::{Seen, each},
};
use crate::{
    figure::{Printer, median},
    process::Cost,
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a snapshot holds, by and large: no WAL.
fn data_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "pg_wal" {
                data_files(&entry.path(), found)?;
            }
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

pub(super) async fn run(bed: &mut Bed, printer: Printer) -> Result<()> {
    // Peers wait for the archiver at the end of a backup; WAL is another part's matter.
    bed.filled().await?.server.archive_command("/bin/true").await?;
    let bed = &*bed;
    let (mut taken, mut restored) = (Seen::default(), Seen::default());
    for n in 0..bed.runs {
        for turn in 0..4 {
            let who = (n + turn) % 4;
            if let Some(mut cost) = take(bed, who, n).await? {
                cost.bytes = bytes(bed)?;
                taken.of(who).push(cost);
            }
        }
        for turn in 0..4 {
            let who = (n + turn) % 4;
            let into = bed.path("restored");
            if let Some(mut cost) = restore(bed, who, n, &into).await? {
                cost.bytes = bytes(bed)?;
                restored.of(who).push(cost);
            }
            let _ = fs::remove_dir_all(&into);
            bed.gateway.remove(&prefix(who, n));
        }
    }
    let seconds = |c: &Cost| c.seconds;
    // Of the limit's speed for a snapshot, of its time for a restore.
    let faster = |costs: &[Cost], limit: &[Cost]| -> Vec<f64> {
        costs.iter().zip(limit).map(|(c, l)| l.seconds / c.seconds).collect()
    };
    let longer = |costs: &[Cost], limit: &[Cost]| -> Vec<f64> {
        costs.iter().zip(limit).map(|(c, l)| c.seconds / l.seconds).collect()
    };
    let some = |values: Vec<f64>| (!values.is_empty()).then(|| median(&values));
    let speed = Cost::mib_per_second;
    printer.print("snapshot.mib_per_s", &each(&taken.ours, speed), &taken.others(speed));
    let others = [
        ("pgbackrest", some(faster(&taken.pgbackrest, &taken.limit))),
        ("barman", some(faster(&taken.barman, &taken.limit))),
    ];
    printer.print("snapshot.ratio_to_limit", &faster(&taken.ours, &taken.limit), &others);
    printer.print("snapshot.cpu_s_per_gib", &each(&taken.ours, Cost::cpu_per_gib), &taken.others(Cost::cpu_per_gib));
    printer.print("snapshot.rss_mib", &each(&taken.ours, |c| c.rss), &taken.others(|c| c.rss)[1..]);
    printer.print("restore.s", &each(&restored.ours, seconds), &restored.others(seconds));
    let others = [
        ("pgbackrest", some(longer(&restored.pgbackrest, &restored.limit))),
        ("barman", some(longer(&restored.barman, &restored.limit))),
    ];
    printer.print("restore.ratio_to_raw", &longer(&restored.ours, &restored.limit), &others);
    printer.print("restore.rss_mib", &each(&restored.ours, |c| c.rss), &restored.others(|c| c.rss)[1..]);
    Ok(())
}

fn prefix(who: usize, n: usize) -> String {
    format!("snapshot-{who}-{n}")
}

fn bytes(bed: &Bed) -> Result<u64> {
    let mut files = Vec::new();
    data_files(&bed.known().context("no server")?.server.data(), &mut files)?;
    Ok(files.iter().filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum())
}

async fn take(bed: &Bed, who: usize, n: usize) -> Result<Option<Cost>> {
    let filled = bed.known().context("no server")?;
    let prefix = prefix(who, n);
    Ok(match who {
        0 => {
            let mut files = Vec::new();
            data_files(&filled.server.data(), &mut files)?;
            let list = bed.list(&files)?;
            Some(bed.ours(&arguments("limit-put", &[("prefix", prefix), ("list", text(&list))])).await?)
        }
        1 => {
            let (socket, port) = (text(&filled.server.dir), filled.server.port.to_string());
            let args = arguments("snapshot", &[("prefix", prefix), ("socket", socket), ("port", port)]);
            Some(bed.ours(&args).await?)
        }
        2 => match &filled.pgbackrest {
            Some(pgbackrest) => {
                pgbackrest.create(&prefix)?;
                Some(pgbackrest.once(&prefix, &["--type=full", "backup"]).await?)
            }
            None => None,
        },
        _ => match &filled.barman {
            Some(barman) => {
                let (socket, port) = (text(&filled.server.dir), filled.server.port.to_string());
                let options =
                    ["-h", &socket, "-p", &port, "-U", "postgres", "--immediate-checkpoint", "-J", "2", "--lz4"];
                Some(barman.once(barman.args("barman-cloud-backup", &prefix, &options)).await?)
            }
            None => None,
        },
    })
}

async fn restore(bed: &Bed, who: usize, n: usize, into: &Path) -> Result<Option<Cost>> {
    let filled = bed.known().context("no server")?;
    let prefix = prefix(who, n);
    Ok(match who {
        0 => Some(bed.ours(&arguments("limit-get", &[("prefix", prefix), ("into", text(into))])).await?),
        1 => Some(bed.ours(&arguments("restore", &[("prefix", prefix), ("into", text(into))])).await?),
        2 => match &filled.pgbackrest {
            Some(pgbackrest) => {
                fs::create_dir(into)?;
                crate::server::give(into)?;
                let to = format!("--pg1-path={}", into.display());
                Some(pgbackrest.once(&prefix, &[&to, "restore"]).await?)
            }
            None => None,
        },
        _ => match &filled.barman {
            Some(barman) => {
                let mut args = barman.args("barman-cloud-restore", &prefix, &[]);
                let base = bed.gateway.objects(&prefix).join("main/base");
                let id = fs::read_dir(base)?.flatten().next().context("barman has no backup")?.file_name();
                args.extend([id.to_string_lossy().into_owned(), text(into)]);
                Some(barman.once(args).await?)
            }
            None => None,
        },
    })
}
