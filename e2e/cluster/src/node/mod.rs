//! A node: namespaces of network, mounts, processes, host name and IPC, whose PID 1 is our own program (see `init`).

mod init;
mod root;

pub use init::{NodeService, run as run_init};

use crate::cgroup::Cgroups;
use crate::options::Options;
use crate::{Cluster, Output, build, control, mark, net, run};
use anyhow::{Context, bail, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Where a node's things are, inside and outside of it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The cluster's directory.
    pub(crate) state: PathBuf,
    /// The node's directory in it.
    pub(crate) folder: PathBuf,
    /// Its number, from 1.
    pub(crate) number: u8,
}

impl Place {
    pub(crate) fn of(state: PathBuf, number: u8) -> Self {
        let folder = state.join(format!("n{number}"));
        Self { state, folder, number }
    }

    /// `n1`, `n2`, …
    pub(crate) fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// The cluster's control group.
    pub(crate) fn group(&self) -> String {
        group(&self.state.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Programs of the node and no other's. PID 1 of the node, as seen by us, if the node is on.
    pub(crate) fn init(&self) -> Option<mark::Process> {
        let ours = mark::ids(std::process::id() as i32).len();
        let found = mark::processes(&self.state).into_iter().filter(|p| p.part == self.name());
        found.into_iter().find(|p| matches!(mark::ids(p.pid)[..], [.., 1] if mark::ids(p.pid).len() == ours + 1))
    }
}

/// The name of a cluster's control group.
pub(crate) fn group(cluster: &str) -> String {
    format!("kcluster-{cluster}")
}

/// One node of a cluster.
#[derive(Debug)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    place: Place,
}

impl<'a> Node<'a> {
    pub(crate) fn new(cluster: &'a Cluster, number: u8) -> Self {
        Self { cluster, place: Place::of(cluster.folder().to_owned(), number) }
    }

    /// `n1`, `n2`, …, its name in Kubernetes, too.
    #[must_use]
    pub fn name(&self) -> String {
        self.place.name()
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.place.init().is_some()
    }

    /// Takes its power: every process of it ends at once. Its volumes stay. (So does the page cache: what was written and
    /// not synced is not lost, unlike on a real machine.)
    ///
    /// # Errors
    /// When it has none, or a process does not end.
    pub fn power_off(&self) -> anyhow::Result<()> {
        let name = self.name();
        let init = self.place.init().with_context(|| format!("node {name} has no power already"))?;
        mark::end(&init, &self.place.state)?;
        let own = format!("{name}/");
        let all: Vec<_> = mark::processes(&self.place.state)
            .into_iter()
            .filter(|p| p.part == name || p.part.starts_with(&own))
            .collect();
        // What was frozen must wake up to die.
        Cgroups::detect(crate::host::CGROUPS.as_ref())?.thaw(&PathBuf::from(self.place.group()).join(&name));
        mark::gone(&all, &self.place.state, Duration::from_secs(10))
    }

    /// Gives it power; it boots. Does not wait until it is Ready.
    ///
    /// # Errors
    /// When it has power, or cannot be started.
    pub fn power_on(&self) -> anyhow::Result<()> {
        let (name, place, options) = (self.name(), &self.place, self.cluster.options()?);
        ensure!(place.init().is_none(), "node {name} has power already");
        for folder in
            ["kubelet/plugins_registry", "cni", "log/pods", "log/containers", "fake", "volumes", "opt", "rootfs"]
        {
            fs::create_dir_all(place.folder.join(folder)).context("cannot make the node's directory")?;
        }
        build::golden::copy(self.cluster.store(), &place.folder.join("root"))?;
        let cgroups = Cgroups::detect(crate::host::CGROUPS.as_ref())?;
        cgroups.clear_pods(&place.group(), &name);
        cgroups.make(&place.group(), &name)?;
        let words = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ];
        let own = [
            place.state.join("kcluster").display().to_string(),
            "node-init".to_owned(),
            place.state.display().to_string(),
            place.number.to_string(),
        ];
        let words = words.iter().map(|w| (*w).to_owned()).chain(own);
        let (net, bin) = (net::of(&place.state, &name), self.cluster.programs(&options)?);
        control::start(&place.state, &name, &net, &place.folder.join("log"), &bin, words)?;
        let booted = control::until(&format!("node {name} boots"), Duration::from_secs(20), || Ok(self.is_on()));
        booted.with_context(|| format!("see {}", place.folder.join("log").display()))
    }

    /// Runs a program on it, as root.
    ///
    /// # Errors
    /// When the node is off or the program cannot be run; its own failure is an [`Output`].
    pub fn run(&self, words: &[&str], stdin: &str) -> anyhow::Result<Output> {
        run::attempt(&mut self.command(words)?, stdin)
    }

    /// A command that runs on the node.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<Command> {
        let Some(init) = self.place.init() else { bail!("node {} has no power", self.name()) };
        let mut command = Command::new("nsenter");
        command.args(["-t", &init.pid.to_string(), "-m", "-u", "-i", "-n", "-p", "--"]).args(words);
        let options = self.cluster.options()?;
        command.env("PATH", control::path(&self.cluster.programs(&options)?));
        Ok(command)
    }

    /// `ctr` on the node, for Kubernetes' images and containers.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub(crate) fn ctr(&self, words: &[&str]) -> anyhow::Result<Command> {
        self.command(&[&["ctr", "-a", crate::files::CONTAINERD, "-n", "k8s.io"], words].concat())
    }

    /// Hangs everything on it: services and pods. It looks dead, and comes back as if nothing had been.
    ///
    /// # Errors
    /// When it does not happen within 5 s.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.frozen(true)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not happen within 5 s.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.frozen(false)
    }

    fn frozen(&self, frozen: bool) -> anyhow::Result<()> {
        let group = PathBuf::from(self.place.group()).join(self.name());
        Cgroups::detect(crate::host::CGROUPS.as_ref())?.freeze(&group, frozen)
    }

    /// Ends one of its services, which starts again after a second. Pods live on without containerd or kubelet.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, service: NodeService) -> anyhow::Result<()> {
        let part = format!("{}/{}", self.name(), service.name());
        let found = mark::of_part(&self.place.state, &part, service.name());
        ensure!(!found.is_empty(), "{} of {} does not run", service.name(), self.name());
        for process in &found {
            mark::end(process, &self.place.state)?;
        }
        mark::gone(&found, &self.place.state, Duration::from_secs(10))
    }

    /// Ends one of its services, and keeps it down.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self, service: NodeService) -> anyhow::Result<()> {
        control::write(&self.place.folder.join(format!("{}.stop", service.name())), "")?;
        let part = format!("{}/{}", self.name(), service.name());
        if mark::of_part(&self.place.state, &part, service.name()).is_empty() { Ok(()) } else { self.kill(service) }
    }

    /// Lets a stopped service start again.
    ///
    /// # Errors
    /// When its sign cannot be removed.
    pub fn start(&self, service: NodeService) -> anyhow::Result<()> {
        match fs::remove_file(self.place.folder.join(format!("{}.stop", service.name()))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot start it again"),
            _ => Ok(()),
        }
    }

    /// Its directory: `log`, `volumes`, …
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.place.folder
    }

    /// Where its volumes are kept until the cluster is taken away.
    pub(crate) fn has_options(options: &Options, number: u8) -> bool {
        (1..=options.nodes).contains(&number)
    }
}
