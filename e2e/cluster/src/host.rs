//! What this machine has, and what it lacks, in sentences.

use crate::build::{go_needed, numbers};
use crate::{Cgroups, Store};
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where control groups are mounted.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Run a cluster that is built.
    Cluster,
    /// Build one, and run it.
    Build,
    /// Build a tool.
    Tool,
}

/// Facts about a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The user's id.
    pub uid: u32,
    /// Capabilities in force, a bit each.
    pub capabilities: u64,
    /// Version of the kernel, major and minor.
    pub kernel: (u32, u32),
    /// Whether it has the file system that containers are layered with.
    pub overlayfs: bool,
    /// Why control groups cannot be used, if they cannot.
    pub cgroups: Option<String>,
    /// Go's version, if it is there.
    pub go: Option<String>,
    /// Free bytes where things are kept, and where that is.
    pub free: (u64, PathBuf),
    /// The file system there.
    pub filesystem: String,
    /// Bytes of memory that can be had.
    pub memory: u64,
}

/// Capabilities without which namespaces, mounts, networks and containers cannot be made: bit and name.
const CAPABILITIES: [(u32, &str); 10] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (12, "CAP_NET_ADMIN"),
    (18, "CAP_SYS_CHROOT"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
];

const GB: u64 = 1 << 30;

impl Machine {
    /// Looks.
    #[must_use]
    pub fn look(store: &Store) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = field(&status, "CapEff:").and_then(|v| u64::from_str_radix(v, 16).ok());
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = field(&memory, "MemAvailable:").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        let place = store.path("");
        let there = place.ancestors().find(|p| p.exists()).unwrap_or_else(|| Path::new("/")).to_owned();
        let disk = nix::sys::statvfs::statvfs(&there);
        let free = disk.map_or(0, |d| d.blocks_available() * d.fragment_size());
        let filesystem = Command::new("stat").args(["-f", "-c", "%T"]).arg(&there).output();
        let go = Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().ok();
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            capabilities: capabilities.unwrap_or_default(),
            kernel: kernel(&release),
            overlayfs: fs::read_to_string("/proc/filesystems").is_ok_and(|f| f.contains("\toverlay\n")),
            cgroups: Cgroups::detect(CGROUPS.as_ref()).err().map(|e| e.to_string()),
            go: go
                .map(|o| String::from_utf8_lossy(&o.stdout).trim().trim_start_matches("go").to_owned())
                .filter(|v| !v.is_empty()),
            free: (free, there),
            filesystem: filesystem.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default(),
            memory: memory.unwrap_or(u64::MAX / 2048).saturating_mul(1024),
        }
    }

    /// What is in the way, each with its cure.
    #[must_use]
    pub fn complaints(&self, purpose: For) -> Vec<String> {
        let mut found = vec![];
        if purpose != For::Tool {
            self.complain_of_the_kernel(&mut found);
        }
        if purpose != For::Cluster {
            let needed = go_needed();
            match &self.go {
                None => found.push(format!(
                    "there is no Go in the PATH, and Kubernetes is compiled here: install Go {needed} or newer from https://go.dev/dl"
                )),
                Some(go) if numbers(go) < numbers(&needed) => found.push(format!(
                    "Go {go} is too old for this Kubernetes: install Go {needed} or newer from https://go.dev/dl"
                )),
                Some(_) => {}
            }
        }
        let (needed, what) = match purpose {
            For::Build => (8 * GB, "a build needs 8 GB (programs, images, the compiler's cache)"),
            For::Cluster => (2 * GB, "a cluster needs 2 GB"),
            For::Tool => (GB, "building a tool needs 1 GB"),
        };
        let (free, place) = (&self.free.0, self.free.1.display());
        if *free < needed {
            found.push(format!(
                "there are {:.1} GB free at {place}, and {what}: make room, or choose another place by KCLUSTER_PREFIX",
                *free as f64 / GB as f64
            ));
        }
        found
    }

    fn complain_of_the_kernel(&self, found: &mut Vec<String>) {
        if self.uid != 0 {
            found.push(
                "this needs root, because it makes namespaces, mounts and control groups: try sudo -E".to_owned(),
            );
            return;
        }
        let lacking: Vec<_> =
            CAPABILITIES.iter().filter(|(bit, _)| self.capabilities >> bit & 1 == 0).map(|(_, name)| *name).collect();
        if !lacking.is_empty() {
            found.push(format!(
                "root lacks {} here: this is a container that holds it back; start it with --privileged",
                lacking.join(", ")
            ));
        }
        if self.kernel < (5, 10) {
            let (major, minor) = self.kernel;
            found.push(format!(
                "Linux {major}.{minor} is too old for this Kubernetes and containerd: use 5.10 or newer"
            ));
        }
        if !self.overlayfs {
            found.push(
                "the kernel has no overlayfs, with which containers are layered: try modprobe overlay".to_owned(),
            );
        }
        found.extend(self.cgroups.clone());
        if self.filesystem.starts_with("overlay") {
            found.push(format!(
                "{} is on an overlay file system itself, on which containers cannot be layered: choose a place on a disk or \
                 a volume by KCLUSTER_PREFIX",
                self.free.1.display()
            ));
        }
        if self.memory < GB {
            found.push(format!(
                "only {} MB of memory can be had, and three nodes take 700 MB without pods: end something, or use fewer nodes \
                 on a bigger machine",
                self.memory >> 20
            ));
        }
    }
}

/// Goes on only if nothing is in the way.
///
/// # Errors
/// With everything that is.
pub fn check(machine: &Machine, purpose: For) -> anyhow::Result<()> {
    match machine.complaints(purpose) {
        none if none.is_empty() => Ok(()),
        some => bail!("{}", some.join("\n  ")),
    }
}

/// Goes on only if the kernel lets root have as many inotify instances as a cluster takes besides those in use. Without them
/// containerd and kubelets do not start, and say so in places where nobody looks.
///
/// # Errors
/// When there are too few.
pub(crate) fn check_watchers(nodes: u8) -> anyhow::Result<()> {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    let Ok(limit) = limit.trim().parse() else { return Ok(()) };
    let links = fs::read_dir("/proc").into_iter().flatten().flatten().flat_map(|process| {
        fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|f| fs::read_link(f.path()).ok())
    });
    let used = links.filter(|link| link.as_os_str() == "anon_inode:inotify").count();
    too_few_watchers(nodes, used, limit).map_or(Ok(()), |told| bail!("{told}"))
}

fn too_few_watchers(nodes: u8, used: usize, limit: usize) -> Option<String> {
    // Seen: 8 on each node, 11 of the control plane.
    let needed = 12 + 8 * usize::from(nodes);
    (used + needed > limit).then(|| {
        format!(
            "the kernel lets each user have {limit} inotify instances, {used} are in use, and {nodes} nodes take {needed}: \
             take another cluster away (kcluster list), or raise it: sysctl fs.inotify.max_user_instances=1024"
        )
    })
}

/// The program `kcluster`, which nodes run as their PID 1: this one, or the one that Cargo put near this test.
///
/// # Errors
/// When there is none.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("KCLUSTER_PROGRAM") {
        return Ok(PathBuf::from(given));
    }
    let own = std::env::current_exe().context("cannot tell which program this is")?;
    let near = own.ancestors().skip(1).take(3).map(|folder| folder.join("kcluster"));
    let is = |path: &PathBuf| path.is_file();
    std::iter::once(own.clone()).filter(|p| p.ends_with("kcluster")).chain(near).find(is).with_context(|| {
        format!(
            "there is no program kcluster near {}: cargo build -p pgconvoy-cluster, or set KCLUSTER_PROGRAM",
            own.display()
        )
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// `6.18.44-x` as numbers.
fn kernel(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Machine {
        Machine {
            uid: 0,
            capabilities: u64::MAX,
            kernel: (6, 1),
            overlayfs: true,
            cgroups: None,
            go: Some(go_needed()),
            free: (100 * GB, PathBuf::from("/p")),
            filesystem: "ext2/ext3".to_owned(),
            memory: 8 * GB,
        }
    }

    #[test]
    fn each_lack_is_one_sentence_with_its_cure() {
        let one = |machine: Machine, purpose: For| match &machine.complaints(purpose)[..] {
            [one] => one.clone(),
            other => panic!("{other:?}"),
        };
        for purpose in [For::Cluster, For::Build, For::Tool] {
            assert_eq!(good().complaints(purpose), Vec::<String>::new());
        }
        assert!(one(Machine { uid: 1000, capabilities: 0, ..good() }, For::Cluster).contains("sudo"));
        // CAP_SYS_ADMIN; CAP_SYS_RESOURCE is not needed.
        let told = one(Machine { capabilities: !(1 << 21 | 1 << 24), ..good() }, For::Cluster);
        assert!(told.contains("lacks CAP_SYS_ADMIN here") && told.contains("--privileged"), "{told}");
        assert!(one(Machine { kernel: (4, 19), ..good() }, For::Cluster).contains("5.10"));
        assert!(one(Machine { overlayfs: false, ..good() }, For::Cluster).contains("modprobe overlay"));
        assert!(one(Machine { cgroups: Some("no groups".to_owned()), ..good() }, For::Build).contains("no groups"));
        assert!(
            one(Machine { filesystem: "overlayfs".to_owned(), ..good() }, For::Cluster).contains("KCLUSTER_PREFIX")
        );
        assert!(one(Machine { memory: GB / 2, ..good() }, For::Cluster).contains("512 MB"));
        assert!(
            one(Machine { free: (3 * GB, PathBuf::from("/p")), ..good() }, For::Build).contains("3.0 GB free at /p")
        );
    }

    #[test]
    fn go_is_needed_for_building_alone() {
        let without = Machine { go: None, ..good() };
        assert!(without.complaints(For::Cluster).is_empty());
        assert!(without.complaints(For::Build)[0].contains("https://go.dev/dl"));
        let old = Machine { go: Some("1.19.8".to_owned()), ..good() };
        assert!(old.complaints(For::Tool)[0].contains("Go 1.19.8 is too old"));
        // A tool needs neither root nor control groups.
        assert!(Machine { uid: 1000, cgroups: Some(String::new()), ..good() }.complaints(For::Tool).is_empty());
    }

    #[test]
    fn a_cluster_too_many_is_told() {
        assert_eq!(too_few_watchers(3, 92, 128), None);
        let told = too_few_watchers(3, 93, 128).unwrap();
        assert!(told.contains("93 are in use") && told.contains("max_user_instances=1024"), "{told}");
        assert_eq!(too_few_watchers(1, 103, 128), None);
    }

    #[test]
    fn kernels_have_numbers() {
        assert_eq!(kernel("6.18.44-fc-v669\n"), (6, 18));
        assert_eq!(kernel("5.10-rc1"), (5, 10));
    }
}
