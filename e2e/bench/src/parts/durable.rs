//! From a commit until it is in the store.

use super::bed::{Bed, SEGMENT, ship_args};
use crate::{
    figure::Printer,
    server::{Server, value},
    work::monotonic,
};
use anyhow::{Context, Result};
use pgconvoy_terms::Lsn;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, interval, sleep};

const SECONDS: u64 = 20;

/// How fast is written: name, pause between commits, bytes of each, whether the machine is kept busy.
const RATES: [(&str, Option<u64>, usize, bool); 4] = [
    ("low", Some(700), 100, false),
    ("middle", Some(20), 8000, false),
    ("full", None, 200_000, false),
    ("middle_under_load", Some(20), 8000, true),
];

pub(super) async fn run(bed: &Bed, printer: Printer) -> Result<()> {
    let server = Server::start(&bed.programs, bed.path("durable"), SEGMENT, &["autovacuum=off"]).await?;
    server.value("CREATE TABLE commits (id bigserial PRIMARY KEY, text text)").await?;
    let mut memory = Vec::new();
    let mut seen = RATES.map(|_| (Vec::new(), Vec::new()));
    for n in 0..bed.runs {
        for (rate, seen) in RATES.iter().zip(&mut seen) {
            let prefix = format!("durable-{}-{n}", rate.0);
            let (mut waited, mib, rss) = one(bed, &server, &prefix, rate.1, rate.2, rate.3).await?;
            bed.gateway.remove(&prefix);
            waited.sort_by(f64::total_cmp);
            let p99 = waited.get((waited.len() * 99 / 100).min(waited.len().saturating_sub(1))).copied();
            seen.0.push(p99.context("nothing was committed")?);
            seen.1.push(mib);
            memory.push(rss);
        }
    }
    for (rate, (p99, mib)) in RATES.iter().zip(&seen) {
        printer.print(&format!("commit_to_durable_p99_s.{}", rate.0), p99, &[]);
        printer.print(&format!("commit_to_durable.{}.wal_mib_per_s", rate.0), mib, &[]);
    }
    printer.print("agent_rss_mib.steady", &memory, &[]);
    Ok(())
}

/// The seconds that each commit waited, WAL in MiB per second, and the shipper's memory.
async fn one(
    bed: &Bed,
    server: &Server,
    prefix: &str,
    pause: Option<u64>,
    size: usize,
    busy: bool,
) -> Result<(Vec<f64>, f64, f64)> {
    let begin = server.lsn("SELECT pg_current_wal_flush_lsn()").await?;
    let (watch, stop) = (bed.path("watch"), bed.path("stop"));
    let _ = fs::remove_file(&stop);
    let mut args = ship_args(server, prefix, Lsn(begin.0 - begin.0 % SEGMENT), SEGMENT);
    args.extend(["--watch".into(), watch.display().to_string(), "--stop".into(), stop.display().to_string()]);
    let writing = async {
        let burning = busy.then(Burner::start);
        // What was there before is out of the way.
        sleep(Duration::from_secs(3)).await;
        let mut sql = server.sql().await?;
        let before = value(&mut sql, "SELECT pg_current_wal_flush_lsn()").await?;
        let mut commits: Vec<(i64, Lsn)> = Vec::new();
        let end = Instant::now() + Duration::from_secs(SECONDS);
        let mut ticks = interval(Duration::from_millis(pause.unwrap_or(1)));
        let insert = format!(
            "INSERT INTO commits (text) SELECT string_agg(md5(random()::text), '') FROM generate_series(1, {})",
            size / 32 + 1
        );
        while Instant::now() < end {
            if pause.is_some() {
                ticks.tick().await;
            }
            sql.simple_query(&insert).await?;
            let at = monotonic()?;
            let flushed = value(&mut sql, "SELECT pg_current_wal_flush_lsn()").await?;
            commits.push((at, flushed.parse().map_err(|_| anyhow::anyhow!("no position"))?));
        }
        // Until the last of them is there as well.
        sleep(Duration::from_millis(2500)).await;
        drop(burning);
        fs::write(&stop, "")?;
        Ok::<_, anyhow::Error>((before, commits))
    };
    let (cost, (before, commits)) = tokio::try_join!(bed.ours(&args), writing)?;
    let mut archived: Vec<(i64, Lsn)> = Vec::new();
    for line in fs::read_to_string(&watch)?.lines() {
        let mut words = line.split(' ');
        let at = words.next().and_then(|w| w.parse().ok()).context("no time")?;
        archived.push((at, words.next().and_then(|w| w.parse().ok()).context("no position")?));
    }
    let mut waited = Vec::new();
    for (at, lsn) in &commits {
        let there = archived.iter().find(|(_, archived)| archived >= lsn);
        let (when, _) = there.with_context(|| format!("the commit at {lsn} was not archived in time"))?;
        waited.push((when - at).max(0) as f64 / 1e9);
    }
    let before: Lsn = before.parse().map_err(|_| anyhow::anyhow!("no position"))?;
    let written = commits.last().map_or(0, |(_, lsn)| lsn.bytes_since(before));
    Ok((waited, written as f64 / 1048576.0 / SECONDS as f64, cost.rss))
}

/// Keeps all CPUs busy until it is dropped.
struct Burner(Arc<AtomicBool>);

impl Burner {
    fn start() -> Self {
        let on = Arc::new(AtomicBool::new(true));
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let on = on.clone();
            std::thread::spawn(move || {
                let bytes: Vec<u8> =
                    (0..1 << 20u32).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
                while on.load(Ordering::Relaxed) {
                    let _ = zstd::bulk::compress(&bytes, 3);
                }
            });
        }
        Self(on)
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
