//! The CSI driver and what stands between it and Kubernetes, out of a Go module of their own, on demand.

use super::debian;
use super::programs::{Module, SMALL, Step, go};
use crate::store::stamp;
use crate::{Store, host, run};
use anyhow::{Context, ensure};
use std::fs::{self, File};
use std::path::PathBuf;

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../csi/", $name)))
    };
}

const MODULE: Module = Module {
    name: "csi",
    files: &[
        file!("go.mod"),
        file!("go.sum"),
        file!("main.go"),
        file!("disks.go"),
        file!("controller.go"),
        file!("node.go"),
    ],
};

/// Programs that other modules hold.
const SIDECARS: [&str; 5] = [
    "external-attacher/v4/cmd/csi-attacher",
    "external-provisioner/v6/cmd/csi-provisioner",
    "external-resizer/v2/cmd/csi-resizer",
    "external-snapshotter/v8/cmd/csi-snapshotter",
    "external-snapshotter/v8/cmd/snapshot-controller",
];

/// Where they are or will be: named by their content.
pub(super) fn folder(store: &Store) -> PathBuf {
    store.path("csi").join(stamp(MODULE.files.iter().map(|(_, text)| *text)))
}

/// The directory of the programs, if they are built.
///
/// # Errors
/// When they are not.
pub fn built(store: &Store) -> anyhow::Result<PathBuf> {
    let folder = folder(store);
    ensure!(folder.join("ok").exists(), "the CSI driver is not built yet: kcluster build csi");
    Ok(folder)
}

/// Makes what is missing of the CSI driver; gives the directory of its programs.
///
/// # Errors
/// With what is missing on this machine, or with the end of the log of what failed.
pub fn make(store: &Store) -> anyhow::Result<PathBuf> {
    let folder = folder(store);
    if folder.join("ok").exists() {
        return Ok(folder);
    }
    host::check(&host::Machine::look(store), host::For::Tool)?;
    let lock = store.lock("csi.lock")?;
    lock.lock().context("cannot wait for another build")?;
    if folder.join("ok").exists() {
        return Ok(folder);
    }
    debian::packages(store, &["xfsprogs"])?;
    let crds = folder.join("crds");
    fs::create_dir_all(&crds).with_context(|| format!("cannot make {}", crds.display()))?;
    let step = Step { store, bin: &folder, module: &MODULE, flags: SMALL };
    step.once("csi", 220, "CSI driver and sidecars", |step| {
        step.go("csi-disk", &["."], &[])?;
        let sidecars = SIDECARS.map(|path| format!("github.com/kubernetes-csi/{path}"));
        step.go("", &sidecars.each_ref().map(String::as_str), &[])?;
        // The resources of snapshots come with the client of theirs.
        let client = "github.com/kubernetes-csi/external-snapshotter/client/v8";
        let mut list = go();
        let from = run::done(list.current_dir(step.source).args(["list", "-m", "-f", "{{.Dir}}", client]), "")?;
        for kind in ["volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots"] {
            let name = format!("snapshot.storage.k8s.io_{kind}.yaml");
            let from = PathBuf::from(from.trim()).join("config/crd").join(&name);
            let text = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            fs::write(crds.join(name), text).context("cannot write a resource's definition")?;
        }
        Ok(())
    })?;
    File::create(folder.join("ok")).context("cannot mark the build as done")?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sidecar_is_a_tool_of_the_module() {
        let (_, go_mod) = MODULE.files[0];
        for path in SIDECARS {
            assert!(go_mod.contains(&format!("\tgithub.com/kubernetes-csi/{path}\n")), "{path}");
        }
    }

    #[test]
    fn every_source_file_is_carried() {
        let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/csi")).unwrap().flatten();
        for file in files.map(|f| f.file_name().into_string().unwrap()) {
            assert!(MODULE.files.iter().any(|(name, _)| *name == file), "{file}");
        }
    }
}
