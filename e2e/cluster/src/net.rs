//! Network namespaces, and the switch that joins them.
//!
//! A namespace is held by a mount on a file in the cluster's directory, so it is found by that name and leaves nothing in
//! `/run/netns`. Threads enter one, and what they start is in it; the rest of the process stays where it is. (`ip netns exec`
//! would remount `/sys` and hide the cgroups.)

use crate::run;
use anyhow::{Context, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The control plane's address, which is also the switch's.
pub(crate) const API: &str = "10.240.0.1";
/// The addresses of Services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The first of them: the API server's own Service.
pub(crate) const API_SERVICE: &str = "10.96.0.1";
/// That of the cluster's DNS.
pub(crate) const DNS_SERVICE: &str = "10.96.0.10";
/// The addresses of pods.
pub(crate) const PODS: &str = "10.244.0.0/16";

/// A node's address.
pub(crate) fn node_address(node: u8) -> String {
    format!("10.240.0.1{node}")
}

/// The addresses of a node's pods.
pub(crate) fn pods_of(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

/// A network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Net(PathBuf);

impl Net {
    /// The one that is held at this path, or will be.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes it.
    fn make(&self) -> anyhow::Result<()> {
        File::create(&self.0).with_context(|| format!("cannot make {}", self.0.display()))?;
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; is this root?")?;
            let none = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &self.0, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("cannot hold a network namespace at {}", self.0.display()))
        })
    }

    /// Whether it is there.
    pub(crate) fn exists(&self) -> bool {
        mounts_below(&self.0).is_ok_and(|found| !found.is_empty())
    }

    /// Enters it, with this thread alone.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        let file = File::open(&self.0).with_context(|| format!("there is no network at {}", self.0.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the network at {}; is the cluster up?", self.0.display()))
    }

    /// Runs `work` inside. Processes that it starts are inside, too.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        on_a_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Runs commands of `ip`, one a line.
    fn ip(&self, lines: &str) -> anyhow::Result<()> {
        self.inside(|| run::done(Command::new("ip").args(["-batch", "-"]), lines).map(drop))
    }
}

/// Namespaces are a matter of threads: one of its own for what changes them.
fn on_a_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("a thread panicked"))?)
}

/// Where a cluster's namespaces are held: `cp`, `n1`, `n2`, …
pub(crate) fn of(state: &Path, place: &str) -> Net {
    Net::at(state.join("net").join(place))
}

/// Makes the control plane's namespace with the switch `br0`, and one for each node on a wire of it.
pub(crate) fn make(state: &Path, nodes: u8) -> anyhow::Result<()> {
    let control = of(state, "cp");
    fs::create_dir_all(state.join("net")).context("cannot make the directory of networks")?;
    control.make()?;
    let mut switch = format!(
        "link set lo up\nlink add br0 address 02:00:00:00:00:01 type bridge\naddr add {API}/24 dev br0\nlink set br0 up\n"
    );
    for node in 1..=nodes {
        let (net, address) = (of(state, &format!("n{node}")), node_address(node));
        net.make()?;
        switch += &format!(
            "link add v{node} type veth peer name eth0 netns {}\nlink set v{node} master br0 up\nroute add {} via {address}\n",
            net.0.display(),
            pods_of(node)
        );
    }
    control.ip(&switch)?;
    control.inside(forward)?;
    for node in 1..=nodes {
        let net = of(state, &format!("n{node}"));
        let mut lines = format!(
            "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\nroute add default via {API}\n",
            node_address(node)
        );
        for other in (1..=nodes).filter(|o| *o != node) {
            lines += &format!("route add {} via {}\n", pods_of(other), node_address(other));
        }
        net.ip(&lines)?;
        net.inside(forward)?;
    }
    Ok(())
}

/// Lets packets through, in this thread's namespace.
fn forward() -> anyhow::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot let packets through")
}

/// Mount points at or below a path, the innermost first.
pub(crate) fn mounts_below(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").context("cannot read the table of mounts")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut found: Vec<_> = points.filter(|point| point.starts_with(path)).collect();
    found.reverse();
    Ok(found)
}

/// Takes away every mount at or below a path.
pub(crate) fn unmount_below(path: &Path) -> anyhow::Result<()> {
    for point in mounts_below(path)? {
        umount2(&point, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}
