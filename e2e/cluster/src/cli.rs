//! The command line.

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use pgconvoy_cluster::{
    Bench, Cluster, Component, End, NodeService, Options, Owner, ProxyMode, bench, build, node, pack,
};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// A real Kubernetes of several nodes on this machine: no docker, no registry, nothing in the machine's own network.
#[derive(Debug, Parser)]
#[command(name = "kcluster", version, max_term_width = 120)]
pub(crate) struct Cli {
    /// Which cluster; several may be up at once
    #[arg(long, global = true, env = "KCLUSTER_NAME", default_value = "main")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make what is missing: programs, images; or a tool (versitygw, helm, kubeconform, or csi for what `up --csi` runs),
    /// whose path is printed
    Build {
        /// The tools; none: what a cluster needs
        tools: Vec<String>,
        /// Which Kubernetes
        #[arg(long, env = "KCLUSTER_KUBERNETES", default_value = build::VERSIONS[0])]
        kubernetes: String,
    },
    /// Bring the cluster up, and build what is missing before
    Up(Up),
    /// Take the cluster away, also what is left of one
    Down {
        /// Keep etcd and volumes for the next `up`: a power cycle of the whole cluster
        #[arg(long)]
        keep: bool,
    },
    /// Show nodes and pods
    Status,
    /// Names of the clusters on this machine
    List,
    /// kubectl on the cluster
    #[command(alias = "k")]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Run a program of this machine in the control plane's network, where the API server and pods can be reached; KUBECONFIG
    /// is set
    Enter {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
    /// Print the path of the kubeconfig, which is good inside `enter` only
    Kubeconfig,
    /// Run a program on a node as root; a shell when none is named
    Shell {
        /// n1, n2, …
        node: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Put image archives on all nodes
    Load {
        /// OCI or docker archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Write an image archive of a root file system
    Pack {
        /// The full name, docker.io/local/mine:1
        image: String,
        /// A directory or a tar archive
        root: PathBuf,
        /// The archive to write
        out: PathBuf,
        /// Options of images/oci.py: --user, --env, --entrypoint, …
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Write a root file system of Debian packages
    Debian {
        /// The release: trixie, bookworm
        suite: String,
        /// The archive to write
        out: PathBuf,
        /// The packages
        #[arg(required = true)]
        packages: Vec<String>,
    },
    /// Take a node's power
    NodeOff { node: String },
    /// Give it back
    NodeOn { node: String },
    /// Let no packet through between two ends: n1, n2, …, api
    Cut {
        a: End,
        b: End,
        /// From A to B only
        #[arg(long)]
        one_way: bool,
    },
    /// Hold packets between two ends back, each for so many milliseconds
    Delay {
        a: End,
        b: End,
        ms: f64,
        /// Percent of packets that are lost
        #[arg(default_value = "0")]
        loss: f64,
        /// More or less milliseconds
        #[arg(long, default_value = "0")]
        jitter: f64,
    },
    /// No cut and no delay any more
    Heal,
    /// Hang a node, or a container of a pod
    Freeze(Target),
    /// Let it go on
    Thaw(Target),
    /// End a component at once: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, coredns,
    /// local-path-provisioner, which stay down (with --csi also csi-disk, csi-provisioner, csi-attacher, csi-resizer,
    /// csi-snapshotter, snapshot-controller); or, with a node, containerd, kubelet, kube-proxy, csi-disk, which start again
    Kill { component: String, node: Option<String> },
    /// Keep a node's containerd, kubelet or kube-proxy down
    Stop { component: String, node: String },
    /// Start a component that was killed or stopped
    Start { component: String, node: Option<String> },
    /// Print the process id of a container's main process, as seen from outside
    Pid { namespace: String, pod: String, container: Option<String> },
    /// Print logs of components, the last lines of all when none is named: etcd, …, n1/kubelet, …
    Logs {
        component: Option<String>,
        #[arg(long, short)]
        follow: bool,
        #[arg(long, default_value_t = 20)]
        lines: u32,
    },
    /// Memory and processor time of all components
    Rss,
    /// Bring a cluster up and take it down, and print the figures
    Bench {
        #[arg(long, default_value_t = 3)]
        runs: u32,
        /// Also build with nothing cached, in a place of its own that is removed afterwards: ten minutes and more, 10 GB of disk
        #[arg(long)]
        cold: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        knobs: Knobs,
    },
    #[command(hide = true)]
    NodeInit { state: PathBuf, number: u8 },
    #[command(hide = true)]
    Unpack { part: PathBuf, bin: PathBuf, archives: Vec<PathBuf> },
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    knobs: Knobs,
    /// Fail when something is not built, instead of building it
    #[arg(long)]
    no_build: bool,
    /// Take the cluster away, at somebody's next `up`, when this process is gone
    #[arg(long, value_name = "PID")]
    owner: Option<u32>,
}

/// What is not given is as it was, for a cluster that was kept, or else the default.
#[derive(Debug, Args)]
struct Knobs {
    /// How many nodes, 1 to 9 (3)
    #[arg(long)]
    nodes: Option<u8>,
    /// Which Kubernetes: 1.36 or 1.34 (1.36)
    #[arg(long, env = "KCLUSTER_KUBERNETES")]
    kubernetes: Option<String>,
    /// How kube-proxy does it (iptables)
    #[arg(long)]
    proxy_mode: Option<ProxyMode>,
    /// Feature gates of every component: A=true,B=false
    #[arg(long)]
    feature_gates: Option<String>,
    /// How long a silent node stays Ready (50s); a short time needs a short --node-lease
    #[arg(long)]
    node_grace: Option<String>,
    /// Seconds that a node's lease is good for; renewed every quarter of it (40)
    #[arg(long)]
    node_lease: Option<u32>,
    /// Seconds after which pods of a lost node are deleted (300)
    #[arg(long)]
    toleration: Option<u32>,
    /// The longest pause between restarts of a failing container (5m)
    #[arg(long)]
    crash_backoff: Option<String>,
    /// etcd syncs to disk
    #[arg(long)]
    etcd_fsync: bool,
    /// A disk of this size for each node's volumes, e.g. 2G, so that it can be full
    #[arg(long)]
    node_disk: Option<String>,
    /// Also a CSI driver, whose volumes (StorageClass csi-disk) are attached, grow, and have snapshots
    #[arg(long)]
    csi: bool,
    /// How much the components log (2)
    #[arg(long = "v")]
    verbosity: Option<u8>,
    /// Short times for tests that lose nodes: --node-grace 12s --node-lease 4 --toleration 5 --crash-backoff 1s
    #[arg(long)]
    impatient: bool,
}

impl Knobs {
    fn over(self, old: Options) -> Options {
        let old = if self.impatient {
            Options { nodes: old.nodes, kubernetes: old.kubernetes, ..Options::impatient() }
        } else {
            old
        };
        Options {
            nodes: self.nodes.unwrap_or(old.nodes),
            kubernetes: self.kubernetes.unwrap_or(old.kubernetes),
            proxy_mode: self.proxy_mode.unwrap_or(old.proxy_mode),
            feature_gates: self.feature_gates.unwrap_or(old.feature_gates),
            node_grace: self.node_grace.unwrap_or(old.node_grace),
            node_lease: self.node_lease.or(old.node_lease),
            toleration: self.toleration.or(old.toleration),
            crash_backoff: self.crash_backoff.unwrap_or(old.crash_backoff),
            etcd_fsync: self.etcd_fsync || old.etcd_fsync,
            node_disk: self.node_disk.unwrap_or(old.node_disk),
            csi: self.csi || old.csi,
            verbosity: self.verbosity.unwrap_or(old.verbosity),
            owner: old.owner,
        }
    }
}

/// `n1`, or a namespace, a pod, and a container.
#[derive(Debug, Args)]
struct Target {
    /// A node (n1), or the namespace of a pod
    place: String,
    /// The pod
    pod: Option<String>,
    /// Its container, the first one when none is named
    container: Option<String>,
}

impl Cli {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        // What runs in a node's namespaces has neither home nor name.
        match self.verb {
            Verb::NodeInit { state, number } => node::run_init(&state, number)?,
            Verb::Unpack { part, bin, archives } => build::golden::unpack(&part, &bin, &archives)?,
            verb => return verb.run(&Cluster::named(&self.name)?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Verb {
    fn run(self, cluster: &Cluster) -> anyhow::Result<ExitCode> {
        match self {
            Verb::Build { tools, kubernetes } if tools.is_empty() => {
                build::all(cluster.store(), &kubernetes)?;
            }
            Verb::Build { tools, .. } => {
                for name in tools {
                    let built =
                        if name == "csi" { build::csi(cluster.store())? } else { build::tool(cluster.store(), &name)? };
                    println!("{}", built.display());
                }
            }
            Verb::Up(up) => {
                let old = cluster.options().unwrap_or_default();
                let owner = match up.owner {
                    Some(pid) => Some(Owner::of(pid).with_context(|| format!("there is no process {pid}"))?),
                    None => None,
                };
                let options = Options { owner, ..up.knobs.over(Options { owner: None, ..old }) };
                options.check()?;
                ensure!(!cluster.is_up(), "cluster {} is up already: kcluster down takes it away", cluster.name());
                if !up.no_build {
                    build::all(cluster.store(), &options.kubernetes)?;
                    if options.csi {
                        build::csi(cluster.store())?;
                    }
                }
                cluster.bring_up(&options)?;
            }
            Verb::Down { keep } => cluster.down(keep)?,
            Verb::Status => {
                for words in [&["get", "nodes", "-o", "wide"][..], &["get", "pods", "-A", "-o", "wide"]] {
                    print!("{}", cluster.kubectl(words, "")?);
                }
            }
            Verb::List => {
                for name in cluster.store().clusters() {
                    let one = Cluster::in_store(&name, cluster.store().clone())?;
                    println!("{name} {}", if one.is_up() { "up" } else { "down" });
                }
            }
            Verb::Kubectl { words } => {
                let program = build_folder(cluster)?.join("kubectl");
                let config = format!("--kubeconfig={}", cluster.kubeconfig().display());
                cluster.enter()?;
                return become_program(Command::new(program).arg(config).args(words));
            }
            Verb::Enter { words } => {
                let (program, rest) = words.split_first().context("what is to be run?")?;
                cluster.enter()?;
                let path = std::env::var("PATH").unwrap_or_default();
                let path = format!("{}:{path}", build_folder(cluster)?.display());
                let mut command = Command::new(program);
                return become_program(command.args(rest).env("KUBECONFIG", cluster.kubeconfig()).env("PATH", path));
            }
            Verb::Kubeconfig => println!("{}", cluster.kubeconfig().display()),
            Verb::Shell { node, words } => {
                let words = if words.is_empty() { vec!["bash".to_owned()] } else { words };
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                return become_program(&mut cluster.node_named(&node)?.command(&words)?);
            }
            Verb::Load { archives } => cluster.load(&archives)?,
            Verb::Pack { image, root, out, options } => {
                pack(&image, &root, &out, &options.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            Verb::Debian { suite, out, packages } => {
                let mut scratch = out.as_os_str().to_owned();
                scratch.push(".part");
                std::fs::create_dir_all(&scratch)?;
                let packages: Vec<_> = packages.iter().map(String::as_str).collect();
                let made = build::debian_root(&suite, &packages, &[], scratch.as_ref(), &out);
                std::fs::remove_dir_all(&scratch)?;
                made?;
            }
            Verb::NodeOff { node } => cluster.node_named(&node)?.power_off()?,
            Verb::NodeOn { node } => cluster.node_named(&node)?.power_on()?,
            Verb::Cut { a, b, one_way: false } => cluster.cut(a, b)?,
            Verb::Cut { a, b, one_way: true } => cluster.cut_one_way(a, b)?,
            Verb::Delay { a, b, ms, loss, jitter } => {
                let millis = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).context("that is no time");
                cluster.delay(a, b, millis(ms)?, millis(jitter)?, loss)?;
            }
            Verb::Heal => cluster.heal()?,
            Verb::Freeze(target) => target.freeze(cluster, true)?,
            Verb::Thaw(target) => target.freeze(cluster, false)?,
            Verb::Kill { component, node } => match part(&component, node.as_deref())? {
                Part::Control(component) => cluster.kill(component)?,
                Part::Node(service, node) => cluster.node_named(node)?.kill(service)?,
            },
            Verb::Stop { component, node } => match part(&component, Some(&node))? {
                Part::Node(service, node) => cluster.node_named(node)?.stop(service)?,
                Part::Control(component) => cluster.kill(component)?,
            },
            Verb::Start { component, node } => match part(&component, node.as_deref())? {
                Part::Control(component) => cluster.start_component(component)?,
                Part::Node(service, node) => cluster.node_named(node)?.start(service)?,
            },
            Verb::Pid { namespace, pod, container } => {
                println!("{}", cluster.pid(&namespace, &pod, container.as_deref())?);
            }
            Verb::Logs { component, follow, lines } => return logs(cluster, component.as_deref(), follow, lines),
            Verb::Rss => rss(cluster)?,
            Verb::Bench { runs, cold, json, knobs } => {
                bench(cluster.name(), Bench { runs, cold, json }, &knobs.over(Options::default()))?;
            }
            Verb::NodeInit { .. } | Verb::Unpack { .. } => bail!("that is for the inside of nodes"),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The programs that the cluster runs on.
fn build_folder(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    build::built(cluster.store(), &cluster.options()?.kubernetes)
}

/// Becomes another program; comes back only when that fails.
fn become_program(command: &mut Command) -> anyhow::Result<ExitCode> {
    let error = command.exec();
    bail!("cannot run {}: {error}", command.get_program().to_string_lossy())
}

impl Target {
    fn freeze(&self, cluster: &Cluster, frozen: bool) -> anyhow::Result<()> {
        match (&self.pod, frozen) {
            (None, true) => cluster.node_named(&self.place)?.freeze(),
            (None, false) => cluster.node_named(&self.place)?.thaw(),
            (Some(pod), true) => cluster.freeze(&self.place, pod, self.container.as_deref()),
            (Some(pod), false) => cluster.thaw(&self.place, pod, self.container.as_deref()),
        }
    }
}

enum Part<'a> {
    Control(Component),
    Node(NodeService, &'a str),
}

fn part<'a>(name: &str, node: Option<&'a str>) -> anyhow::Result<Part<'a>> {
    match (Component::named(name), NodeService::named(name), node) {
        (Some(component), _, None) => Ok(Part::Control(component)),
        (_, Some(service), Some(node)) => Ok(Part::Node(service, node)),
        (Some(_), _, Some(node)) => bail!("{name} is not on {node}: it is a component of the control plane"),
        (_, Some(_), None) => bail!("which node's {name}? e.g. kcluster kill {name} n1"),
        _ => {
            // One of them is both.
            let all: BTreeSet<_> = Component::ALL
                .map(Component::name)
                .into_iter()
                .chain(NodeService::ALL.map(NodeService::name))
                .collect();
            bail!("there is no component {name}; there is {}", all.into_iter().collect::<Vec<_>>().join(", "))
        }
    }
}

fn logs(cluster: &Cluster, component: Option<&str>, follow: bool, lines: u32) -> anyhow::Result<ExitCode> {
    let path = |name: &str| match name.split_once('/') {
        Some((node, service)) => cluster.folder().join(node).join("log").join(format!("{service}.log")),
        None => cluster.log(name),
    };
    let files: Vec<_> = match component {
        Some(name) => vec![path(name)],
        None => {
            let (nodes, options) = (cluster.nodes()?, cluster.options()?);
            let services =
                |node: String| NodeService::of(&options).map(|s| format!("{node}/{}", s.name())).collect::<Vec<_>>();
            let services = nodes.iter().flat_map(|n| services(n.name()));
            Component::of(&options).map(|c| c.name().to_owned()).chain(services).map(|name| path(&name)).collect()
        }
    };
    for file in &files {
        ensure!(file.exists(), "there is no log {}", file.display());
    }
    let mut tail = Command::new("tail");
    tail.args(["-n", &lines.to_string()]).args(follow.then_some("-F")).args(files);
    become_program(&mut tail)
}

fn rss(cluster: &Cluster) -> anyhow::Result<()> {
    let all = cluster.usage();
    ensure!(!all.is_empty(), "cluster {} is not up", cluster.name());
    let sum = ("altogether".to_owned(), cluster.whole_usage());
    println!("{:<40} {:>9} {:>8} {:>8} {:>8}", "COMPONENT", "PROCESSES", "RSS MB", "PSS MB", "CPU s");
    for (name, usage) in all.into_iter().chain([sum]) {
        let (rss, pss) = (usage.rss as f64 / 1024.0, usage.pss as f64 / 1024.0);
        println!("{name:<40} {:>9} {rss:>8.1} {pss:>8.1} {:>8.1}", usage.processes, usage.cpu);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_after_kubectl_are_its_own() {
        let cli = Cli::try_parse_from(["kcluster", "--name", "a", "kubectl", "-n", "b", "get", "--help"]).unwrap();
        assert_eq!(cli.name, "a");
        let Verb::Kubectl { words } = cli.verb else { panic!("{:?}", cli.verb) };
        assert_eq!(words, ["-n", "b", "get", "--help"]);
    }

    #[test]
    fn what_is_not_given_stays() {
        let cli = Cli::try_parse_from(["kcluster", "up", "--node-grace", "20s", "--kubernetes", "1.34"]).unwrap();
        let Verb::Up(up) = cli.verb else { panic!("{:?}", cli.verb) };
        let old = Options { nodes: 5, kubernetes: "1.34".to_owned(), ..Options::default() };
        assert_eq!(up.knobs.over(old.clone()), Options { node_grace: "20s".to_owned(), ..old });
    }

    #[test]
    fn a_component_is_told_from_another() {
        assert!(matches!(part("etcd", None), Ok(Part::Control(Component::Etcd))));
        assert!(matches!(part("kubelet", Some("n1")), Ok(Part::Node(NodeService::Kubelet, "n1"))));
        assert!(part("kubelet", None).is_err_and(|e| e.to_string().contains("which node's")));
        assert!(part("etcd", Some("n1")).is_err());
        assert!(part("mysql", None).is_err());
    }
}
