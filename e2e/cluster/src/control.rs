//! The components of the control plane, all in its network namespace.

use crate::options::Options;
use crate::{csi, files, mark, net};
use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A component that is there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Where everything is kept.
    Etcd,
    /// What everyone talks to.
    ApiServer,
    /// The controllers.
    ControllerManager,
    /// What gives pods a node.
    Scheduler,
    /// DNS.
    CoreDns,
    /// What makes volumes.
    LocalPathProvisioner,
    /// The part of the CSI driver that is not on nodes, and what carries Kubernetes' wishes to it; with [`Options::csi`].
    CsiDisk,
    /// Makes its volumes.
    CsiProvisioner,
    /// Attaches them to nodes.
    CsiAttacher,
    /// Makes them larger.
    CsiResizer,
    /// Makes snapshots of them.
    CsiSnapshotter,
    /// Binds snapshots to what users ask for.
    SnapshotController,
}

impl Component {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 12] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::CoreDns,
        Self::LocalPathProvisioner,
        Self::CsiDisk,
        Self::CsiProvisioner,
        Self::CsiAttacher,
        Self::CsiResizer,
        Self::CsiSnapshotter,
        Self::SnapshotController,
    ];

    /// Those that a cluster with these options has, in the order in which they start.
    pub fn of(options: &Options) -> impl Iterator<Item = Self> {
        let csi = options.csi;
        Self::ALL.into_iter().filter(move |component| csi || !component.is_csi())
    }

    /// Whether it is there with [`Options::csi`] only.
    pub(crate) const fn is_csi(self) -> bool {
        use Component::{CsiAttacher, CsiDisk, CsiProvisioner, CsiResizer, CsiSnapshotter, SnapshotController};
        matches!(self, CsiDisk | CsiProvisioner | CsiAttacher | CsiResizer | CsiSnapshotter | SnapshotController)
    }

    /// The name of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::CoreDns => "coredns",
            Self::LocalPathProvisioner => "local-path-provisioner",
            Self::CsiDisk => "csi-disk",
            Self::CsiProvisioner => "csi-provisioner",
            Self::CsiAttacher => "csi-attacher",
            Self::CsiResizer => "csi-resizer",
            Self::CsiSnapshotter => "csi-snapshotter",
            Self::SnapshotController => "snapshot-controller",
        }
    }

    /// The component of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Whether it runs.
    pub(crate) fn runs(self, state: &Path) -> bool {
        !mark::of_part(state, self.name(), self.name()).is_empty()
    }

    /// Starts it; it outlives us.
    pub(crate) fn start(self, state: &Path, bin: &Path, options: &Options) -> anyhow::Result<()> {
        ensure!(!self.runs(state), "{} runs already", self.name());
        match self {
            Self::CoreDns => write(&state.join("Corefile"), &files::corefile(&state.join("pki")))?,
            Self::LocalPathProvisioner => write(&state.join("volumes.json"), &files::volumes())?,
            _ => {}
        }
        let arguments =
            if self.is_csi() { csi::arguments(self, state, options) } else { self.arguments(state, options) };
        let programs = if self.is_csi() { csi::programs(state)? } else { bin.to_owned() };
        let words = std::iter::once(programs.join(self.name()).display().to_string()).chain(arguments);
        start(state, self.name(), &net::of(state, "cp"), &state.join("log"), bin, words)
    }

    /// Ends it at once, as kill -9 does.
    pub(crate) fn kill(self, state: &Path) -> anyhow::Result<()> {
        let found = mark::of_part(state, self.name(), self.name());
        ensure!(!found.is_empty(), "{} does not run", self.name());
        for process in &found {
            mark::end(process, state)?;
        }
        mark::gone(&found, state, Duration::from_secs(10))
    }

    fn arguments(self, state: &Path, options: &Options) -> Vec<String> {
        let pki = |file: &str| state.join("pki").join(file).display().to_string();
        let own = pki(&format!("{}.kubeconfig", self.name()));
        let mut words: Vec<String> = vec![];
        let mut add = |word: String| words.push(word);
        let kubernetes = |add: &mut dyn FnMut(String)| {
            if !options.feature_gates.is_empty() {
                add(format!("--feature-gates={}", options.feature_gates));
            }
            add(format!("--v={}", options.verbosity));
        };
        match self {
            Self::Etcd => {
                add(format!("--data-dir={}", state.join("etcd").display()));
                for (listen, advertise, port) in [
                    ("listen-client-urls", "advertise-client-urls", 2379),
                    ("listen-peer-urls", "initial-advertise-peer-urls", 2380),
                ] {
                    add(format!("--{listen}=http://127.0.0.1:{port}"));
                    add(format!("--{advertise}=http://127.0.0.1:{port}"));
                }
                add("--initial-cluster=default=http://127.0.0.1:2380".to_owned());
                add("--auto-compaction-retention=1h".to_owned());
                if !options.etcd_fsync {
                    add("--unsafe-no-fsync".to_owned());
                }
            }
            Self::ApiServer => {
                for word in [
                    "--etcd-servers=http://127.0.0.1:2379",
                    "--bind-address=0.0.0.0",
                    "--secure-port=6443",
                    "--requestheader-allowed-names=front-proxy-client",
                    "--requestheader-username-headers=X-Remote-User",
                    "--requestheader-group-headers=X-Remote-Group",
                    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                    // Webhooks by Services: it sits outside of the pods' network, and asks the endpoints themselves.
                    "--enable-aggregator-routing=true",
                    "--authorization-mode=Node,RBAC",
                    "--enable-admission-plugins=NodeRestriction",
                    "--allow-privileged=true",
                    "--kubelet-preferred-address-types=InternalIP",
                    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                ] {
                    add(word.to_owned());
                }
                add(format!("--service-cluster-ip-range={}", net::SERVICES));
                add(format!("--advertise-address={}", net::API));
                for (option, file) in [
                    ("tls-cert-file", "api.crt"),
                    ("tls-private-key-file", "api.key"),
                    ("client-ca-file", "ca.crt"),
                    ("kubelet-client-certificate", "api-kubelet.crt"),
                    ("kubelet-client-key", "api-kubelet.key"),
                    ("kubelet-certificate-authority", "ca.crt"),
                    ("requestheader-client-ca-file", "front.crt"),
                    ("proxy-client-cert-file", "front-client.crt"),
                    ("proxy-client-key-file", "front-client.key"),
                    ("service-account-signing-key-file", "sa.key"),
                    ("service-account-key-file", "sa.pub"),
                ] {
                    add(format!("--{option}={}", pki(file)));
                }
                if let Some(seconds) = options.toleration {
                    add(format!("--default-not-ready-toleration-seconds={seconds}"));
                    add(format!("--default-unreachable-toleration-seconds={seconds}"));
                }
                kubernetes(&mut add);
            }
            Self::ControllerManager | Self::Scheduler => {
                for option in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
                    add(format!("--{option}={own}"));
                }
                add("--leader-elect=false".to_owned());
                add("--bind-address=127.0.0.1".to_owned());
                if self == Self::ControllerManager {
                    add(format!("--service-account-private-key-file={}", pki("sa.key")));
                    add(format!("--root-ca-file={}", pki("ca.crt")));
                    add(format!("--cluster-signing-cert-file={}", pki("ca.crt")));
                    add(format!("--cluster-signing-key-file={}", pki("ca.key")));
                    add("--use-service-account-credentials=true".to_owned());
                    add(format!("--cluster-cidr={}", net::PODS));
                    add("--allocate-node-cidrs=false".to_owned());
                    if !options.node_grace.is_empty() {
                        add(format!("--node-monitor-grace-period={}", options.node_grace));
                    }
                }
                kubernetes(&mut add);
            }
            Self::CoreDns => {
                add("-conf".to_owned());
                add(state.join("Corefile").display().to_string());
            }
            Self::LocalPathProvisioner => {
                add("start".to_owned());
                add(format!("--kubeconfig={own}"));
                add(format!("--config={}", state.join("volumes.json").display()));
                for word in [
                    "--namespace=local-path-storage",
                    "--provisioner-name=rancher.io/local-path",
                    "--service-account-name=default",
                    "--helper-image=docker.io/library/postgres:17",
                    "--configmap-name=local-path-config",
                ] {
                    add(word.to_owned());
                }
            }
            // See `csi`.
            Self::CsiDisk
            | Self::CsiProvisioner
            | Self::CsiAttacher
            | Self::CsiResizer
            | Self::CsiSnapshotter
            | Self::SnapshotController => {}
        }
        words
    }
}

/// Starts a program as `part` of the cluster, in `net`, with its output in `log/<part>.log`. It is nobody's child and outlives
/// us; its environment holds nothing of ours.
pub(crate) fn start(
    state: &Path,
    part: &str,
    net: &net::Net,
    log: &Path,
    bin: &Path,
    words: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    fs::create_dir_all(log).with_context(|| format!("cannot make {}", log.display()))?;
    let name = part.rsplit('/').next().unwrap_or(part);
    let file = log.join(format!("{name}.log"));
    let out = File::options().create(true).append(true).open(&file);
    let out = out.with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new("setsid");
    command.arg("--fork").args(words).env_clear().env("PATH", path(bin)).env(mark::VARIABLE, mark::value(state, part));
    command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
    let status = net.inside(|| command.status().context("cannot run setsid"))?;
    ensure!(status.success(), "{part} cannot be started, see {}", file.display());
    Ok(())
}

/// Where components look for programs.
pub(crate) fn path(bin: &Path) -> String {
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display())
}

pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Waits until `look` is true; looks ten times a second.
pub(crate) fn until(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let limit = Instant::now() + within;
    while !look()? {
        if Instant::now() > limit {
            bail!("{what}: not within {} s", within.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_their_components() {
        let words = |component: Component, options: &Options| component.arguments(Path::new("/s"), options).join(" ");
        let plain = Options::default();
        assert!(words(Component::Etcd, &plain).contains("--unsafe-no-fsync"));
        assert!(!words(Component::Etcd, &Options { etcd_fsync: true, ..plain.clone() }).contains("fsync"));
        let impatient = Options { feature_gates: "A=true".to_owned(), ..Options::impatient() };
        assert!(words(Component::ApiServer, &impatient).contains("--default-unreachable-toleration-seconds=5"));
        assert!(words(Component::ControllerManager, &impatient).contains("--node-monitor-grace-period=12s"));
        assert!(!words(Component::Scheduler, &impatient).contains("grace"));
        for component in [Component::ApiServer, Component::ControllerManager, Component::Scheduler] {
            assert!(words(component, &impatient).contains("--feature-gates=A=true"), "{component:?}");
            assert!(!words(component, &plain).contains("gates"), "{component:?}");
        }
        assert_eq!(Component::named("etcd"), Some(Component::Etcd));
        assert_eq!(Component::named("kubelet"), None);
    }
}
