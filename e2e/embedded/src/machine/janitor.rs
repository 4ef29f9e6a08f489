//! A process that does one thing: it takes the cluster's directory away when the program that a person started is gone and
//! could not do so itself, because it was killed. The kernel ends everything else.

use anyhow::Context as _;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the last process of the cluster may take to end; then the directory is left to the next cluster's start.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// The janitor of a cluster; it ends with whoever holds this.
pub(super) struct Janitor {
    child: Child,
}

impl Janitor {
    /// Hires one.
    pub(super) fn start(program: &Path, directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.arg("janitor").arg(directory).current_dir("/");
        // It waits for the end of its input, which comes with this process's end, whatever that is. Whoever reads our output
        // must not wait for it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn().context("cannot start the janitor")? })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The process itself.
///
/// # Errors
/// When it has no input to wait for.
pub fn work(directory: &Path) -> anyhow::Result<()> {
    // A terminal that is closed, or Ctrl-C, is not meant for it.
    nix::unistd::setsid().context("cannot leave the terminal")?;
    std::io::stdin().read_to_end(&mut vec![]).context("nobody is there")?;
    for _ in 0..TRIES {
        // What is in it may still be written to for a moment.
        let _ = fs::remove_dir_all(directory);
        if !directory.exists() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
