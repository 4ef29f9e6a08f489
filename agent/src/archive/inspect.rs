//! `pgconvoy-agent archive`: what people ask of an archive, in the agent's container, where the way to it is known. Nothing secret
//! is printed.

use super::{
    access::Access,
    keeper::{clocks, policy, removed},
};
use crate::settings::Paths;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use pgconvoy_archive::{
    retain::{self, Inventory, Policy, Why},
    store::S3,
};
use pgconvoy_crds::Retention;
use pgconvoy_terms::SystemId;
use serde_json::{Value, json};
use std::{fs, io::Read, path::Path};

/// What is asked of the archive.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// The snapshots, and why each stays
    Ls(Format),
    /// Whether what lies there can be restored. Exit status: 0 yes, 1 no
    Verify {
        /// Read every part and compare its checksum, instead of looking whether it is there with its size
        #[arg(long)]
        deep: bool,
        /// How it is printed
        #[command(flatten)]
        format: Format,
    },
    /// What retention would remove; the leader does that by itself
    Expire {
        /// Nothing is removed
        #[arg(long, required = true)]
        dry_run: bool,
        /// As if the PgArchive said so many days
        #[arg(long)]
        days: Option<i32>,
        /// As if the PgArchive said so many snapshots
        #[arg(long)]
        snapshots: Option<i32>,
        /// How it is printed
        #[command(flatten)]
        format: Format,
    },
    /// From where to where the set can be restored
    ShowRange(Format),
}

/// How it is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Format {
    /// For programs
    #[arg(long)]
    json: bool,
}

/// At most so many objects are counted.
const LIMIT: u64 = 1_000_000;

/// Answers. Whether all is well.
///
/// # Errors
/// What cannot be reached or read, in a sentence.
pub async fn answer(ask: Ask) -> anyhow::Result<bool> {
    let paths = Paths::default();
    let access = Access::read(&paths.archive, "").map_err(anyhow::Error::msg)?;
    let access = access.context("the set has no archive, or what leads to it has not come yet")?;
    let system = system(&paths.pgdata)?;
    let store = S3::new(access.config()).await?;
    let asked = Access::retention(&paths.archive).map_err(anyhow::Error::msg)?.map(|a| a.retention);
    let inventory = Inventory::look(&store, system).await?;
    let (format, answer, text, well) = match ask {
        Ask::Ls(format) => {
            let (answer, text) = ls(&store, &inventory, asked).await?;
            (format, answer, text, true)
        }
        Ask::Verify { deep, format } => {
            let (answer, text, well) = verify(&store, &inventory, deep).await?;
            (format, answer, text, well)
        }
        Ask::Expire { dry_run: _, days, snapshots, format } => {
            let given = (days.is_some() || snapshots.is_some()).then_some(Retention { days, snapshots });
            let Some(asked) = given.or(asked) else {
                bail!(
                    "the PgArchive says no retention, so nothing is ever removed; try it out with --dry-run --days or --snapshots"
                );
            };
            let (answer, text) = expire(&store, &inventory, policy(&asked)).await?;
            (format, answer, text, true)
        }
        Ask::ShowRange(format) => {
            let (answer, text) = range(&store, &inventory).await?;
            (format, answer, text, true)
        }
    };
    if format.json {
        println!("{answer:#}");
    } else {
        print!("{text}");
    }
    Ok(well)
}

/// Which `initdb` this member's data descends from: the first field of its control file.
fn system(pgdata: &Path) -> anyhow::Result<SystemId> {
    let file = pgdata.join("global/pg_control");
    let mut bytes = [0; 8];
    fs::File::open(&file)
        .and_then(|mut f| f.read_exact(&mut bytes))
        .with_context(|| format!("this member has no data, so its archive cannot be told: {}", file.display()))?;
    Ok(SystemId(u64::from_le_bytes(bytes)))
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "-".to_owned(), |t| t.to_string())
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

/// Columns, as wide as what stands in them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

async fn ls(store: &S3, inventory: &Inventory, asked: Option<Retention>) -> anyhow::Result<(Value, String)> {
    let policy = asked.as_ref().map(policy).unwrap_or_default();
    let plan = retain::plan(inventory, policy, clocks(store, policy).await?);
    let why = |id: &_| plan.keep.iter().find(|(kept, _)| kept == id).map(|(_, why)| *why);
    let mut good: Vec<_> = inventory.good.iter().collect();
    good.sort_by_key(|g| std::cmp::Reverse((g.epoch.number, g.stop)));
    let title = ["SNAPSHOT", "COMPLETE", "EPOCH", "START", "STOP", "SIZE", "STAYS"].map(str::to_owned).to_vec();
    let mut rows = vec![title];
    let mut list = vec![];
    for g in good {
        let stays = why(&g.id).map_or_else(|| "goes".to_owned(), |why: Why| why.to_string());
        list.push(json!({
            "snapshot": g.id.to_string(), "complete": time(g.time), "epoch": g.epoch.number, "start": g.start.to_string(),
            "stop": g.stop.to_string(), "bytes": g.bytes, "stays": stays,
        }));
        let epoch = g.epoch.number.to_string();
        rows.push(vec![
            g.id.to_string(),
            time(g.time),
            epoch,
            g.start.to_string(),
            g.stop.to_string(),
            size(g.bytes),
            stays,
        ]);
    }
    let unfinished: Vec<String> = inventory.unfinished.iter().map(|u| u.id.to_string()).collect();
    let mut text = if rows.len() == 1 { "there is no complete snapshot\n".to_owned() } else { table(&rows) };
    if !unfinished.is_empty() {
        text.push_str(&format!("not complete: {}\n", unfinished.join(", ")));
    }
    Ok((json!({ "system": inventory.system.to_string(), "snapshots": list, "unfinished": unfinished }), text))
}

async fn verify(store: &S3, inventory: &Inventory, deep: bool) -> anyhow::Result<(Value, String, bool)> {
    let (mut list, mut text, mut well) = (vec![], String::new(), !inventory.good.is_empty());
    if inventory.good.is_empty() {
        text.push_str("there is no complete snapshot, so nothing can be restored\n");
    }
    for good in &inventory.good {
        let found = retain::verify(store, inventory, good, deep).await?;
        let end = found.reach.as_ref().map(|r| r.end.to_string());
        well &= found.wrong.is_empty();
        match found.wrong.as_slice() {
            [] => text.push_str(&format!("{}  good, up to {}\n", good.id, end.as_deref().unwrap_or("-"))),
            wrong => wrong.iter().for_each(|w| text.push_str(&format!("{}  {w}\n", good.id))),
        }
        list.push(json!({ "snapshot": good.id.to_string(), "wrong": found.wrong, "reaches": end }));
    }
    Ok((json!({ "snapshots": list, "read": deep }), text, well))
}

async fn expire(store: &S3, inventory: &Inventory, policy: Policy) -> anyhow::Result<(Value, String)> {
    let plan = retain::plan(inventory, policy, clocks(store, policy).await?);
    let swept = retain::sweep(store, inventory, &plan, LIMIT, true).await?;
    let mut text = match removed(&swept) {
        Some(what) => format!("would go: {what}\n"),
        None => "nothing goes\n".to_owned(),
    };
    let kept: Vec<String> = plan.keep.iter().map(|(id, why)| format!("{id} ({why})")).collect();
    text.push_str(&format!("stays: {}\n", kept.join(", ")));
    let floor =
        plan.floor.as_ref().and_then(|f| f.begins.first()).map(|(dir, lsn)| (dir.epoch.number, lsn.to_string()));
    if let Some((epoch, lsn)) = &floor {
        text.push_str(&format!("WAL stays from {lsn} in epoch {epoch} on\n"));
    }
    text.extend(plan.note.iter().map(|note| format!("note: {note}\n")));
    let names =
        |ids: &[_]| ids.iter().map(|id: &pgconvoy_archive::snapshot::SnapshotId| id.to_string()).collect::<Vec<_>>();
    let answer = json!({
        "snapshots": names(&swept.snapshots), "abandoned": names(&swept.abandoned), "walObjects": swept.wal,
        "objects": swept.objects, "bytes": swept.bytes, "stays": plan.keep.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(),
        "walFrom": floor.map(|(epoch, lsn)| json!({ "epoch": epoch, "lsn": lsn })), "note": plan.note,
    });
    Ok((answer, text))
}

async fn range(store: &S3, inventory: &Inventory) -> anyhow::Result<(Value, String)> {
    let mut good: Vec<_> = inventory.good.iter().collect();
    good.sort_by_key(|g| (g.epoch.number, g.stop));
    let Some(newest) = good.last() else { bail!("there is no complete snapshot, so nothing can be restored") };
    let end = retain::reach(store, inventory, newest).await?;
    // The oldest from which one comes as far.
    let mut oldest = *newest;
    for candidate in good.iter().rev() {
        match retain::reach(store, inventory, candidate).await? {
            Some(reach) if Some(reach.end) >= end.as_ref().map(|e| e.end) => oldest = candidate,
            _ => break,
        }
    }
    let until = end.as_ref().map(|e| e.end.to_string());
    let when = end.as_ref().and_then(|e| e.time).map(time);
    let text = format!(
        "from   {}  {}  snapshot {}\nuntil  {}  {}  timeline {}\n",
        oldest.stop,
        time(oldest.time),
        oldest.id,
        until.as_deref().unwrap_or("-"),
        when.as_deref().unwrap_or("-"),
        end.as_ref().map_or_else(|| "-".to_owned(), |e| e.timeline.to_string()),
    );
    let answer = json!({
        "from": { "lsn": oldest.stop.to_string(), "time": time(oldest.time), "snapshot": oldest.id.to_string() },
        "until": { "lsn": until, "time": when, "timeline": end.map(|e| e.timeline.0) },
    });
    Ok((answer, text))
}
