//! How a cluster is to be.

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// What a cluster is brought up with. It is remembered in the cluster's directory, for nodes and components that start later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Options {
    /// How many nodes, 1 to 9.
    pub nodes: u8,
    /// Which Kubernetes: one of [`crate::build::VERSIONS`].
    pub kubernetes: String,
    /// How kube-proxy does it.
    pub proxy_mode: ProxyMode,
    /// Feature gates of every component, `A=true,B=false`.
    pub feature_gates: String,
    /// The controller manager's `--node-monitor-grace-period`, e.g. `12s`: how long a silent node stays Ready. Kubernetes'
    /// default (50 s) when empty. A short one needs a short [`Options::node_lease`], or busy nodes flap.
    pub node_grace: String,
    /// The kubelet's `nodeLeaseDurationSeconds`; it renews every quarter of that. Kubernetes' default is 40.
    pub node_lease: Option<u32>,
    /// Seconds after which pods of a lost node are deleted (`--default-{not-ready,unreachable}-toleration-seconds`).
    /// Kubernetes' default is 300.
    pub toleration: Option<u32>,
    /// The longest pause between restarts of a failing container (`crashLoopBackOff.maxContainerRestartPeriod`), e.g. `1s`.
    /// Kubernetes' default is 5 minutes.
    pub crash_backoff: String,
    /// Whether etcd syncs to disk. Not needed for what is here lost with the machine anyway.
    pub etcd_fsync: bool,
    /// Size of a disk of each node's own for its volumes, e.g. `2G`, so that it can be full. A plain directory when empty.
    pub node_disk: String,
    /// Also a CSI driver, with StorageClass and VolumeSnapshotClass `csi-disk`: volumes that nodes attach, that grow and of
    /// which snapshots are made.
    pub csi: bool,
    /// How much the components of Kubernetes log.
    pub verbosity: u8,
    /// Who it belongs to: when that process is gone, whoever brings up the next cluster takes this one away.
    pub owner: Option<Owner>,
}

/// Which kernel interface kube-proxy writes its rules to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// The default of Kubernetes.
    Iptables,
    /// The newer one.
    Nftables,
}

impl ProxyMode {
    /// Its name in Kubernetes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// A process, for all time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Owner {
    /// The process with this id, if there is one.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: crate::mark::started(pid)? })
    }

    /// Whether it is still there.
    #[must_use]
    pub fn lives(&self) -> bool {
        crate::mark::started(self.pid) == Some(self.started)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            kubernetes: crate::build::VERSIONS[0].to_owned(),
            proxy_mode: ProxyMode::Iptables,
            feature_gates: String::new(),
            node_grace: String::new(),
            node_lease: None,
            toleration: None,
            crash_backoff: String::new(),
            etcd_fsync: false,
            node_disk: String::new(),
            csi: false,
            verbosity: 2,
            owner: None,
        }
    }
}

impl Options {
    /// Short times for tests that lose nodes: a silent node is NotReady after 12 s, its pods are deleted 5 s later, and a
    /// failing container waits for a second at most.
    #[must_use]
    pub fn impatient() -> Self {
        Self {
            node_grace: "12s".to_owned(),
            node_lease: Some(4),
            toleration: Some(5),
            crash_backoff: "1s".to_owned(),
            ..Self::default()
        }
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// With what is wrong and what would be right.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=9).contains(&self.nodes), "{} nodes: a cluster has 1 to 9 of them", self.nodes);
        ensure!(
            crate::build::VERSIONS.contains(&self.kubernetes.as_str()),
            "Kubernetes {}: there is {}",
            self.kubernetes,
            crate::build::VERSIONS.join(" and ")
        );
        // They are written into YAML and command lines.
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ".=,".contains(c));
        for (what, text) in [
            ("feature gates", &self.feature_gates),
            ("node grace", &self.node_grace),
            ("crash back-off", &self.crash_backoff),
            ("node disk", &self.node_disk),
        ] {
            ensure!(plain(text), "{what} {text:?}: only letters, digits, '.', ',' and '=' can be right");
        }
        let gates = self.feature_gates.split(',').filter(|g| !g.is_empty());
        for gate in gates {
            ensure!(
                matches!(gate.split_once('='), Some((name, "true" | "false")) if !name.is_empty()),
                "feature gate {gate}: write NAME=true or NAME=false"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let refused = |options: Options| options.check().unwrap_err().to_string();
        assert!(Options::default().check().is_ok());
        assert!(Options::impatient().check().is_ok());
        assert!(refused(Options { nodes: 0, ..Options::default() }).contains("1 to 9"));
        assert!(refused(Options { kubernetes: "1.2".to_owned(), ..Options::default() }).contains("there is"));
        assert!(refused(Options { feature_gates: "A=yes".to_owned(), ..Options::default() }).contains("NAME=true"));
        assert!(refused(Options { node_grace: "1s --x".to_owned(), ..Options::default() }).contains("node grace"));
    }

    #[test]
    fn options_of_an_older_program_are_read() {
        let options: Options = serde_json::from_str(r#"{"nodes":5}"#).unwrap();
        assert_eq!(options, Options { nodes: 5, ..Options::default() });
    }
}
