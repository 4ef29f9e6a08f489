//! A backlog of WAL into the store.

use super::{
    bed::{Bed, arguments, text},
    seen::{Seen, each},
};
use crate::{
    figure::{Printer, median},
    process::{Cost, contender},
};
use anyhow::Result;

/// barman-cloud starts a Python program for each segment: more of them would only take longer.
const FOR_BARMAN: usize = 8;

pub(super) async fn run(bed: &mut Bed, printer: Printer) -> Result<()> {
    bed.filled().await?;
    let bed = &*bed;
    let mut seen = Seen::default();
    for n in 0..bed.runs {
        // Whoever comes first changes, so that nobody always gets the warmer machine.
        for turn in 0..4 {
            one(bed, &mut seen, (n + turn) % 4, n).await?;
        }
    }
    let speed = Cost::mib_per_second;
    let ratios = |costs: &[Cost]| -> Vec<f64> {
        costs.iter().zip(&seen.limit).map(|(c, limit)| c.mib_per_second() / limit.mib_per_second()).collect()
    };
    let ratio = |costs: &[Cost]| (!costs.is_empty()).then(|| median(&ratios(costs)));
    printer.print("wal_push.mib_per_s", &each(&seen.ours, speed), &seen.others(speed));
    let others = [("pgbackrest", ratio(&seen.pgbackrest)), ("barman", ratio(&seen.barman))];
    printer.print("wal_push.ratio_to_limit", &ratios(&seen.ours), &others);
    printer.print("wal_push.cpu_s_per_gib", &each(&seen.ours, Cost::cpu_per_gib), &seen.others(Cost::cpu_per_gib));
    let sending = |c: &Cost| c.walsender * c.cpu_per_gib() / c.cpu;
    printer.print("wal_push.cpu_s_per_gib.walsender", &each(&seen.ours, sending), &[]);
    let rss = |c: &Cost| c.rss;
    printer.print("wal_push.backlog_rss_mib", &each(&seen.ours, rss), &seen.others(rss)[1..]);
    Ok(())
}

/// What a run leaves in the store is thrown away; replay makes its own.
async fn one(bed: &Bed, seen: &mut Seen, who: usize, n: usize) -> Result<()> {
    let Some(filled) = bed.known() else { return Ok(()) };
    let prefix = format!("push-{who}-{n}");
    match who {
        0 => {
            let list = bed.list(&filled.segments())?;
            let args = arguments("limit-put", &[("prefix", prefix.clone()), ("list", text(&list))]);
            seen.limit.push(bed.ours(&args).await?);
        }
        1 => seen.ours.push(bed.ours(&filled.ship(&prefix)).await?),
        2 => {
            if let Some(cost) = pgbackrest(bed, &prefix).await? {
                seen.pgbackrest.push(cost);
            }
        }
        _ => {
            if let Some(cost) = barman(bed, &prefix, FOR_BARMAN).await? {
                seen.barman.push(cost);
            }
        }
    }
    bed.gateway.remove(&prefix);
    Ok(())
}

/// As PostgreSQL's archiver: `archive-push` for each segment; the asynchronous process behind it does the work.
pub(super) async fn pgbackrest(bed: &Bed, prefix: &str) -> Result<Option<Cost>> {
    let Some((filled, pgbackrest)) = bed.known().and_then(|f| Some((f, f.pgbackrest.as_ref()?))) else {
        return Ok(None);
    };
    pgbackrest.create(prefix)?;
    let list = bed.list(&filled.segments())?;
    let mut args = arguments("each", &[("list", text(&list))]);
    args.extend(["--postgres".to_owned(), "--".to_owned()]);
    args.extend(pgbackrest.args(prefix, &["archive-push"]));
    Ok(Some(contender(&args, &[]).await?))
}

pub(super) async fn barman(bed: &Bed, prefix: &str, most: usize) -> Result<Option<Cost>> {
    let Some((filled, barman)) = bed.known().and_then(|f| Some((f, f.barman.as_ref()?))) else { return Ok(None) };
    let some: Vec<_> = filled.segments().into_iter().take(most).collect();
    let list = bed.list(&some)?;
    let mut args = arguments("each", &[("list", text(&list))]);
    args.push("--".to_owned());
    args.extend(barman.args("barman-cloud-wal-archive", prefix, &["--zstd", "--compression-level", "1"]));
    Ok(Some(contender(&args, barman.env()).await?))
}
