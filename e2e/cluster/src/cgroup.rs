//! The control groups of a cluster: `/kcluster-NAME/nN` for a node, below it `sys` for its own services and `kubepods`,
//! which is the kubelet's.
//!
//! Both kinds of machine are served: cgroup v1, where each controller has a hierarchy of its own, and v2, where there is one.

use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How this machine's control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// One directory per hierarchy. `unified` is the v2 hierarchy beside them, without controllers, if there is one.
    V1 {
        /// Hierarchies with controllers, or named ones.
        hierarchies: Vec<PathBuf>,
        /// See above.
        unified: Option<PathBuf>,
    },
    /// One hierarchy.
    V2 {
        /// Where.
        root: PathBuf,
    },
}

impl Cgroups {
    /// Looks at what is mounted at `root`, which is `/sys/fs/cgroup`.
    ///
    /// # Errors
    /// When there is neither kind, with what to do.
    pub fn detect(root: &Path) -> anyhow::Result<Self> {
        if root.join("cgroup.controllers").exists() {
            return Ok(Self::V2 { root: root.to_owned() });
        }
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        // `cpu` may be a link to `cpu,cpuacct`: one hierarchy.
        let folders: BTreeSet<_> = entries.filter_map(|e| e.path().canonicalize().ok()).collect();
        let mounted = folders.into_iter().filter(|f| f.join("cgroup.procs").exists());
        let (unified, hierarchies): (Vec<_>, Vec<_>) = mounted.partition(|f| f.ends_with("unified"));
        if !hierarchies.iter().any(|h| h.ends_with("freezer")) {
            bail!(
                "there are no control groups below {}: neither cgroup v2 (a file cgroup.controllers) nor v1 (a directory \
                 freezer). In a container, give it the host's: docker run --privileged --cgroupns=host",
                root.display()
            );
        }
        Ok(Self::V1 { hierarchies, unified: unified.into_iter().next() })
    }

    /// Makes the groups of a node, able to take processes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(&self, cluster: &str, node: &str) -> anyhow::Result<()> {
        let levels = [PathBuf::from(cluster), Path::new(cluster).join(node), Path::new(cluster).join(node).join("sys")];
        match self {
            Self::V1 { hierarchies, .. } => {
                for hierarchy in hierarchies {
                    for level in &levels {
                        make_v1(hierarchy, level)?;
                    }
                }
            }
            Self::V2 { root } => {
                let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                for (level, parent) in levels.iter().zip(["", cluster, levels[1].to_str().unwrap_or_default()]) {
                    // A group's controllers are what its parent passes on.
                    for controller in available.split_whitespace() {
                        let control = root.join(parent).join("cgroup.subtree_control");
                        // Some (rdma, misc) may not be passed on; the kubelet says which it misses.
                        drop(fs::write(control, format!("+{controller}")));
                    }
                    make(&root.join(level))?;
                }
            }
        }
        Ok(())
    }

    /// Puts a process into a node's group of services.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self, cluster: &str, node: &str, pid: u32) -> anyhow::Result<()> {
        for root in self.roots() {
            let file = root.join(cluster).join(node).join("sys/cgroup.procs");
            fs::write(&file, pid.to_string()).with_context(|| format!("cannot write to {}", file.display()))?;
        }
        Ok(())
    }

    /// Where processes are put.
    fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1 { hierarchies, .. } => hierarchies.iter().map(PathBuf::as_path).collect(),
            Self::V2 { root } => vec![root],
        }
    }

    /// Where groups of ours may be: a container runtime makes some in the hybrid hierarchy, too.
    fn everywhere(&self) -> Vec<&Path> {
        match self {
            Self::V1 { unified: Some(unified), .. } => [self.roots(), vec![unified]].concat(),
            _ => self.roots(),
        }
    }

    /// The hierarchy in which groups are frozen.
    fn freezer(&self) -> &Path {
        let mut roots = self.roots();
        roots.sort_by_key(|r| !r.ends_with("freezer"));
        roots.first().copied().unwrap_or_else(|| Path::new("/nonexistent"))
    }

    /// The group of a container, relative to its hierarchy.
    #[must_use]
    pub fn container(&self, cluster: &str, node: &str, id: &str) -> Option<PathBuf> {
        let pods = self.freezer().join(cluster).join(node).join("kubepods");
        let found = folders(&pods).into_iter().find(|f| f.ends_with(id))?;
        found.strip_prefix(self.freezer()).ok().map(Path::to_owned)
    }

    /// Processes of a group.
    #[must_use]
    pub fn processes(&self, group: &Path) -> Vec<i32> {
        let list = fs::read_to_string(self.freezer().join(group).join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Stops every process of a group and of those below it, or lets them go on. Better than SIGSTOP: nobody sees it, and it
    /// takes those that start meanwhile.
    ///
    /// # Errors
    /// When there is no such group, or it does not happen within 5 s.
    pub fn freeze(&self, group: &Path, frozen: bool) -> anyhow::Result<()> {
        let folder = self.freezer().join(group);
        let (file, word, told) = match self {
            Self::V1 { .. } => ("freezer.state", if frozen { "FROZEN" } else { "THAWED" }, "freezer.state"),
            Self::V2 { .. } => ("cgroup.freeze", if frozen { "1" } else { "0" }, "cgroup.events"),
        };
        fs::write(folder.join(file), word).with_context(|| format!("no group to freeze: {}", folder.display()))?;
        let limit = Instant::now() + Duration::from_secs(5);
        loop {
            let now = fs::read_to_string(folder.join(told)).unwrap_or_default();
            let is = match self {
                Self::V1 { .. } => now.trim() == word,
                Self::V2 { .. } => now.lines().any(|l| l.strip_prefix("frozen ") == Some(word)),
            };
            if is {
                return Ok(());
            }
            if Instant::now() > limit {
                bail!("{} is {} and not {word} after 5 s", folder.display(), now.trim());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes what a dead node's kubelet left; the next one would spend seconds on each dead container.
    pub fn clear_pods(&self, cluster: &str, node: &str) {
        for root in self.everywhere() {
            remove(&root.join(cluster).join(node).join("kubepods"));
        }
    }

    /// Removes the groups of a cluster.
    ///
    /// # Errors
    /// When one is still in use after 10 s.
    pub fn remove(&self, cluster: &str) -> anyhow::Result<()> {
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.of(cluster);
            let Some(first) = left.first() else { return Ok(()) };
            if Instant::now() > limit {
                bail!("control group {} is still in use after 10 s", first.display());
            }
            // A frozen process does not even die.
            if let Some(frozen) = left.iter().find(|f| f.starts_with(self.freezer())) {
                self.thaw_below(frozen);
            }
            left.iter().for_each(|folder| remove(folder));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The groups of a cluster, one per hierarchy that has it.
    #[must_use]
    pub fn of(&self, cluster: &str) -> Vec<PathBuf> {
        self.everywhere().into_iter().map(|r| r.join(cluster)).filter(|f| f.is_dir()).collect()
    }

    /// Lets everything in a group and in those below it go on.
    pub(crate) fn thaw(&self, group: &Path) {
        self.thaw_below(&self.freezer().join(group));
    }

    fn thaw_below(&self, folder: &Path) {
        let (file, word) = match self {
            Self::V1 { .. } => ("freezer.state", "THAWED"),
            Self::V2 { .. } => ("cgroup.freeze", "0"),
        };
        for group in folders(folder) {
            // Most are not frozen; one that is gone needs nothing.
            drop(fs::write(group.join(file), word));
        }
    }
}

/// In v1 a cpuset takes no process before it has processors and memory.
fn make_v1(hierarchy: &Path, level: &Path) -> anyhow::Result<()> {
    let folder = hierarchy.join(level);
    make(&folder)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(all) = fs::read(hierarchy.join(file)) {
            let target = folder.join(file);
            fs::write(&target, all).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the control group {}", folder.display()))
}

/// A directory and all below it, the innermost first.
fn folders(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    if top.is_dir() {
        for entry in fs::read_dir(top).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.extend(folders(&entry.path()));
            }
        }
        found.push(top.to_owned());
    }
    found
}

/// Removes what can be removed: one with processes stays.
fn remove(top: &Path) {
    for folder in folders(top) {
        drop(fs::remove_dir(folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, name: &str, content: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(root: &Path, name: &str) -> String {
        fs::read_to_string(root.join(name)).unwrap()
    }

    /// A machine with cgroup v1, as plain files.
    fn v1() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["freezer", "cpuset", "cpu,cpuacct", "unified"] {
            file(folder.path(), &format!("{name}/cgroup.procs"), "");
        }
        file(folder.path(), "cpuset/cpuset.cpus", "0-1");
        file(folder.path(), "cpuset/cpuset.mems", "0");
        std::os::unix::fs::symlink("cpu,cpuacct", folder.path().join("cpu")).unwrap();
        folder
    }

    /// A machine with cgroup v2, as plain files.
    fn v2() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "cgroup.controllers", "cpu memory pids");
        folder
    }

    #[test]
    fn both_kinds_are_told_apart() {
        let (one, two, none) = (v1(), v2(), tempfile::tempdir().unwrap());
        let Cgroups::V1 { hierarchies, unified } = Cgroups::detect(one.path()).unwrap() else { panic!("not v1") };
        assert_eq!(hierarchies.len(), 3, "a link is not another hierarchy: {hierarchies:?}");
        assert!(unified.unwrap().ends_with("unified"));
        assert_eq!(Cgroups::detect(two.path()).unwrap(), Cgroups::V2 { root: two.path().to_owned() });
        assert!(Cgroups::detect(none.path()).unwrap_err().to_string().contains("--cgroupns=host"));
    }

    #[test]
    fn groups_of_v1_get_their_processors_and_processes() {
        let folder = v1();
        let groups = Cgroups::detect(folder.path()).unwrap();
        groups.make("kcluster-a", "n1").unwrap();
        assert_eq!(read(folder.path(), "cpuset/kcluster-a/n1/sys/cpuset.cpus"), "0-1");
        assert!(!folder.path().join("unified/kcluster-a").exists());
        groups.join("kcluster-a", "n1", 42).unwrap();
        for name in ["freezer", "cpuset", "cpu"] {
            assert_eq!(read(folder.path(), &format!("{name}/kcluster-a/n1/sys/cgroup.procs")), "42");
        }
    }

    #[test]
    fn groups_of_v2_pass_controllers_on_and_keep_processes_in_leaves() {
        let folder = v2();
        let groups = Cgroups::detect(folder.path()).unwrap();
        groups.make("kcluster-a", "n1").unwrap();
        // Of plain files the last write stays.
        for level in ["", "kcluster-a/", "kcluster-a/n1/"] {
            assert_eq!(read(folder.path(), &format!("{level}cgroup.subtree_control")), "+pids");
        }
        assert!(!folder.path().join("kcluster-a/n1/sys/cgroup.subtree_control").exists(), "a leaf passes nothing on");
        groups.join("kcluster-a", "n1", 42).unwrap();
        assert_eq!(read(folder.path(), "kcluster-a/n1/sys/cgroup.procs"), "42");
    }

    #[test]
    fn a_group_freezes_as_its_kind_does() {
        let (one, two) = (v1(), v2());
        file(one.path(), "freezer/kcluster-a/n1/freezer.state", "THAWED");
        Cgroups::detect(one.path()).unwrap().freeze(Path::new("kcluster-a/n1"), true).unwrap();
        assert_eq!(read(one.path(), "freezer/kcluster-a/n1/freezer.state"), "FROZEN");

        file(two.path(), "kcluster-a/n1/cgroup.events", "populated 1\nfrozen 1\n");
        let groups = Cgroups::detect(two.path()).unwrap();
        groups.freeze(Path::new("kcluster-a/n1"), true).unwrap();
        assert_eq!(read(two.path(), "kcluster-a/n1/cgroup.freeze"), "1");
        let late = groups.freeze(Path::new("kcluster-a/n1"), false).unwrap_err().to_string();
        assert!(late.contains("after 5 s"), "{late}");
        assert!(groups.freeze(Path::new("kcluster-b"), true).is_err());
    }

    #[test]
    fn a_container_is_found_by_its_id() {
        let (one, two) = (v1(), v2());
        file(one.path(), "freezer/kcluster-a/n1/kubepods/burstable/pod1/abc/cgroup.procs", "7\n8\n");
        let groups = Cgroups::detect(one.path()).unwrap();
        let found = groups.container("kcluster-a", "n1", "abc").unwrap();
        assert_eq!(groups.processes(&found), [7, 8]);
        assert_eq!(groups.container("kcluster-a", "n2", "abc"), None);
        assert_eq!(groups.container("kcluster-a", "n1", "ab"), None);

        file(two.path(), "kcluster-a/n1/kubepods/pod1/abc/cgroup.procs", "9\n");
        let groups = Cgroups::detect(two.path()).unwrap();
        assert_eq!(groups.container("kcluster-a", "n1", "abc").unwrap(), Path::new("kcluster-a/n1/kubepods/pod1/abc"));
    }

    #[test]
    fn only_the_clusters_own_groups_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "freezer/cgroup.procs", "");
        for cluster in ["kcluster-a", "kcluster-ab"] {
            fs::create_dir_all(folder.path().join("freezer").join(cluster).join("n1/kubepods/pod")).unwrap();
        }
        let groups = Cgroups::detect(folder.path()).unwrap();
        groups.clear_pods("kcluster-ab", "n1");
        assert!(!folder.path().join("freezer/kcluster-ab/n1/kubepods").exists());
        // Without these files, which thawing leaves in a plain directory.
        for entry in ["kcluster-a/n1/kubepods/pod", "kcluster-a/n1/kubepods", "kcluster-a/n1", "kcluster-a"] {
            fs::remove_dir(folder.path().join("freezer").join(entry)).unwrap();
        }
        groups.remove("kcluster-a").unwrap();
        assert_eq!(groups.of("kcluster-a"), Vec::<PathBuf>::new());
        assert_eq!(groups.of("kcluster-ab").len(), 1);
    }
}
