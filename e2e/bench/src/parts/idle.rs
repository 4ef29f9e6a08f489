//! Requests while nothing happens.

use super::bed::{Bed, SEGMENT, ship_args};
use crate::{figure::Printer, server::Server};
use anyhow::{Context, Result};
use pgconvoy_terms::Lsn;
use std::{fs, time::Duration};
use tokio::time::sleep;

/// Of the five minutes in which there may be one: the rest is a unit test's.
const SECONDS: u64 = 90;

pub(super) async fn run(bed: &Bed, printer: Printer) -> Result<()> {
    // As it is by default: a checkpoint or a record about running transactions comes now and then.
    let server = Server::start(&bed.programs, bed.path("idle"), SEGMENT, &[]).await?;
    server.value("CREATE TABLE something AS SELECT 1").await?;
    let begin = server.lsn("SELECT pg_current_wal_flush_lsn()").await?;
    let (watch, stop) = (bed.path("watch"), bed.path("stop"));
    let _ = fs::remove_file(&stop);
    let mut args = ship_args(&server, "idle", Lsn(begin.0 - begin.0 % SEGMENT), SEGMENT);
    args.extend(["--stop".into(), stop.display().to_string()]);
    args.extend(["--watch".into(), watch.display().to_string()]);
    let resting = async {
        sleep(Duration::from_secs(5)).await;
        let before = puts(&watch)?;
        sleep(Duration::from_secs(SECONDS)).await;
        let puts = puts(&watch)? - before;
        fs::write(&stop, "")?;
        Ok::<_, anyhow::Error>(puts)
    };
    let (cost, puts) = tokio::try_join!(bed.ours(&args), resting)?;
    bed.gateway.remove("idle");
    printer.print(&format!("idle.puts_in_{SECONDS}_s"), &[puts], &[]);
    printer.print("idle.cpu_percent", &[cost.cpu / cost.seconds * 100.0], &[]);
    Ok(())
}

fn puts(watch: &std::path::Path) -> Result<f64> {
    let text = fs::read_to_string(watch)?;
    let last = text.lines().last().and_then(|l| l.rsplit(' ').next()).context("nothing was archived")?;
    Ok(last.parse()?)
}
