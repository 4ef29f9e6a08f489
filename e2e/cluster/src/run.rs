//! Running programs to their end.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether its exit status was 0.
    pub ok: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// A command that is ended after `limit`, with everything it was told.
pub(crate) fn limited(limit: Duration, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &limit.as_secs().max(1).to_string()]).arg(program);
    command
}

/// Runs a command with `stdin`, and takes what comes.
pub(crate) fn attempt(command: &mut Command, stdin: &str) -> anyhow::Result<Output> {
    let what = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {what}"))?;
    // Written from a thread: a command that prints much before it reads everything must not wait for us.
    let pipe = child.stdin.take();
    let text = stdin.to_owned();
    let writer = std::thread::spawn(move || pipe.map(|mut p| p.write_all(text.as_bytes())));
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {what}"))?;
    // What it did not read is its own business: its exit status tells.
    drop(writer.join());
    Ok(Output {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command; what it printed. Fails with what it complained about.
pub(crate) fn done(command: &mut Command, stdin: &str) -> anyhow::Result<String> {
    let output = attempt(command, stdin)?;
    if !output.ok {
        let mut words = vec![command.get_program().to_string_lossy().into_owned()];
        words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
        bail!("{} failed: {}", words.join(" "), output.stderr.trim());
    }
    Ok(output.stdout)
}

impl Output {
    /// What it printed, if it succeeded.
    ///
    /// # Errors
    /// With what it complained about.
    pub fn success(self) -> anyhow::Result<String> {
        anyhow::ensure!(self.ok, "{}", self.stderr.trim());
        Ok(self.stdout)
    }
}
