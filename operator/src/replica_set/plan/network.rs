//! Where clients connect to, and how many members a drain must leave.

use crate::kinds::{Kind, Object};
use crate::replica_set::validate::Validated;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgconvoy_crds::{ServiceTemplate, names, pod};

/// What Kubernetes' own slice controllers look at to leave a slice alone.
const SLICES_MANAGED_BY: &str = "pgconvoy.dev";
const PORT_NAME: &str = "postgres";

/// The Service without selector, of that name.
pub(super) fn service(set: &Validated, which: names::Service) -> Object {
    let templates = set.spec.services.clone().unwrap_or_default();
    let template: Option<ServiceTemplate> = match which {
        names::Service::Rw => templates.rw,
        names::Service::Ro => templates.ro,
        names::Service::R => templates.r,
    };
    let name = which.name(&set.name);
    let mut metadata = set.owned(&name);
    metadata.annotations = template.map(|t| t.annotations).filter(|a| !a.is_empty());
    let spec = ServiceSpec {
        ports: Some(vec![ServicePort {
            name: Some(PORT_NAME.to_owned()),
            port: pod::PORT_POSTGRES.into(),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        }]),
        ..ServiceSpec::default()
    };
    Object::new(Kind::Service, &name, &Service { metadata, spec: Some(spec), status: None })
}

/// The slice of that Service as it begins: it leads nowhere until the leader's agent writes it.
pub(super) fn slice(set: &Validated, which: names::Service) -> Object {
    let name = which.name(&set.name);
    let mut metadata = set.owned(&name);
    if let Some(labels) = &mut metadata.labels {
        labels.insert("kubernetes.io/service-name".to_owned(), name.clone());
        labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), SLICES_MANAGED_BY.to_owned());
    }
    let slice = EndpointSlice {
        metadata,
        address_type: "IPv4".to_owned(),
        endpoints: vec![],
        ports: Some(vec![EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(pod::PORT_POSTGRES.into()),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
    };
    Object::new(Kind::EndpointSlice, &name, &slice)
}

/// How many members a drain must leave Ready: all but one. A single member has no budget, or its node could never be
/// drained.
pub(super) fn budget(set: &Validated) -> Option<Object> {
    let leave = i32::try_from(set.members).ok()? - 1;
    if leave < 1 {
        return None;
    }
    let budget = PodDisruptionBudget {
        metadata: set.owned(&set.name),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(leave)),
            selector: Some(LabelSelector {
                match_labels: Some([(names::LABEL_SET.to_owned(), set.name.clone())].into()),
                match_expressions: None,
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    Some(Object::new(Kind::Budget, &set.name, &budget))
}
