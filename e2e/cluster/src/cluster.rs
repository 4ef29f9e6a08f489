//! A cluster: brought up, used, taken away.

use crate::control::{self, Component};
use crate::node::{Node, Place, group};
use crate::options::{Options, Owner};
use crate::{Cgroups, Output, Store, build, csi, down, files, host, mark, net, pki, run};
use anyhow::{Context, anyhow, bail, ensure};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long one kubectl of a test may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster, up or not. See [`Cluster::up`] and [`Cluster::named`].
#[derive(Debug)]
pub struct Cluster {
    name: String,
    store: Store,
    state: PathBuf,
    /// Taken away when dropped.
    guarded: bool,
}

/// How far a cluster got; kept in its directory.
mod phase {
    pub(super) const RISING: &str = "rising";
    pub(super) const UP: &str = "up";
    pub(super) const KEPT: &str = "kept";
}

impl Cluster {
    /// The cluster of this name in the store of the environment, whether it is up or not. It stays as it is when the value
    /// is dropped.
    ///
    /// # Errors
    /// When the name cannot be one.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        Self::in_store(name, Store::of_environment()?)
    }

    /// As [`Cluster::named`], in another store.
    ///
    /// # Errors
    /// When the name cannot be one.
    pub fn in_store(name: &str, store: Store) -> anyhow::Result<Self> {
        let mut letters = name.chars();
        let good = letters.next().is_some_and(|c| c.is_ascii_lowercase())
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && name.len() <= 20;
        ensure!(good, "{name:?}: a cluster's name is 1 to 20 of a-z, 0-9 and -, a letter first");
        let state = store.path(&format!("clusters/{name}"));
        Ok(Self { name: name.to_owned(), store, state, guarded: false })
    }

    /// Builds what is missing, brings up a cluster, and takes it away when the value is dropped. If this process is killed,
    /// whoever brings up the next cluster takes this one away.
    ///
    /// # Errors
    /// When the machine lacks something, or the cluster does not come up; what there is of it is taken away.
    pub fn up(name: &str, options: &Options) -> anyhow::Result<Self> {
        let mut cluster = Self::named(name)?;
        build::all(&cluster.store, &options.kubernetes)?;
        if options.csi {
            build::csi(&cluster.store)?;
        }
        let options = Options { owner: Owner::of(std::process::id()), ..options.clone() };
        // One that is up already is somebody's.
        cluster.refuse_second()?;
        cluster.guarded = true;
        cluster.bring_up(&options)?;
        Ok(cluster)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory: `log` of the control plane, `nN` of the nodes, `pki`, …
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.state
    }

    /// Where it and its programs lie.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What it was brought up with.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn options(&self) -> anyhow::Result<Options> {
        let text = fs::read_to_string(self.state.join("options.json")).map_err(|_| self.none())?;
        serde_json::from_str(&text).with_context(|| format!("the options of cluster {} are damaged", self.name))
    }

    fn none(&self) -> anyhow::Error {
        anyhow!("there is no cluster {}: kcluster up brings one up, kcluster list shows which there are", self.name)
    }

    /// The programs it runs on.
    pub(crate) fn programs(&self, options: &Options) -> anyhow::Result<PathBuf> {
        match fs::read_to_string(self.state.join("bin")) {
            Ok(path) => Ok(PathBuf::from(path)),
            Err(_) => build::built(&self.store, &options.kubernetes),
        }
    }

    /// Whether its API server runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        Component::ApiServer.runs(&self.state)
    }

    fn refuse_second(&self) -> anyhow::Result<()> {
        let abandoned = self.options().is_ok_and(|o| o.owner.is_some_and(|owner| !owner.lives()));
        ensure!(!self.is_up() || abandoned, "cluster {} is up already: kcluster down takes it away", self.name);
        Ok(())
    }

    /// Brings it up, from what is built. A cluster that was kept by [`Cluster::down`] keeps etcd and volumes. Says how long
    /// it took.
    ///
    /// # Errors
    /// When it is up already, something is not built, or it does not come up in time; what there is of it stays, to be
    /// looked at.
    pub fn bring_up(&self, options: &Options) -> anyhow::Result<()> {
        let begin = Instant::now();
        options.check()?;
        host::check(&host::Machine::look(&self.store), host::For::Cluster)?;
        let bin = build::built(&self.store, &options.kubernetes)?;
        let csi_programs = if options.csi { Some(build::csi_built(&self.store)?) } else { None };
        self.store.folder("clusters")?;
        let lock = self.store.lock(&format!("clusters/{}.lock", self.name))?;
        lock.lock().context("cannot wait for another one who brings it up or takes it away")?;
        self.refuse_second()?;
        down::abandoned(&self.store, &self.name);
        self.make_room(options)?;
        host::check_watchers(options.nodes)?;

        fs::create_dir_all(self.state.join("log")).context("cannot make the cluster's directory")?;
        self.enter_phase(phase::RISING)?;
        control::write(&self.state.join("options.json"), &serde_json::to_string_pretty(options)?)?;
        control::write(&self.state.join("bin"), &bin.display().to_string())?;
        if let Some(programs) = &csi_programs {
            control::write(&self.state.join(csi::PROGRAMS), &programs.display().to_string())?;
            fs::create_dir_all(self.state.join(csi::VOLUMES)).context("cannot make the directory of volumes")?;
        }
        for used in std::iter::once(&bin).chain(&csi_programs) {
            drop(File::open(used).and_then(|f| f.set_modified(std::time::SystemTime::now())));
        }
        // Its own copy: nodes that start later must not depend on what Cargo does meanwhile.
        let program = self.state.join("kcluster");
        drop(fs::remove_file(&program));
        fs::copy(host::program()?, &program).context("cannot copy the program kcluster")?;
        pki::make(&self.state.join("pki"), options.nodes)?;
        net::make(&self.state, options.nodes)?;
        self.start(options, &bin, begin)?;
        self.enter_phase(phase::UP)
    }

    fn enter_phase(&self, phase: &str) -> anyhow::Result<()> {
        control::write(&self.state.join("phase"), phase)
    }

    /// Removes what an earlier one left, or what is only half there.
    fn make_room(&self, options: &Options) -> anyhow::Result<()> {
        if !self.state.exists() {
            let groups = Cgroups::detect(host::CGROUPS.as_ref())?.of(&group(&self.name));
            ensure!(
                groups.is_empty(),
                "there is a control group of the name kcluster-{} already, and it is not of this store: take another name",
                self.name
            );
            return Ok(());
        }
        let old = self.options().ok();
        let abandoned = old.as_ref().is_some_and(|o| o.owner.is_some_and(|owner| !owner.lives()));
        match (fs::read_to_string(self.state.join("phase")).as_deref(), old) {
            // What ended without us lost its power, and comes back.
            (Ok(phase::UP | phase::KEPT), Some(old)) if !abandoned => {
                ensure!(
                    old.nodes == options.nodes && old.kubernetes == options.kubernetes && old.csi == options.csi,
                    "cluster {} was kept with {} nodes, Kubernetes {} and {} CSI driver, and can only come back like that; \
                     kcluster down takes it away for good",
                    self.name,
                    old.nodes,
                    old.kubernetes,
                    if old.csi { "a" } else { "no" }
                );
                down::take(self, true)
            }
            _ => down::take(self, false),
        }
    }

    fn start(&self, options: &Options, bin: &Path, begin: Instant) -> anyhow::Result<()> {
        let since = || format!("{:.1} s", begin.elapsed().as_secs_f64());
        Component::Etcd.start(&self.state, bin, options)?;
        Component::ApiServer.start(&self.state, bin, options)?;
        // Nodes boot while the API server does.
        std::thread::scope(|scope| {
            let boots: Vec<_> =
                (1..=options.nodes).map(|n| scope.spawn(move || Node::new(self, n).power_on())).collect();
            boots.into_iter().try_for_each(|b| b.join().map_err(|_| anyhow!("a thread panicked"))?)
        })?;
        self.wait_for_api(Duration::from_secs(240))?;
        build::say(&format!("API server ready after {}", since()));
        for component in [Component::ControllerManager, Component::Scheduler] {
            component.start(&self.state, bin, options)?;
        }
        // Roles of the server's own may still be in the making.
        self.kubectl_again(&["apply", "-f", "-"], files::BASE, Duration::from_secs(30))?;
        for component in [Component::CoreDns, Component::LocalPathProvisioner] {
            component.start(&self.state, bin, options)?;
        }
        if options.csi {
            self.start_csi(options, bin)?;
        }
        // One by one: of several that are missing, kubectl says that they are, and ends.
        let names: Vec<_> = (1..=options.nodes).map(|n| format!("node/n{n}")).collect();
        for wanted in ["create", "condition=Ready"] {
            for name in &names {
                let words = ["wait", "--timeout=240s", &format!("--for={wanted}"), name];
                self.kubectl_within(&words, "", Duration::from_secs(250))
                    .and_then(Output::success)
                    .with_context(|| format!("{name} does not become Ready; see {}/nN/log", self.state.display()))?;
            }
        }
        // Without it pods are refused.
        self.kubectl(&["wait", "--for=create", "--timeout=60s", "serviceaccount/default"], "")?;
        for component in Component::of(options) {
            let log = self.log(component.name());
            ensure!(component.runs(&self.state), "{} ended:\n{}", component.name(), build::tail(&log, 5));
        }
        build::say(&format!("{} nodes Ready after {}", options.nodes, since()));
        Ok(())
    }

    /// The CSI driver and its sidecars, once the API server knows of snapshots.
    fn start_csi(&self, options: &Options, bin: &Path) -> anyhow::Result<()> {
        let crds = csi::programs(&self.state)?.join("crds").display().to_string();
        self.kubectl(&["apply", "--server-side", "-f", &crds], "")?;
        // It takes a moment until they are served.
        self.kubectl_again(&["apply", "-f", "-"], files::CSI, Duration::from_secs(30))?;
        Component::of(options).filter(|c| c.is_csi()).try_for_each(|c| c.start(&self.state, bin, options))
    }

    fn wait_for_api(&self, within: Duration) -> anyhow::Result<()> {
        let address: SocketAddr = format!("{}:6443", net::API).parse()?;
        let ready = || {
            ensure!(self.is_up(), "the API server ended:\n{}", build::tail(&self.log("kube-apiserver"), 10));
            let open =
                self.network().inside(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()))?;
            Ok(open && self.try_kubectl(&["get", "--raw", "/readyz"], "")?.stdout == "ok")
        };
        control::until("the API server is ready", within, ready)
            .with_context(|| format!("see {}", self.log("kube-apiserver").display()))
    }

    fn kubectl_again(&self, args: &[&str], stdin: &str, within: Duration) -> anyhow::Result<()> {
        let limit = Instant::now() + within;
        loop {
            match self.kubectl(args, stdin) {
                Err(_) if Instant::now() < limit => std::thread::sleep(Duration::from_millis(300)),
                other => return other.map(drop),
            }
        }
    }

    /// Takes it away, also what is left of one whose makers were killed: processes, control groups, mounts, networks and its
    /// directory; nothing else. With `keep`, etcd and volumes stay for the next [`Cluster::bring_up`], which then is the
    /// power cycle of a whole cluster.
    ///
    /// # Errors
    /// With what could not be removed.
    pub fn down(&self, keep: bool) -> anyhow::Result<()> {
        let machine = host::Machine::look(&self.store);
        ensure!(machine.uid == 0, "this needs root, because the cluster is root's: try sudo -E");
        self.store.folder("clusters")?;
        let lock = self.store.lock(&format!("clusters/{}.lock", self.name))?;
        lock.lock().context("cannot wait for another one who brings it up or takes it away")?;
        down::take(self, keep)?;
        if keep && self.state.exists() {
            return self.enter_phase(phase::KEPT);
        }
        drop(fs::remove_file(self.store.path(&format!("clusters/{}.lock", self.name))));
        Ok(())
    }

    /// The log of a component of the control plane.
    #[must_use]
    pub fn log(&self, component: &str) -> PathBuf {
        self.state.join("log").join(format!("{component}.log"))
    }

    /// The control plane's network.
    pub(crate) fn network(&self) -> net::Net {
        net::of(&self.state, "cp")
    }

    /// A kubeconfig of the cluster's administrator. Its server can be reached in the cluster's network alone, see
    /// [`Cluster::inside`].
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("pki/admin.kubeconfig")
    }

    /// Runs `work` on a thread in the control plane's network, from where the API server, nodes and pods can be reached.
    /// What it starts is in there, too. Names and addresses of Services exist on nodes and in pods only.
    ///
    /// # Errors
    /// When the cluster is not up, and those of `work`.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        ensure!(self.network().exists(), self.none());
        self.network().inside(work)
    }

    /// Moves this thread into that network, for good.
    ///
    /// # Errors
    /// When the cluster is not up.
    pub fn enter(&self) -> anyhow::Result<()> {
        ensure!(self.network().exists(), self.none());
        self.network().enter()
    }

    /// A client of the API server. It connects from whatever thread it is used on: [`Cluster::runtime`] has the right ones.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    #[cfg(feature = "client")]
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        // Done twice it is refused, and that is fine.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// An asynchronous runtime, all of whose threads are in the control plane's network; spawn on it what uses
    /// [`Cluster::client`].
    ///
    /// # Errors
    /// When the cluster is not up.
    #[cfg(feature = "client")]
    pub fn runtime(&self) -> anyhow::Result<tokio::runtime::Runtime> {
        ensure!(self.network().exists(), self.none());
        let network = self.network();
        let enter = move || {
            if let Err(error) = network.enter() {
                eprintln!("a thread stays outside of the cluster's network: {error:#}");
            }
        };
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(enter)
            .build()
            .context("cannot make a runtime")
    }

    /// kubectl, ready to be given arguments and run by a thread in the cluster's network.
    pub(crate) fn kubectl_command(&self, limit: Option<Duration>) -> anyhow::Result<Command> {
        let program = self.programs(&self.options()?)?.join("kubectl");
        let mut command = limit.map_or_else(|| Command::new(&program), |limit| run::limited(limit, &program));
        command.arg(format!("--kubeconfig={}", self.kubeconfig().display()));
        Ok(command)
    }

    /// Runs `kubectl <args>` with `stdin`; what it printed.
    ///
    /// # Errors
    /// When it fails, with what it complained about, or is not done within two minutes.
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<String> {
        let output = self.try_kubectl(args, stdin)?;
        if !output.ok {
            bail!("kubectl {}: {}", args.join(" "), output.stderr.trim());
        }
        Ok(output.stdout)
    }

    /// Runs `kubectl <args>` with `stdin`, for two minutes at most, and takes what comes.
    ///
    /// # Errors
    /// When it cannot be run; its own failure is an [`Output`].
    pub fn try_kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<Output> {
        self.kubectl_within(args, stdin, PATIENCE)
    }

    fn kubectl_within(&self, args: &[&str], stdin: &str, limit: Duration) -> anyhow::Result<Output> {
        let mut command = self.kubectl_command(Some(limit))?;
        command.args(args);
        self.inside(|| run::attempt(&mut command, stdin))
    }

    /// What `kubectl get <args> -o json` says.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`], and when it is not JSON.
    pub fn get(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.kubectl(&[&["get"], args, &["-o", "json"]].concat(), "")?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {} printed no JSON", args.join(" ")))
    }

    /// Runs a program of this machine in the control plane's network, for two minutes at most, with KUBECONFIG set.
    ///
    /// # Errors
    /// When it cannot be run; its own failure is an [`Output`].
    pub fn run(&self, program: &str, args: &[&str], stdin: &str) -> anyhow::Result<Output> {
        let path = control::path(&self.programs(&self.options()?)?);
        let path = std::env::var("PATH").map_or_else(|_| path.clone(), |own| format!("{path}:{own}"));
        let mut command = run::limited(PATIENCE, program);
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("PATH", path);
        self.inside(|| run::attempt(&mut command, stdin))
    }

    /// One of its nodes, from 1.
    ///
    /// # Errors
    /// When it has no such node.
    pub fn node(&self, number: u8) -> anyhow::Result<Node<'_>> {
        let options = self.options()?;
        ensure!(Node::has_options(&options, number), "cluster {} has nodes n1 to n{}", self.name, options.nodes);
        Ok(Node::new(self, number))
    }

    /// One of its nodes by name, `n1`.
    ///
    /// # Errors
    /// When it has no such node.
    pub fn node_named(&self, name: &str) -> anyhow::Result<Node<'_>> {
        let number = name.strip_prefix('n').and_then(|n| n.parse().ok());
        self.node(number.with_context(|| format!("{name} is no node; nodes are n1, n2, …"))?)
    }

    /// All of them.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn nodes(&self) -> anyhow::Result<Vec<Node<'_>>> {
        Ok((1..=self.options()?.nodes).map(|n| Node::new(self, n)).collect())
    }

    /// Ends a component of the control plane at once; it stays down until [`Cluster::start_component`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, component: Component) -> anyhow::Result<()> {
        component.kill(&self.state)
    }

    /// Starts a component of the control plane.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn start_component(&self, component: Component) -> anyhow::Result<()> {
        let options = self.options()?;
        component.start(&self.state, &self.programs(&options)?, &options)
    }

    /// What of it is there, from outside: processes, mounts and control groups. Empty when it is gone.
    ///
    /// # Errors
    /// When the machine cannot be asked.
    pub fn traces(&self) -> anyhow::Result<Vec<String>> {
        let processes = mark::processes(&self.state).into_iter().map(|p| format!("process {} ({})", p.pid, p.part));
        let mounts = net::mounts_below(&self.state)?.into_iter().map(|m| format!("mount {}", m.display()));
        let groups = Cgroups::detect(host::CGROUPS.as_ref())?.of(&group(&self.name)).into_iter();
        let groups = groups.map(|g| format!("control group {}", g.display()));
        let folder = self.state.exists().then(|| format!("directory {}", self.state.display()));
        Ok(processes.chain(mounts).chain(groups).chain(folder).collect())
    }

    pub(crate) fn place(&self, number: u8) -> Place {
        Place::of(self.state.clone(), number)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.guarded
            && let Err(error) = self.down(false)
        {
            eprintln!("cluster {} could not be taken away: {error:#}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_where_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        for bad in ["", "A", "1a", "a/b", "a_b", "..", "abcdefghijklmnopqrstu"] {
            assert!(Cluster::in_store(bad, store.clone()).is_err(), "{bad}");
        }
        let cluster = Cluster::in_store("a-1", store).unwrap();
        assert!(!cluster.is_up());
        let error = cluster.options().unwrap_err().to_string();
        assert!(error.contains("there is no cluster a-1") && error.contains("kcluster up"), "{error}");
    }
}
