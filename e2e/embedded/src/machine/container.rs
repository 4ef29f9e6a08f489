//! One container: a process that is the first of its own PID namespace, with a file system of its own, as an unprivileged
//! user. *Shim* makes the PID namespace and waits; *first* makes the file system and becomes the container's program.

use super::{enter, rootfs, sandbox};
use anyhow::Context as _;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What a container is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The process that holds the pod's namespaces.
    pub sandbox: u32,
    /// The file system.
    pub root: rootfs::Root,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub directory: PathBuf,
    /// The user that it is, in its own view.
    pub uid: u32,
    /// Where the number of its first process is written.
    pub pid_file: PathBuf,
}

impl Spec {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no container", path.display()))
    }
}

/// Starts the container and waits for its end, which becomes this process's own.
///
/// # Errors
/// When the namespaces cannot be made.
pub fn shim(spec: &Path) -> anyhow::Result<ExitCode> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl failed")?;
    let container = Spec::read(spec)?;
    sandbox::join(container.sandbox)?;
    unshare(CloneFlags::CLONE_NEWPID).context("cannot make the container's PID namespace")?;
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(own).arg("first").arg(spec).spawn().context("cannot start the container")?;
    std::fs::write(&container.pid_file, child.id().to_string())
        .with_context(|| format!("cannot write {}", container.pid_file.display()))?;
    let status = child.wait().context("cannot wait for the container")?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}

/// Becomes the container's program.
///
/// # Errors
/// When its file system cannot be made, or the program is not there.
pub fn first(spec: &Path) -> anyhow::Result<std::convert::Infallible> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl failed")?;
    let container = Spec::read(spec)?;
    // Its own, not the shim's: whoever shares it gets the new root, too.
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make the container's mount namespace")?;
    rootfs::become_root(&container.root)?;
    // From here on it is nobody special, and can become nobody else.
    unshare(CloneFlags::CLONE_NEWUSER).context("cannot make the container's user namespace")?;
    enter::map(&container.uid.to_string(), 0, 0)?;
    nix::sys::prctl::set_no_new_privs().context("prctl failed")?;
    std::env::set_current_dir(&container.directory)
        .with_context(|| format!("no directory {}", container.directory.display()))?;
    let (program, arguments) = container.command.split_first().context("the container has no command")?;
    let program = find(program, &container.env);
    let failed = Command::new(&program).args(arguments).env_clear().envs(container.env.iter().cloned()).exec();
    Err(failed).with_context(|| format!("cannot execute {}", program.display()))
}

fn find(program: &str, env: &[(String, String)]) -> PathBuf {
    if program.contains('/') {
        return program.into();
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, v)| v.as_str()).unwrap_or_default();
    let candidates = path.split(':').map(|d| Path::new(d).join(program));
    candidates.into_iter().find(|p| p.is_file()).unwrap_or_else(|| program.into())
}
