//! Makes the namespaces.

use anyhow::{Context as _, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

/// Becomes root of a new user namespace, makes the other namespaces in it, and runs `inside` there as the first process.
/// Must be called before any thread is started.
///
/// # Errors
/// When the machine does not allow it.
pub fn enter() -> anyhow::Result<ExitCode> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl failed")?;
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        bail!("this must not be root: PostgreSQL would be, too");
    }
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(all).map_err(|e| {
        anyhow::anyhow!(
            "this machine does not let user {uid} make a user namespace ({e}). It is allowed by the administrator: sysctl \
             kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), \
             user.max_user_namespaces above 0"
        )
    })?;
    map("0", uid.as_raw(), gid.as_raw())?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot take the mounts apart")?;
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(own).arg("inside").spawn().context("cannot start the first process inside")?;
    let status = child.wait().context("cannot wait for it")?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// In the user namespace just made: this user is `inner` in it.
pub(super) fn map(inner: &str, uid: u32, gid: u32) -> anyhow::Result<()> {
    fs::write("/proc/self/setgroups", "deny").context("cannot write /proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("{inner} {uid} 1")).context("cannot write /proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("{inner} {gid} 1")).context("cannot write /proc/self/gid_map")
}
