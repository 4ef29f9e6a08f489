//! Where the Services lead: written into EndpointSlices by the leader's agent, with the epoch that says so.

use super::error::call;
use super::{About, ApiError, Events, Metrics, Pod, Pods};
use crate::settings::Identity;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::PostParams;
use kube::{Api, Client};
use pgconvoy_crds::names::{ANNOTATION_EPOCH, Service};
use pgconvoy_ha::Publication;
use pgconvoy_terms::{Epoch, MemberName};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pause after a failed attempt, doubling up to [`LONGEST`].
const AGAIN: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(2);
/// How often slices are looked at when nothing changed: somebody may have edited them, or an operator made them anew.
const LOOK: Duration = Duration::from_secs(30);
/// Name of the slices' port.
const PORT_NAME: &str = "postgres";

/// Keeps the set's EndpointSlices as `publication` says, while it says anything. A slice of a later epoch is never
/// touched. The task ends only when the sender of `publication` is dropped.
pub fn publish(
    client: Client,
    me: &Identity,
    publication: watch::Receiver<Option<Publication>>,
    pods: watch::Receiver<Pods>,
    events: Events,
    metrics: Metrics,
) -> JoinHandle<()> {
    let publisher = Publisher {
        api: Api::namespaced(client, &me.namespace),
        set: me.member.set().to_owned(),
        namespace: me.namespace.clone(),
        port: me.postgres_port,
        events,
        metrics,
    };
    tokio::spawn(publisher.run(publication, pods))
}

struct Publisher {
    api: Api<EndpointSlice>,
    set: String,
    namespace: String,
    port: u16,
    events: Events,
    metrics: Metrics,
}

impl Publisher {
    async fn run(self, mut publication: watch::Receiver<Option<Publication>>, mut pods: watch::Receiver<Pods>) {
        let mut failures = 0_u32;
        loop {
            let wanted = publication.borrow_and_update().clone();
            let known = pods.borrow_and_update().clone();
            let mut pause = LOOK;
            if let Some(wanted) = wanted {
                // The leader first: what comes just behind another change, proxies take up a second later.
                let first = self.service(Service::Rw, &wanted, &known).await;
                let others = Service::ALL.into_iter().filter(|s| *s != Service::Rw);
                let done = futures::future::join_all(others.map(|s| self.service(s, &wanted, &known))).await;
                if first && done.iter().all(|d| *d) {
                    failures = 0;
                } else {
                    pause = AGAIN.saturating_mul(1 << failures.min(8)).min(LONGEST);
                    failures = failures.saturating_add(1);
                }
            }
            tokio::select! {
                changed = publication.changed() => if changed.is_err() { return },
                // Pods gone for good end nothing: what is known stays known.
                Ok(()) = pods.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Brings the slices of one Service in line; whether they are.
    async fn service(&self, service: Service, wanted: &Publication, pods: &Pods) -> bool {
        let name = service.name(&self.set);
        let first = self.slice(&name, service, wanted, pods, true).await;
        // A second slice exists for the second address family only.
        let two_families =
            pods.values().any(|p| p.ips.iter().any(IpAddr::is_ipv4) && p.ips.iter().any(IpAddr::is_ipv6));
        let second = !two_families || self.slice(&format!("{name}-v6"), service, wanted, pods, false).await;
        first && second
    }

    async fn slice(&self, name: &str, service: Service, wanted: &Publication, pods: &Pods, must_exist: bool) -> bool {
        let failed = |error: &ApiError| {
            self.metrics.endpoint_errors.inc();
            tracing::debug!("{error}");
            if let ApiError::Refused { .. } = error {
                self.events.warn(About::Set, "EndpointsRefused", &error.to_string());
            }
            false
        };
        let slice = match call(&format!("reading EndpointSlice {name}"), self.api.get(name)).await {
            Ok(slice) => slice,
            // An operator that made none gave no permission for it either.
            Err(ApiError::Missing { .. } | ApiError::Refused { .. }) if !must_exist => return true,
            Err(error) => return failed(&error),
        };
        match merge(slice, service, wanted, pods, self.port, &self.namespace) {
            Merge::Same => true,
            Merge::Later(epoch) => {
                // It is not this member's word that counts any more, or the register went back in time.
                tracing::debug!("EndpointSlice {name} is of the later epoch {epoch}; epoch {} leaves it", wanted.epoch);
                true
            }
            Merge::Write(slice) => {
                let what = format!("writing EndpointSlice {name}");
                match call(&what, self.api.replace(name, &PostParams::default(), &slice)).await {
                    Ok(_) => {
                        self.metrics.endpoint_writes.inc();
                        tracing::info!("EndpointSlice {name} leads to {}", summary(&slice));
                        true
                    }
                    Err(error) => failed(&error),
                }
            }
        }
    }
}

fn summary(slice: &EndpointSlice) -> String {
    let names = slice.endpoints.iter().filter_map(|e| e.target_ref.as_ref()?.name.as_deref());
    let names: Vec<_> = names.collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// What is to be done with a slice.
#[derive(Debug, Clone, PartialEq)]
enum Merge {
    /// It is as it should be.
    Same,
    /// A later epoch wrote it.
    Later(String),
    /// Replace it by this.
    Write(Box<EndpointSlice>),
}

/// The slice as this publication wants it: its endpoints, port and epoch; everything else stays.
fn merge(
    slice: EndpointSlice,
    service: Service,
    wanted: &Publication,
    pods: &Pods,
    port: u16,
    namespace: &str,
) -> Merge {
    let written = slice.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_EPOCH));
    // An annotation that is no epoch was not written by an agent: it protects nothing.
    if let Some(epoch) = written.and_then(|e| e.parse::<Epoch>().ok())
        && epoch.number > wanted.epoch.number
    {
        return Merge::Later(epoch.to_string());
    }
    let leader = wanted.leader.iter().filter(|_| service != Service::Ro);
    let followers = wanted.followers.iter().filter(|_| service != Service::Rw);
    let mut members: Vec<&MemberName> = leader.chain(followers).collect();
    members.sort();
    members.dedup();
    let v6 = slice.address_type == "IPv6";
    let endpoints = members.into_iter().filter_map(|member| {
        let pod = pods.get(member)?;
        let ip = pod.ips.iter().find(|ip| ip.is_ipv6() == v6)?;
        Some(endpoint(member, *ip, pod, namespace))
    });
    let mut new = slice.clone();
    new.endpoints = endpoints.collect();
    new.ports = Some(vec![EndpointPort {
        name: Some(PORT_NAME.to_owned()),
        port: Some(port.into()),
        protocol: Some("TCP".to_owned()),
        app_protocol: None,
    }]);
    new.metadata.annotations.get_or_insert_default().insert(ANNOTATION_EPOCH.to_owned(), wanted.epoch.to_string());
    if new == slice {
        return Merge::Same;
    }
    new.metadata.managed_fields = None;
    Merge::Write(Box::new(new))
}

fn endpoint(member: &MemberName, ip: IpAddr, pod: &Pod, namespace: &str) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) }),
        node_name: pod.node.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(member.to_string()),
            namespace: Some(namespace.to_owned()),
            uid: pod.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
    use pgconvoy_terms::ChangeId;
    use std::collections::{BTreeMap, BTreeSet};

    fn m(n: u32) -> MemberName {
        MemberName::new("orders", n)
    }

    fn pods() -> Pods {
        let pod = |n: u32| Pod {
            ips: vec![format!("10.0.0.{n}").parse().unwrap(), format!("fd00::{n}").parse().unwrap()],
            uid: Some(format!("uid-{n}")),
            node: Some(format!("node-{n}")),
        };
        (1..=3).map(|n| (m(n), pod(n))).collect()
    }

    fn publication(number: u32) -> Publication {
        Publication {
            epoch: Epoch { number, id: ChangeId::from_random(number.into()) },
            leader: Some(m(2)),
            followers: BTreeSet::from([m(1), m(3)]),
        }
    }

    fn slice() -> EndpointSlice {
        EndpointSlice {
            address_type: "IPv4".into(),
            metadata: ObjectMeta {
                name: Some("orders-rw".into()),
                resource_version: Some("5".into()),
                labels: Some(BTreeMap::from([("kubernetes.io/service-name".into(), "orders-rw".into())])),
                annotations: Some(BTreeMap::from([("someone".into(), "else's".into())])),
                managed_fields: Some(vec![ManagedFieldsEntry::default()]),
                ..ObjectMeta::default()
            },
            ..EndpointSlice::default()
        }
    }

    fn written(merge: Merge) -> EndpointSlice {
        match merge {
            Merge::Write(slice) => *slice,
            other => panic!("{other:?}"),
        }
    }

    fn merged(s: EndpointSlice, service: Service, p: &Publication) -> Merge {
        merge(s, service, p, &pods(), 5432, "shop")
    }

    fn addresses(s: &EndpointSlice) -> Vec<&str> {
        s.endpoints.iter().map(|e| e.addresses[0].as_str()).collect()
    }

    #[test]
    fn each_service_leads_to_its_members() {
        for (service, wanted) in [
            (Service::Rw, vec!["10.0.0.2"]),
            (Service::Ro, vec!["10.0.0.1", "10.0.0.3"]),
            (Service::R, vec!["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ] {
            let s = written(merged(slice(), service, &publication(4)));
            assert_eq!(addresses(&s), wanted, "{service:?}");
        }
        let v6 = EndpointSlice { address_type: "IPv6".into(), ..slice() };
        assert_eq!(addresses(&written(merged(v6, Service::Rw, &publication(4)))), ["fd00::2"]);
    }

    #[test]
    fn what_others_wrote_into_the_slice_stays() {
        let s = written(merged(slice(), Service::Rw, &publication(4)));
        assert_eq!(s.metadata.resource_version.as_deref(), Some("5"), "compare-and-swap");
        assert_eq!(s.metadata.labels, slice().metadata.labels);
        let annotations = s.metadata.annotations.clone().unwrap();
        assert_eq!(annotations["someone"], "else's");
        assert_eq!(annotations[ANNOTATION_EPOCH], publication(4).epoch.to_string());
        let target = s.endpoints[0].target_ref.clone().unwrap();
        assert_eq!((target.name.as_deref(), target.uid.as_deref()), (Some("orders-2"), Some("uid-2")));
        assert_eq!(s.endpoints[0].node_name.as_deref(), Some("node-2"));
        let port = &s.ports.as_ref().unwrap()[0];
        assert_eq!((port.name.as_deref(), port.port), (Some("postgres"), Some(5432)));
        assert_eq!(merged(s, Service::Rw, &publication(4)), Merge::Same, "nothing is written twice");
    }

    #[test]
    fn a_later_epoch_is_left_alone_and_an_earlier_one_is_not() {
        let by = |n| written(merged(slice(), Service::Rw, &publication(n)));
        assert_eq!(merged(by(5), Service::Rw, &publication(4)), Merge::Later(publication(5).epoch.to_string()));
        assert!(matches!(merged(by(3), Service::Rw, &publication(4)), Merge::Write(_)));
        let mut odd = by(5);
        odd.metadata.annotations = Some(BTreeMap::from([(ANNOTATION_EPOCH.into(), "newest".into())]));
        assert!(matches!(merged(odd, Service::Rw, &publication(4)), Merge::Write(_)));
    }

    #[test]
    fn without_a_leader_or_an_address_nobody_is_named() {
        let closed = Publication { leader: None, ..publication(4) };
        let before = written(merged(slice(), Service::Rw, &publication(3)));
        assert!(written(merged(before, Service::Rw, &closed)).endpoints.is_empty());
        let s = written(merge(slice(), Service::R, &publication(4), &Pods::new(), 5432, "shop"));
        assert!(s.endpoints.is_empty());
    }
}
