//! Packets that silently get lost, between two pods or between a pod and something else. Nothing but `ip` is needed: they are
//! sent to a link address that nobody has.

use super::processes::Tree;
use crate::machine::network::{API, NODE};
use anyhow::{Context as _, ensure};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The link address that nobody has, and the neighbour that nobody is.
const NOBODY: &str = "02:00:00:00:00:00";
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 64, 255, 254);
/// The routing table of what the API server sends to whom it is cut off from.
const TABLE: u32 = 77;

/// What is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Two pods, from each other.
    Pods(Ipv4Addr, Ipv4Addr),
    /// A pod, from the API server.
    Api(Ipv4Addr),
    /// A pod, from everything.
    All(Ipv4Addr),
}

/// Commands of `ip` for the node and for pods.
type Commands = Vec<(Option<Ipv4Addr>, String)>;

impl Cut {
    fn commands(self) -> Commands {
        let lost = |at: Ipv4Addr, to: Ipv4Addr| {
            (Some(at), format!("neigh replace {to} lladdr {NOBODY} nud permanent dev eth0"))
        };
        match self {
            Cut::Pods(a, b) => vec![lost(a, b), lost(b, a)],
            Cut::Api(pod) => vec![
                (
                    None,
                    format!(
                        "neigh replace {NOWHERE} lladdr {NOBODY} nud permanent dev pods\n\
                         route replace default via {NOWHERE} dev pods table {TABLE}\n\
                         rule add from {API} to {pod} lookup {TABLE}"
                    ),
                ),
                lost(pod, NOWHERE),
                (Some(pod), format!("route replace {API}/32 via {NOWHERE} dev eth0")),
            ],
            Cut::All(pod) => vec![(None, format!("link set {} down", port(pod)))],
        }
    }

    fn healing(self) -> Commands {
        let found = |at: Ipv4Addr, to: Ipv4Addr| (Some(at), format!("neigh del {to} dev eth0"));
        match self {
            Cut::Pods(a, b) => vec![found(a, b), found(b, a)],
            Cut::Api(pod) => {
                vec![
                    (None, format!("rule del from {API} to {pod} lookup {TABLE}")),
                    (Some(pod), format!("route del {API}/32 via {NOWHERE} dev eth0")),
                ]
            }
            Cut::All(pod) => vec![(None, format!("link set {} up", port(pod)))],
        }
    }
}

/// The node's end of a pod's cable.
fn port(pod: Ipv4Addr) -> String {
    format!("p{}", u32::from(pod) - u32::from(NODE) - 1)
}

/// The cluster's network, from outside.
#[derive(Debug, Clone)]
pub struct Network {
    /// The process that started the cluster.
    pub root: u32,
}

impl Network {
    /// Cuts.
    ///
    /// # Errors
    /// When a pod is gone, or there is no program `ip` or `nsenter`.
    pub fn cut(&self, cut: Cut) -> anyhow::Result<()> {
        cut.commands().iter().try_for_each(|(at, lines)| self.ip(*at, lines)).with_context(|| format!("{cut:?}"))
    }

    /// Heals it again. A pod that is gone needs nothing.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn heal(&self, cut: Cut) -> anyhow::Result<()> {
        for (at, lines) in cut.healing() {
            let gone = match (at, cut) {
                (Some(pod), _) | (None, Cut::All(pod)) => self.holder(Some(pod)).is_none(),
                (None, _) => false,
            };
            if !gone {
                self.ip(at, &lines).with_context(|| format!("healing of {cut:?}"))?;
            }
        }
        Ok(())
    }

    /// The process that holds the namespaces of the pod with this address, or of the node.
    fn holder(&self, pod: Option<Ipv4Addr>) -> Option<u32> {
        let tree = Tree::of(self.root);
        match pod {
            None => tree.with_arguments(&["inside"]),
            Some(address) => tree.sandbox(&address.to_string()),
        }
    }

    fn ip(&self, pod: Option<Ipv4Addr>, lines: &str) -> anyhow::Result<()> {
        let holder = self.holder(pod).with_context(|| format!("nobody holds the network of {pod:?}"))?;
        // Inside, only the cluster's user is root. That is us, or we become it.
        let us = if nix::unistd::Uid::effective().is_root() { None } else { Some("--preserve-credentials") };
        let mut child = Command::new("nsenter")
            .args(us)
            .args(["-U", "-n", "-t", &holder.to_string(), "ip", "-batch", "-"])
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run nsenter; it comes with util-linux")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(format!("{lines}\n").as_bytes()).context("cannot write to ip")?;
        }
        let done = child.wait_with_output().context("cannot wait for ip")?;
        ensure!(done.status.success(), "ip failed: {lines}: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_healed_at_the_same_places() {
        let [a, b] = [2, 3].map(|n| Ipv4Addr::new(10, 64, 0, n));
        for cut in [Cut::Pods(a, b), Cut::Api(a), Cut::All(b)] {
            let places = |c: Commands| c.into_iter().map(|(at, _)| at).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(places(cut.commands()), places(cut.healing()), "{cut:?}");
        }
        assert_eq!(port(crate::machine::network::pod_address(17)), "p17");
    }
}
