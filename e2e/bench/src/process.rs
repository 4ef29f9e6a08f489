//! What processes cost.

use anyhow::{Context, Result, bail};
use nix::sys::{
    resource::{UsageWho, getrusage},
    wait::waitpid,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

/// What a contender needed.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Seconds on the wall.
    pub(crate) seconds: f64,
    /// Seconds of CPU, user and system; the S3 server is not counted for anybody.
    pub(crate) cpu: f64,
    /// Of these, what PostgreSQL needed to send the WAL.
    #[serde(default)]
    pub(crate) walsender: f64,
    /// The most resident memory of a process, in MiB.
    pub(crate) rss: f64,
    /// Bytes that went through it, uncompressed.
    pub(crate) bytes: u64,
}

impl Cost {
    pub(crate) fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / 1048576.0 / self.seconds
    }

    pub(crate) fn cpu_per_gib(&self) -> f64 {
        self.cpu / (self.bytes as f64 / 1073741824.0)
    }
}

/// CPU of this process, or of those that it has waited for.
pub(crate) fn cpu(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The most memory that this process has had, in MiB.
pub(crate) fn peak_rss() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// CPU of a process that lives, in seconds.
pub(crate) fn cpu_of(pid: i32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).context("no ticks");
    // Linux counts in hundredths towards its users, on every architecture that matters here.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Measures what this process does: the body's answer is how many bytes went through.
pub(crate) async fn measured(body: impl Future<Output = Result<u64>>) -> Result<Cost> {
    let (begin, before) = (Instant::now(), cpu(UsageWho::RUSAGE_SELF)?);
    let bytes = body.await?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Cost { seconds, cpu: cpu(UsageWho::RUSAGE_SELF)? - before, rss: peak_rss()?, bytes, walsender: 0.0 })
}

/// Measures programs that are run one after the other, and whatever they leave running behind them.
pub(crate) fn measured_children(body: impl FnOnce() -> Result<u64>) -> Result<Cost> {
    // Daemons whose parent is gone become ours, so that their CPU is seen.
    nix::sys::prctl::set_child_subreaper(true)?;
    let (begin, before) = (Instant::now(), cpu(UsageWho::RUSAGE_CHILDREN)?);
    let bytes = body()?;
    let seconds = begin.elapsed().as_secs_f64();
    while waitpid(None, None).is_ok() {}
    let rss = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() as f64 / 1024.0;
    Ok(Cost { seconds, cpu: cpu(UsageWho::RUSAGE_CHILDREN)? - before, rss, bytes, walsender: 0.0 })
}

/// Runs a program to its end; it must succeed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} cannot be run"))?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        bail!("{command:?} failed ({}): {said}{}", out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(said)
}

/// Runs this program as a contender: its answer is one line of JSON.
pub(crate) async fn contender<T: DeserializeOwned>(args: &[String], env: &[(String, String)]) -> Result<T> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg("work").args(args).envs(env.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let out = command.output().await?;
    let said = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        bail!("{args:?} failed: {said}");
    }
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{args:?} answered {said:?}"))
}
