//! Where the members' pods are: watched, and kept on the volume for the time when the API is away.

use super::watching::{Watching, follow};
use super::{Metrics, remembered};
use crate::settings::{Addresses, Identity};
use k8s_openapi::api::core::v1 as core;
use kube::api::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use pgconvoy_crds::names::LABEL_SET;
use pgconvoy_terms::MemberName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// One member's pod, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// Its addresses, the first family of the cluster first.
    pub ips: Vec<IpAddr>,
    /// Its UID; `None` when it is known from the volume only.
    pub uid: Option<String>,
    /// The node it runs on.
    pub node: Option<String>,
}

/// The pods of the set, by member.
pub type Pods = BTreeMap<MemberName, Pod>;

/// File in the state directory with the last known addresses.
const FILE: &str = "peers.json";

/// Watches the set's pods. `addresses` and `pods` first show what the volume remembers; the last known address of a
/// member stays while its pod is gone or has none.
pub fn watch_pods(
    client: Client,
    me: &Identity,
    addresses: watch::Sender<Addresses>,
    pods: watch::Sender<Pods>,
    metrics: Metrics,
) -> JoinHandle<()> {
    let api: Api<SlimPod> = Api::namespaced(client, &me.namespace);
    let config = watcher::Config::default().labels(&format!("{LABEL_SET}={}", me.member.set()));
    let remembered = read(&me.paths.state.join(FILE));
    let mut watching = Watch {
        set: me.member.set().to_owned(),
        file: me.paths.state.join(FILE),
        known: remembered.iter().map(|(m, ip)| (m.clone(), Pod { ips: vec![*ip], uid: None, node: None })).collect(),
        saved: remembered,
        addresses,
        pods,
    };
    watching.known.entry(me.member.clone()).or_default().ips = vec![me.pod_ip];
    watching.show();
    tokio::spawn(follow(api, config, "the set's pods", metrics, watching))
}

/// A pod, as little of it as is needed: whatever else is in it cannot fail to parse.
#[derive(Debug, Clone, Resource, Deserialize, Serialize)]
#[resource(inherit = core::Pod)]
struct SlimPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimSpec {
    node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<SlimIp>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct SlimIp {
    ip: Option<String>,
}

struct Watch {
    set: String,
    file: PathBuf,
    known: Pods,
    saved: Addresses,
    addresses: watch::Sender<Addresses>,
    pods: watch::Sender<Pods>,
}

impl Watching<SlimPod> for Watch {
    async fn take(&mut self, event: Event<SlimPod>) {
        match event {
            Event::Apply(pod) => {
                self.learn(&pod);
                self.show();
            }
            Event::InitApply(pod) => self.learn(&pod),
            Event::InitDone => self.show(),
            // The last known address stays: the container may run on, or come back.
            Event::Init | Event::Delete(_) => {}
        }
    }
}

impl Watch {
    fn learn(&mut self, pod: &SlimPod) {
        let name = pod.metadata.name.as_deref().and_then(|n| n.parse::<MemberName>().ok());
        let Some(member) = name.filter(|m| m.set() == self.set) else { return };
        let ips = pod.status.pod_ips.iter().filter_map(|i| i.ip.as_deref()).chain(pod.status.pod_ip.as_deref());
        let mut parsed: Vec<IpAddr> = vec![];
        for ip in ips.filter_map(|i| i.parse().ok()) {
            if !parsed.contains(&ip) {
                parsed.push(ip);
            }
        }
        if parsed.is_empty() {
            return;
        }
        let pod = Pod { ips: parsed, uid: pod.metadata.uid.clone(), node: pod.spec.node_name.clone() };
        self.known.insert(member, pod);
    }

    fn show(&mut self) {
        let addresses: Addresses = self.known.iter().filter_map(|(m, p)| Some((m.clone(), *p.ips.first()?))).collect();
        if addresses != self.saved {
            match write(&self.file, &addresses) {
                Ok(()) => self.saved = addresses.clone(),
                Err(why) => tracing::warn!(
                    "the peers' addresses cannot be written to {}: {why}; a restart while the API is away would not \
                     know them",
                    self.file.display()
                ),
            }
        }
        self.addresses.send_if_modified(|a| std::mem::replace(a, addresses.clone()) != addresses);
        self.pods.send_if_modified(|p| std::mem::replace(p, self.known.clone()) != self.known);
    }
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    addresses: BTreeMap<String, IpAddr>,
}

/// A hint only: TLS says who really answers.
fn read(file: &Path) -> Addresses {
    let known = remembered::read::<Remembered>(file).map(|r| r.addresses).unwrap_or_default();
    known.into_iter().filter_map(|(m, ip)| Some((m.parse().ok()?, ip))).collect()
}

fn write(file: &Path, addresses: &Addresses) -> io::Result<()> {
    let addresses = addresses.iter().map(|(m, ip)| (m.to_string(), *ip)).collect();
    remembered::write(file, &Remembered { addresses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn m(n: u32) -> MemberName {
        MemberName::new("orders", n)
    }

    fn pod(name: &str, ips: &[&str]) -> SlimPod {
        let ips: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "uid": format!("uid-{name}") },
            "spec": { "nodeName": "n1", "containers": "not even a list" },
            "status": { "podIPs": ips, "phase": 7 },
        }))
        .unwrap()
    }

    fn watch_in(dir: &Path) -> (Watch, watch::Receiver<Addresses>, watch::Receiver<Pods>) {
        let (addresses, a) = watch::channel(Addresses::new());
        let (pods, p) = watch::channel(Pods::new());
        let file = dir.join("state").join(FILE);
        let saved = read(&file);
        (Watch { set: "orders".into(), file, known: Pods::new(), saved, addresses, pods }, a, p)
    }

    #[tokio::test]
    async fn the_last_known_address_stays_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (mut w, a, p) = watch_in(dir.path());
        w.take(Event::Init).await;
        w.take(Event::InitApply(pod("orders-1", &["10.0.0.1", "fd00::1"]))).await;
        w.take(Event::InitApply(pod("orders-2", &[]))).await;
        w.take(Event::InitApply(pod("someone-else", &["10.0.0.9"]))).await;
        w.take(Event::InitApply(pod("other-3", &["10.0.0.8"]))).await;
        assert!(a.borrow().is_empty(), "not before the list is complete");
        w.take(Event::InitDone).await;
        assert_eq!(*a.borrow(), Addresses::from([(m(1), "10.0.0.1".parse().unwrap())]));
        assert_eq!(p.borrow()[&m(1)].ips.len(), 2);
        assert_eq!(p.borrow()[&m(1)].node.as_deref(), Some("n1"));
        w.take(Event::Apply(pod("orders-2", &["10.0.0.2"]))).await;
        w.take(Event::Delete(pod("orders-1", &["10.0.0.1"]))).await;
        w.take(Event::Apply(pod("orders-1", &[]))).await;
        let both = Addresses::from([(m(1), "10.0.0.1".parse().unwrap()), (m(2), "10.0.0.2".parse().unwrap())]);
        assert_eq!(*a.borrow(), both);
        assert_eq!(read(&w.file), both, "on the volume too");
        w.take(Event::Apply(pod("orders-1", &["10.0.0.7"]))).await;
        assert_eq!(a.borrow()[&m(1)], "10.0.0.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        assert!(read(&file).is_empty());
        for bad in [
            "",
            "{",
            r#"{"version":2,"addresses":{"orders-1":"10.0.0.1"}}"#,
            r#"{"version":1,"addresses":{"orders-1":"x"}}"#,
        ] {
            fs::write(&file, bad).unwrap();
            assert!(read(&file).is_empty(), "{bad}");
        }
        // As version 1 wrote it: must stay readable.
        fs::write(&file, r#"{"version":1,"addresses":{"orders-1":"10.0.0.1","orders-2":"fd00::2"}}"#).unwrap();
        assert_eq!(read(&file).len(), 2);
    }
}
