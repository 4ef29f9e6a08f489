//! PID 1 of a node: makes its file systems, then runs its services and starts them again when they end.

use super::{Place, root};
use crate::cgroup::Cgroups;
use crate::options::Options;
use crate::{control, csi, files, mark, net};
use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What runs on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeService {
    /// Runs containers.
    Containerd,
    /// Kubernetes' agent.
    Kubelet,
    /// Makes Services reachable.
    KubeProxy,
    /// Mounts volumes of the CSI driver; with [`Options::csi`].
    CsiDisk,
}

impl NodeService {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 4] = [Self::Containerd, Self::Kubelet, Self::KubeProxy, Self::CsiDisk];

    /// Those that nodes of a cluster with these options have, in the order in which they start.
    pub fn of(options: &Options) -> impl Iterator<Item = Self> {
        let csi = options.csi;
        Self::ALL.into_iter().filter(move |service| csi || *service != Self::CsiDisk)
    }

    /// The name of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::CsiDisk => "csi-disk",
        }
    }

    /// The service of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    fn arguments(self, place: &Place, options: &Options) -> Vec<String> {
        let (name, pki) = (place.name(), place.state.join("pki"));
        let zone = char::from(b'a' + place.number.saturating_sub(1));
        match self {
            Self::CsiDisk => csi::node_arguments(place),
            Self::Containerd => vec!["-c".to_owned(), place.folder.join("containerd.toml").display().to_string()],
            Self::Kubelet => vec![
                format!("--config={}", place.folder.join("kubelet.yaml").display()),
                format!("--kubeconfig={}", pki.join(format!("{name}.kubeconfig")).display()),
                "--root-dir=/var/lib/kubelet".to_owned(),
                format!("--hostname-override={name}"),
                format!("--node-ip={}", net::node_address(place.number)),
                format!("--node-labels=topology.kubernetes.io/zone={zone},topology.kubernetes.io/region=local"),
                format!("--v={}", options.verbosity),
            ],
            Self::KubeProxy => {
                let mut words = vec![
                    format!("--kubeconfig={}", pki.join("kube-proxy.kubeconfig").display()),
                    format!("--proxy-mode={}", options.proxy_mode.name()),
                    format!("--cluster-cidr={}", net::PODS),
                    format!("--hostname-override={name}"),
                    // Limits of the machine, which are not ours to set.
                    "--conntrack-max-per-core=0".to_owned(),
                    "--conntrack-tcp-timeout-established=0".to_owned(),
                    "--conntrack-tcp-timeout-close-wait=0".to_owned(),
                    "--healthz-bind-address=0.0.0.0:10256".to_owned(),
                    format!("--v={}", options.verbosity),
                ];
                if !options.feature_gates.is_empty() {
                    words.push(format!("--feature-gates={}", options.feature_gates));
                }
                words
            }
        }
    }
}

/// One of them, running or about to.
struct Running {
    service: NodeService,
    pid: Option<Pid>,
    due: Instant,
}

/// Is a node, until its power is taken. `state` is the cluster's directory.
///
/// # Errors
/// When the node cannot be set up.
pub fn run(state: &Path, number: u8) -> anyhow::Result<()> {
    ensure!(std::process::id() == 1, "this is started by `kcluster up` and `kcluster node-on`");
    let place = Place::of(state.to_owned(), number);
    let options: Options = serde_json::from_str(&fs::read_to_string(state.join("options.json"))?)?;
    let bin = PathBuf::from(fs::read_to_string(state.join("bin"))?);
    let cgroups = Cgroups::detect(crate::host::CGROUPS.as_ref())?;
    // As seen from the namespace in which the group's file was opened: ours.
    cgroups.join(&place.group(), &place.name(), std::process::id())?;
    root::make(&place)?;
    fs::write("/proc/sys/kernel/hostname", place.name()).context("cannot set the host name")?;
    disk(&place, &options)?;
    kernel_settings(&place)?;
    fs::create_dir_all(files::cni_folder()).context("cannot make the directory of network plugins")?;
    control::write(&files::cni_folder().join("10-kcluster.conflist"), &files::cni(number))?;
    control::write(&place.folder.join("containerd.toml"), &files::containerd(&place, &bin))?;
    control::write(&place.folder.join("kubelet.yaml"), &files::kubelet(&place, &options))?;
    for service in NodeService::ALL {
        drop(fs::remove_file(place.folder.join(format!("{}.stop", service.name()))));
    }
    serve(&place, &options, &bin)
}

/// The node's own disk for volumes, so that it can be full.
fn disk(place: &Place, options: &Options) -> anyhow::Result<()> {
    if options.node_disk.is_empty() {
        return Ok(());
    }
    let image = place.folder.join("disk.img");
    let image = image.display().to_string();
    if !Path::new(&image).exists() {
        let part = format!("{image}.part");
        crate::run::done(Command::new("truncate").args(["-s", &options.node_disk, &part]), "")?;
        crate::run::done(Command::new("mkfs.ext4").args(["-q", "-m", "0", &part]), "")?;
        fs::rename(part, &image)?;
    }
    crate::run::done(Command::new("mount").args(["-o", "loop", &image, files::VOLUMES]), "").map(drop)
}

/// The kubelet insists on settings that are the whole machine's. They stay as they are; it is shown others.
fn kernel_settings(place: &Place) -> anyhow::Result<()> {
    for (setting, value) in [
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxbytes", "25000000"),
        ("kernel/keys/root_maxkeys", "1000000"),
    ] {
        let shown = place.folder.join("fake").join(setting.replace('/', "."));
        control::write(&shown, &format!("{value}\n"))?;
        let target = Path::new("/proc/sys").join(setting);
        mount(Some(&shown), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot show another {}", target.display()))?;
    }
    Ok(())
}

/// Runs the services, for ever.
fn serve(place: &Place, options: &Options, bin: &Path) -> anyhow::Result<()> {
    let now = Instant::now();
    let mut all: Vec<_> = NodeService::of(options).map(|service| Running { service, pid: None, due: now }).collect();
    let mut containerd_was_there = false;
    loop {
        for one in &mut all {
            let stopped = place.folder.join(format!("{}.stop", one.service.name())).exists();
            let early = one.service != NodeService::Containerd && !containerd_was_there;
            if one.pid.is_none() && !stopped && !early && Instant::now() >= one.due {
                match spawn(one.service, place, options, bin) {
                    Ok(pid) => one.pid = Some(pid),
                    Err(error) => {
                        eprintln!("{}: {error:#}", one.service.name());
                        one.due = Instant::now() + Duration::from_secs(1);
                    }
                }
            }
        }
        containerd_was_there |= UnixStream::connect(files::CONTAINERD).is_ok();
        // With everything there, sleep until something ends: containers' orphans, too, are ours to reap.
        let settled = all.iter().all(|one| one.pid.is_some());
        match waitpid(None::<Pid>, (!settled).then_some(WaitPidFlag::WNOHANG)) {
            Ok(status) => {
                if let Some(one) = all.iter_mut().find(|one| one.pid.is_some() && one.pid == status.pid()) {
                    eprintln!("{} ended: {status:?}", one.service.name());
                    one.pid = None;
                    one.due = Instant::now() + Duration::from_secs(1);
                } else if status.pid().is_none() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            Err(Errno::ECHILD) => std::thread::sleep(Duration::from_millis(50)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the node's services"),
        }
    }
}

fn spawn(service: NodeService, place: &Place, options: &Options, bin: &Path) -> anyhow::Result<Pid> {
    let file = place.folder.join("log").join(format!("{}.log", service.name()));
    let log = File::options().create(true).append(true).open(&file);
    let log = log.with_context(|| format!("cannot write {}", file.display()))?;
    let part = format!("{}/{}", place.name(), service.name());
    let programs = if service == NodeService::CsiDisk { csi::programs(&place.state)? } else { bin.to_owned() };
    let child = Command::new(programs.join(service.name()))
        .args(service.arguments(place, options))
        .env(mark::VARIABLE, mark::value(&place.state, &part))
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .spawn()
        .with_context(|| format!("cannot start {}", service.name()))?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}
