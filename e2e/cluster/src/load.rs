//! Images on nodes.

use crate::{Cluster, build, run};
use anyhow::{Context, anyhow, ensure};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

impl Cluster {
    /// Puts image archives (OCI or docker) on all nodes that are on, at once. An image that comes again under its name is
    /// used by pods that are made after that.
    ///
    /// # Errors
    /// When an archive is bad, or no node is on.
    pub fn load(&self, archives: &[impl AsRef<Path> + Sync]) -> anyhow::Result<()> {
        for archive in archives {
            File::open(archive).with_context(|| format!("cannot read {}", archive.as_ref().display()))?;
        }
        let nodes: Vec<_> = self.nodes()?.into_iter().filter(|n| n.is_on()).collect();
        ensure!(!nodes.is_empty(), "no node of cluster {} is on", self.name());
        std::thread::scope(|scope| {
            let all: Vec<_> = nodes
                .iter()
                .map(|node| {
                    scope.spawn(move || {
                        for archive in archives {
                            let path = archive.as_ref();
                            let mut ctr = node.ctr(&["images", "import", "-"])?;
                            let out = ctr.stdin(File::open(path)?).stdout(Stdio::null()).output()?;
                            let said = String::from_utf8_lossy(&out.stderr);
                            ensure!(out.status.success(), "{} on {}: {}", path.display(), node.name(), said.trim());
                        }
                        Ok(())
                    })
                })
                .collect();
            all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
        })
    }

    /// Gives an image that all nodes have another name there: the next version, say.
    ///
    /// # Errors
    /// When a node does not have it.
    pub fn tag(&self, image: &str, name: &str) -> anyhow::Result<()> {
        for node in self.nodes()? {
            let out = node.ctr(&["images", "tag", "--force", image, name])?.output()?;
            let said = String::from_utf8_lossy(&out.stderr);
            ensure!(out.status.success(), "{image} on {}: {}", node.name(), said.trim());
        }
        Ok(())
    }

    /// Makes an image of a root file system, a directory or a tar archive, and puts it on all nodes. `name` is the full one,
    /// `docker.io/local/mine:1`; `options` are those of `images/oci.py`, e.g. `--entrypoint /bin/mine`.
    ///
    /// # Errors
    /// As [`Cluster::load`].
    pub fn load_root(&self, name: &str, root: &Path, options: &[&str]) -> anyhow::Result<()> {
        let work = self.folder().join(format!("load-{}", std::process::id()));
        std::fs::create_dir_all(&work).context("cannot make a directory")?;
        let made = build::images::archive(name, root, &work, options).and_then(|()| self.load(&[work.join("image")]));
        std::fs::remove_dir_all(&work).context("cannot remove the image's archive")?;
        made
    }
}

/// Writes an image archive of a root file system, a directory or a tar archive, to `out`.
///
/// # Errors
/// When python3 or tar fail.
pub fn pack(name: &str, root: &Path, out: &Path, options: &[&str]) -> anyhow::Result<()> {
    let mut work = out.as_os_str().to_owned();
    work.push(".part");
    let work = Path::new(&work);
    std::fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
    let made = build::images::archive(name, root, work, options).and_then(|()| {
        // Across file systems as well.
        run::done(std::process::Command::new("mv").arg(work.join("image")).arg(out), "").map(drop)
    });
    std::fs::remove_dir_all(work).context("cannot remove the directory of the image's parts")?;
    made
}
