//! What the containers of a pod share: network, host name, System V IPC. A process holds it.

use super::network;
use anyhow::Context as _;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::unistd::sethostname;
use std::fs::File;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

/// The process that holds a pod's namespaces; dropped, they go.
#[derive(Debug)]
pub struct Sandbox {
    child: Child,
    number: u32,
}

impl Sandbox {
    /// Makes one with this address. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the namespaces or the network cannot be made.
    pub fn start(host: &str, number: u32) -> anyhow::Result<Self> {
        let address = network::pod_address(number);
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(own)
            .args(["sandbox", host, &address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the pod's first process")?;
        let mut lines = std::io::BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let mut next = |what: &str| -> anyhow::Result<()> {
            match lines.next() {
                Some(Ok(line)) if line == what => Ok(()),
                other => anyhow::bail!("the pod's first process said {other:?} instead of {what:?}"),
            }
        };
        next("here")?;
        network::join(number, child.id())?;
        let stdin = child.stdin.as_mut().context("no pipe")?;
        stdin.write_all(b"go\n").context("the pod's first process is gone")?;
        next("up")?;
        Ok(Self { child, number })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pod's address.
    pub fn address(&self) -> Ipv4Addr {
        network::pod_address(self.number)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: makes the namespaces, and stays.
///
/// # Errors
/// When the kernel refuses.
pub fn hold(host: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl failed")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .context("cannot make the pod's namespaces")?;
    sethostname(host).context("cannot set the host name")?;
    println!("here");
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).context("nobody is there")?;
    network::pod(address)?;
    println!("up");
    // Until the kubelet goes or kills it.
    let _ = std::io::stdin().read_to_end(&mut vec![]);
    Ok(())
}

/// Enters the namespaces that process `pid` holds.
///
/// # Errors
/// When it is gone.
pub fn join(pid: u32) -> anyhow::Result<()> {
    for (name, flag) in
        [("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS), ("ipc", CloneFlags::CLONE_NEWIPC)]
    {
        let path = format!("/proc/{pid}/ns/{name}");
        let file = File::open(&path).with_context(|| format!("the pod is gone: no {path}"))?;
        setns(file, flag).with_context(|| format!("cannot enter {path}"))?;
    }
    Ok(())
}
