//! The figures that we claim.

use crate::{Cluster, Options, Store, build};
use std::fs;
use std::time::Instant;

/// The machine's load, the first figure of `/proc/loadavg`.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Seconds that something takes.
fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Brings a cluster up and takes it down `runs` times, and prints how long things took and what they cost, a line each, with
/// the load of the machine when they were done.
///
/// # Errors
/// When the cluster does not work.
pub fn bench(name: &str, runs: u32, options: &Options) -> anyhow::Result<()> {
    let line = |what: &str, value: f64, unit: &str| println!("{what:<36} {value:>8.1} {unit:<4} load {}", load());
    let store = Store::of_environment()?;
    let warm = timed(|| build::all(&store, &options.kubernetes).map(drop))?;
    line("build_warm", warm, "s");
    for _ in 0..runs {
        let cluster = Cluster::named(name)?;
        line("up", timed(|| cluster.bring_up(options))?, "s");
        let root = cluster.folder().join("bench-root");
        let golden = timed(|| (0..3).try_for_each(|n| build::golden::copy(&store, &root.join(n.to_string()))))?;
        line("images_on_three_nodes", golden, "s");
        fs::remove_dir_all(root)?;
        std::thread::sleep(std::time::Duration::from_secs(10));
        let (before, begin) = (cluster.whole_usage(), Instant::now());
        line("memory_rss", before.rss as f64 / 1024.0, "MB");
        line("memory_pss", before.pss as f64 / 1024.0, "MB");
        std::thread::sleep(std::time::Duration::from_secs(10));
        let used = cluster.whole_usage().cpu - before.cpu;
        line("idle_cpu", used / begin.elapsed().as_secs_f64() * 100.0, "%");
        line("down", timed(|| cluster.down(false))?, "s");
    }
    Ok(())
}
