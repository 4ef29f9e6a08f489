//! The CSI driver in a cluster: one part in the control plane with its sidecars, one on each node. The driver itself is in
//! `csi/`, in Go.

use crate::control::Component;
use crate::node::Place;
use crate::options::Options;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The file in the cluster's directory that tells where the programs are.
pub(crate) const PROGRAMS: &str = "csi";
/// The directory of the volumes.
pub(crate) const VOLUMES: &str = "disks";
/// The driver's socket on a node, in the kubelet's directory. Short: a socket's path has 107 bytes at most.
const SOCKET: &str = "disk.sock";

/// Where the programs of this cluster are.
pub(crate) fn programs(state: &Path) -> anyhow::Result<PathBuf> {
    let path = std::fs::read_to_string(state.join(PROGRAMS));
    path.map(PathBuf::from).context("this cluster has no CSI driver: it was brought up without --csi")
}

/// What a component of the control plane is told.
pub(crate) fn arguments(component: Component, state: &Path, options: &Options) -> Vec<String> {
    let (state, folder) = (state.display(), state.join(VOLUMES));
    let folder = folder.display();
    if component == Component::CsiDisk {
        return vec![
            format!("--folder={folder}"),
            format!("--endpoint={folder}/csi.sock"),
            format!("--nodes={state}/%s/kubelet/{SOCKET}"),
        ];
    }
    let mut words = vec![format!("--kubeconfig={state}/pki/csi.kubeconfig"), format!("--v={}", options.verbosity)];
    // A copy of a large volume takes its time; what failed is tried again soon, because here people wait for it.
    words.push("--retry-interval-max=5s".to_owned());
    if component != Component::SnapshotController {
        words.push(format!("--csi-address={folder}/csi.sock"));
        words.push("--timeout=60s".to_owned());
    }
    if matches!(component, Component::CsiSnapshotter | Component::SnapshotController) {
        // Its resources are not there, and it would wait half a minute for them.
        words.push("--feature-gates=CSIVolumeGroupSnapshot=false".to_owned());
    }
    if component == Component::CsiProvisioner {
        // Without it, a claim that names no file system asks for none.
        words.push("--default-fstype=xfs".to_owned());
    }
    words
}

/// What the driver on a node is told.
pub(crate) fn node_arguments(place: &Place) -> Vec<String> {
    vec![
        format!("--folder={}", place.state.join(VOLUMES).display()),
        format!("--node={}", place.name()),
        format!("--endpoint=/var/lib/kubelet/{SOCKET}"),
        "--registration=/var/lib/kubelet/plugins_registry/disk-reg.sock".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_of_the_driver_meet() {
        let state = Path::new("/p/clusters/a");
        let controller = arguments(Component::CsiDisk, state, &Options::default());
        let node = node_arguments(&Place::of(state.to_owned(), 2));
        assert_eq!(controller[0], node[0]);
        // A node's /var/lib/kubelet is its directory's `kubelet`.
        let socket = node[2].strip_prefix("--endpoint=/var/lib/kubelet/").unwrap();
        assert_eq!(controller[2], format!("--nodes=/p/clusters/a/%s/kubelet/{socket}"));
        let sidecar = arguments(Component::CsiResizer, state, &Options::default());
        assert!(sidecar.contains(&controller[1].replace("--endpoint", "--csi-address")), "{sidecar:?}");
    }
}
