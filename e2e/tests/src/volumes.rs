//! Volumes that can be filled without harm to anybody else: small file systems of their own on each node.

use crate::{Namespace, Output};
use anyhow::ensure;
use serde_json::json;

/// Persistent volumes on small file systems, one on each node, and their storage class. They go when this is dropped.
#[derive(Debug)]
pub struct SmallVolumes<'a> {
    namespace: &'a Namespace,
    /// The storage class: the namespace's name.
    pub class: String,
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Beside the volumes of everybody else, so that it goes with the cluster whatever happens.
const PLACE: &str = "/opt/local-path-provisioner";

impl<'a> SmallVolumes<'a> {
    /// Makes them, each of so many MiB.
    ///
    /// # Errors
    /// When a file system cannot be made or mounted.
    pub fn make(namespace: &'a Namespace, mebibytes: u32) -> anyhow::Result<Self> {
        let class = namespace.name.clone();
        let volumes = Self { namespace, class: class.clone() };
        let mut objects = vec![json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": class },
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
        })];
        for node in NODES {
            let script = format!(
                "set -e; cd {PLACE}; truncate -s {mebibytes}M {class}.img; mkfs.ext4 -q -m 0 {class}.img; mkdir {class}
                 mount -o loop {class}.img {class}"
            );
            let made = volumes.on(node, &script)?;
            ensure!(made.ok, "no small file system on {node}: {}", made.stderr);
            objects.push(json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": format!("{class}-{node}") },
                "spec": {
                    "capacity": { "storage": format!("{mebibytes}Mi") }, "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain", "storageClassName": class,
                    "local": { "path": format!("{PLACE}/{class}") },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                        { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] },
                    ] }] } },
                },
            }));
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        namespace.cluster().kubectl(&["create", "-f", "-"], &list.to_string())?;
        Ok(volumes)
    }

    /// Has the volume of this node take nothing more until [`SmallVolumes::thaw`], as a disk that hangs: whoever writes waits.
    ///
    /// # Errors
    /// When the file system cannot be frozen.
    pub fn freeze(&self, node: &str) -> anyhow::Result<()> {
        let frozen = self.on(node, &format!("timeout 20 fsfreeze --freeze {PLACE}/{}", self.class))?;
        ensure!(frozen.ok, "the volume of {node} cannot be frozen: {}", frozen.stderr);
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it was not frozen.
    pub fn thaw(&self, node: &str) -> anyhow::Result<()> {
        let thawed = self.on(node, &format!("fsfreeze --unfreeze {PLACE}/{}", self.class))?;
        ensure!(thawed.ok, "the volume of {node} cannot be thawed: {}", thawed.stderr);
        Ok(())
    }

    fn on(&self, node: &str, script: &str) -> anyhow::Result<Output> {
        self.namespace.cluster().bed().node_named(node)?.run(&["sh", "-c", script], "")
    }
}

impl Drop for SmallVolumes<'_> {
    fn drop(&mut self) {
        // What fails here goes with the cluster.
        let class = &self.class;
        let names = NODES.map(|node| format!("pv/{class}-{node}"));
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let class_too = format!("storageclass/{class}");
        let delete = [&["delete", "--wait=false", &class_too], &names[..]].concat();
        drop(self.namespace.cluster().try_kubectl(&delete, ""));
        for node in NODES {
            let script = format!(
                "cd {PLACE}; fsfreeze --unfreeze {class} 2> /dev/null; umount -l {class}; rmdir {class}; rm -f {class}.img"
            );
            drop(self.on(node, &script));
        }
    }
}
