//! Files that the program carries, so that it needs no clone to lie beside it, and what components read at start.

use crate::net;
use crate::node::Place;
use crate::options::Options;
use std::path::Path;

/// The Services, roles and the storage class that a new cluster gets.
pub(crate) const BASE: &str = include_str!("../manifests/base.yaml");
/// The CSI driver, its roles and its classes.
pub(crate) const CSI: &str = include_str!("../manifests/csi.yaml");
/// Holds packets back: the kernel may lack netem.
pub(crate) const DELAY: &str = include_str!("../nfq_delay.py");
/// Writes an image archive from root file systems.
pub(crate) const OCI: &str = include_str!("../../../images/oci.py");
/// Makes a PostgreSQL image's root file system of a Debian one.
pub(crate) const POSTGRES: &str = include_str!("../postgres-rootfs.py");
/// A program that sleeps.
pub(crate) const PAUSE: &str = include_str!("../pause.c");

/// Where the volume provisioner puts volumes on a node.
pub(crate) const VOLUMES: &str = "/opt/local-path-provisioner";
/// containerd's socket on a node.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where a node's network plugins are configured.
const CNI: &str = "/run/cni/net.d";

/// The directory of [`cni`]'s file.
pub(crate) fn cni_folder() -> &'static Path {
    Path::new(CNI)
}

/// CoreDNS.
pub(crate) fn corefile(pki: &Path) -> String {
    let api = net::API;
    format!(
        ".:53 {{
  bind {api}
  errors
  health {api}:8080
  ready {api}:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {}/coredns.kubeconfig
    pods verified
    ttl 5
  }}
  cache 5
}}
",
        pki.display()
    )
}

/// The volume provisioner.
pub(crate) fn volumes() -> String {
    format!(r#"{{"nodePathMap":[{{"node":"DEFAULT_PATH_FOR_NON_LISTED_NODES","paths":["{VOLUMES}"]}}]}}"#)
}

/// containerd on a node. Without CAP_SYS_RESOURCE runc may not lower anyone's OOM score, and dies with a message about
/// something else: hence `restrict_oom_score_adj`.
pub(crate) fn containerd(place: &Place, bin: &Path) -> String {
    let (folder, bin) = (place.folder.display(), bin.display());
    format!(
        r#"version = 3
root = "{folder}/root"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "docker.io/local/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{bin}/cni"]
    conf_dir = "{CNI}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{bin}/runc"
      SystemdCgroup = false
"#
    )
}

/// The network of a node's pods: a bridge; the switch knows the way to other nodes.
pub(crate) fn cni(node: u8) -> String {
    format!(
        r#"{{"cniVersion":"1.0.0","name":"kcluster","plugins":[
 {{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,"ipam":{{"type":"host-local","ranges":[[{{"subnet":"{}"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},
 {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}
"#,
        net::pods_of(node)
    )
}

/// Feature gates of the kubelet, as YAML.
fn gates(options: &Options) -> String {
    let mut gates = options.feature_gates.replace('=', ": ");
    // On by default since 1.35.
    if options.kubernetes == "1.34"
        && !options.crash_backoff.is_empty()
        && !gates.contains("KubeletCrashLoopBackOffMax")
    {
        gates += if gates.is_empty() { "" } else { "," };
        gates += "KubeletCrashLoopBackOffMax: true";
    }
    gates
}

/// The kubelet of a node.
pub(crate) fn kubelet(place: &Place, options: &Options) -> String {
    let pki = place.state.join("pki");
    let (pki, name, group) = (pki.display(), place.name(), place.group());
    let dns = net::DNS_SERVICE;
    let mut text = format!(
        "kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
failCgroupV1: false
containerRuntimeEndpoint: unix://{CONTAINERD}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {pki}/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {pki}/{name}-server.crt
tlsPrivateKeyFile: {pki}/{name}-server.key
cgroupDriver: cgroupfs
cgroupRoot: /{group}/{name}
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
protectKernelDefaults: true
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [{dns}]
resolvConf: \"\"
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%, imagefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
podLogsDir: /var/log/pods
featureGates: {{{}}}
",
        gates(options)
    );
    if !options.crash_backoff.is_empty() {
        text += &format!("crashLoopBackOff: {{maxContainerRestartPeriod: {}}}\n", options.crash_backoff);
    }
    if let Some(seconds) = options.node_lease {
        text += &format!("nodeLeaseDurationSeconds: {seconds}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_kubelet() {
        let place = Place::of("/p/clusters/a".into(), 2);
        let plain = kubelet(&place, &Options::default());
        assert!(plain.contains("cgroupRoot: /kcluster-a/n2\n") && plain.contains("featureGates: {}\n"), "{plain}");
        assert!(!plain.contains("crashLoopBackOff") && !plain.contains("nodeLease"), "{plain}");
        let options = Options { feature_gates: "A=true,B=false".to_owned(), ..Options::impatient() };
        let text = kubelet(&place, &options);
        assert!(text.contains("featureGates: {A: true,B: false}\n"), "{text}");
        assert!(
            text.contains("crashLoopBackOff: {maxContainerRestartPeriod: 1s}\nnodeLeaseDurationSeconds: 4\n"),
            "{text}"
        );
        // Kubernetes 1.34 knows it, and does not do it by itself.
        let older = gates(&Options { kubernetes: "1.34".to_owned(), ..options });
        assert_eq!(older, "A: true,B: false,KubeletCrashLoopBackOffMax: true");
    }
}
