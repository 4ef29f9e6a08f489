//! Services without a kernel's help: a listener at each Service's address, which leads to one of its endpoints.

use super::Shared;
use crate::api::select::Selector;
use crate::api::{Api, text};
use crate::machine::Word;
use serde_json::Value;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The Services that are listened for.
#[derive(Default)]
pub(super) struct Services {
    known: HashMap<SocketAddr, Port>,
}

struct Port {
    endpoints: watch::Sender<Vec<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Services {
    /// Listens for new Services, no longer for those that are gone, and follows the endpoints of all.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>) {
        let wanted = shared.server.with(|api| wanted(api));
        self.known.retain(|at, _| wanted.iter().any(|(w, ..)| w == at));
        for (at, endpoints, what) in wanted {
            if let Some(port) = self.known.get(&at) {
                port.endpoints.send_if_modified(|old| {
                    let changed = *old != endpoints;
                    *old = endpoints;
                    changed
                });
                continue;
            }
            let (sender, receiver) = watch::channel(endpoints);
            let task = tokio::spawn(listen(at, receiver));
            self.known.insert(at, Port { endpoints: sender, task });
            // The same Service has an address of the machine's loopback network, for people.
            if let IpAddr::V4(ip) = at.ip() {
                let [_, b, c, d] = ip.octets();
                let outside = SocketAddr::new(Ipv4Addr::new(127, b, c, d).into(), at.port());
                let _ = shared.words.send(Word::Listen { at: outside, to: at, what });
            }
        }
    }
}

/// Address and port of each Service that has no selector, and what its slices lead to.
fn wanted(api: &Api) -> Vec<(SocketAddr, Vec<SocketAddr>, String)> {
    let list = |group: &str, plural: &str| {
        let kind = api.kind(group, "v1", plural);
        let page = kind.and_then(|k| api.list(&k, None, &Selector::default(), 0, "").ok());
        page.map(|p| p.items).unwrap_or_default()
    };
    let slices = list("discovery.k8s.io", "endpointslices");
    let mut all = vec![];
    for service in list("", "services") {
        let (namespace, name) = (text(&service, "/metadata/namespace"), text(&service, "/metadata/name"));
        let Ok(ip) = text(&service, "/spec/clusterIP").parse::<IpAddr>() else { continue };
        if name == "kubernetes" && namespace == "default" {
            continue;
        }
        for port in service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
            let Some(number) = port["port"].as_u64().and_then(|p| u16::try_from(p).ok()) else { continue };
            let own = slices.iter().filter(|s| {
                s["metadata"]["labels"]["kubernetes.io/service-name"] == name
                    && text(s, "/metadata/namespace") == namespace
            });
            let endpoints = own.flat_map(|s| endpoints(s, &port["name"])).collect();
            all.push((SocketAddr::new(ip, number), endpoints, format!("{namespace}/{name}")));
        }
    }
    all
}

fn endpoints(slice: &Value, port: &Value) -> Vec<SocketAddr> {
    let same = |p: &&Value| p["name"].as_str().unwrap_or_default() == port.as_str().unwrap_or_default();
    let number = slice["ports"].as_array().into_iter().flatten().find(same).and_then(|p| p["port"].as_u64());
    let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { return vec![] };
    let ready = |e: &&Value| e.pointer("/conditions/ready") != Some(&Value::Bool(false));
    let address = |e: &Value| e.pointer("/addresses/0")?.as_str()?.parse().ok();
    let list = slice["endpoints"].as_array().into_iter().flatten().filter(ready).filter_map(address);
    list.map(|ip: IpAddr| SocketAddr::new(ip, number)).collect()
}

async fn listen(at: SocketAddr, endpoints: watch::Receiver<Vec<SocketAddr>>) {
    let listener = match TcpListener::bind(at).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%at, %error, "the Service's address cannot be had");
            return;
        }
    };
    let mut turn = 0_usize;
    while let Ok((mut client, _)) = listener.accept().await {
        let list = endpoints.borrow().clone();
        turn = turn.wrapping_add(1);
        // Nobody there: the connection is refused as far as that is still possible.
        let Some(to) = list.get(turn % list.len().max(1)).copied() else { continue };
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(to).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
