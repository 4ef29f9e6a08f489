//! A real Kubernetes of one or several nodes on this machine, from one call, and its faults.
//!
//! API server, controller manager, scheduler, kubelets, kube-proxies, containerd, runc, etcd, CoreDNS, CNI plugins and a
//! volume provisioner run as what they are; each node is a set of namespaces. No docker, no image registry, and nothing in
//! the machine's own network: no rule, no route, no sysctl.
//!
//! ```no_run
//! use pgconvoy_cluster::{Cluster, End, Options};
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::up("mine", &Options::default())?; // taken away when it is dropped
//! cluster.kubectl(&["get", "nodes"], "")?;
//! cluster.node(1)?.power_off()?;
//! cluster.cut(End::Node(2), End::Api)?;
//! cluster.heal()?;
//! # Ok(()) }
//! ```
//!
//! What a cluster consists of is found by its name, by whoever comes later: its directory, the mark that each of its
//! processes carries in its environment ([`mark`]), its cgroup, and the mounts below its directory. So it can be taken away
//! after the one who brought it up was killed.

mod bench;
pub mod build;
mod cgroup;
mod cluster;
mod control;
mod csi;
mod down;
mod fault;
mod files;
pub mod host;
mod load;
pub mod mark;
mod net;
pub mod node;
mod options;
mod pki;
mod pods;
mod run;
mod store;
mod usage;

pub use bench::{Bench, bench};
pub use cgroup::Cgroups;
pub use cluster::Cluster;
pub use control::Component;
pub use fault::End;
pub use load::pack;
pub use node::{Node, NodeService};
pub use options::{Options, Owner, ProxyMode};
pub use run::Output;
pub use store::Store;
pub use usage::Usage;
