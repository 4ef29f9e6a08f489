//! The figures that we claim.

use crate::{Cluster, Options, Store, build, host, pack};
use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What to measure, and how to say it.
#[derive(Debug, Clone, Copy)]
pub struct Bench {
    /// How many clusters to bring up and take down.
    pub runs: u32,
    /// Also a build with nothing cached: ten minutes and more, 10 GB of disk, and everything is fetched again.
    pub cold: bool,
    /// One JSON object a line, instead of a table.
    pub json: bool,
}

/// The size of the image that is put on all nodes.
const IMAGE: u64 = 200 << 20;

impl Bench {
    fn line(self, figure: &str, value: f64, unit: &str) {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        if self.json {
            println!(r#"{{"figure":"{figure}","value":{value:.1},"unit":"{unit}","load":{load}}}"#);
        } else {
            println!("{figure:<36} {value:>8.1} {unit:<5} load {load}");
        }
    }
}

/// Seconds that something takes.
fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Processor seconds of children that have ended.
fn of_children() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot ask for the processor time")?;
    Ok((usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()) as f64 / 1000.0)
}

/// Brings a cluster up and takes it down, and prints how long things took and what they cost, a line each, with the load of
/// the machine when they were done.
///
/// # Errors
/// When the cluster does not work.
pub fn bench(name: &str, what: Bench, options: &Options) -> anyhow::Result<()> {
    let store = Store::of_environment()?;
    if what.cold {
        cold(&store, what, options)?;
    }
    let warm = timed(|| build::all(&store, &options.kubernetes).map(drop))?;
    what.line("build_warm", warm, "s");
    for _ in 0..what.runs {
        let cluster = Cluster::named(name)?;
        what.line("up", timed(|| cluster.bring_up(options))?, "s");
        let root = cluster.folder().join("bench-root");
        let golden = timed(|| (0..3).try_for_each(|n| build::golden::copy(&store, &root.join(n.to_string()))))?;
        what.line("images_on_three_nodes", golden, "s");
        fs::remove_dir_all(root)?;
        std::thread::sleep(Duration::from_secs(10));
        let (before, begin) = (cluster.whole_usage(), Instant::now());
        what.line("memory_rss", before.rss as f64 / 1024.0, "MB");
        what.line("memory_pss", before.pss as f64 / 1024.0, "MB");
        std::thread::sleep(Duration::from_secs(10));
        let used = cluster.whole_usage().cpu - before.cpu;
        what.line("idle_cpu", used / begin.elapsed().as_secs_f64() * 100.0, "%");
        what.line("load_200_mb", load(&cluster)?, "s");
        what.line("down", timed(|| cluster.down(false))?, "s");
    }
    Ok(())
}

/// A build as on a machine that never made one: programs, images, Go's caches of results and of modules.
fn cold(store: &Store, what: Bench, options: &Options) -> anyhow::Result<()> {
    let prefix = store.folder("cold")?;
    let result = cold_in(&prefix, what, options);
    fs::remove_dir_all(&prefix).with_context(|| format!("cannot remove {}", prefix.display()))?;
    result
}

fn cold_in(prefix: &Path, what: Bench, options: &Options) -> anyhow::Result<()> {
    ensure!(
        fs::read_dir(prefix)?.next().is_none(),
        "{} is not empty: another bench is running, or was killed; remove it",
        prefix.display()
    );
    let mut command = Command::new(host::program()?);
    command.args(["build", "--kubernetes", &options.kubernetes]);
    let own = prefix.join("prefix");
    for (variable, folder) in [("KCLUSTER_PREFIX", "prefix"), ("GOCACHE", "go-build"), ("GOMODCACHE", "go-mod")] {
        command.env(variable, prefix.join(folder));
    }
    for figure in ["build_cold", "build_cached"] {
        let before = of_children()?;
        let wall = timed(|| {
            let status = command.status().context("cannot run the program kcluster")?;
            ensure!(status.success(), "the build failed");
            Ok(())
        })?;
        what.line(&format!("{figure}_cpu"), of_children()? - before, "CPU s");
        what.line(figure, wall, "s");
        // Again, with what Go remembers, as after a change of a version that matters little.
        fs::remove_dir_all(own.join("bin"))?;
    }
    Ok(())
}

/// Seconds until an image of 200 MB, which does not compress, is on every running node.
fn load(cluster: &Cluster) -> anyhow::Result<f64> {
    let folder = cluster.folder().join("bench-image");
    let (root, archive) = (folder.join("root"), folder.join("image.tar"));
    fs::create_dir_all(&root)?;
    let mut random = File::open("/dev/urandom")?.take(IMAGE);
    let mut file = File::create(root.join("random"))?;
    std::io::copy(&mut random, &mut file)?;
    file.flush()?;
    pack("docker.io/local/bench:1", &root, &archive, &[])?;
    let seconds = timed(|| cluster.load(&[&archive]))?;
    fs::remove_dir_all(folder)?;
    Ok(seconds)
}
