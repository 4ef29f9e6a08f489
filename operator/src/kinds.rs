//! The kinds of objects that the operator makes for a replica set, and one such object as it should be.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::ApiResource;
use pgconvoy_crds::PgTerm;
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// A kind of object that belongs to a replica set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The record that the members agree on.
    Term,
    /// The members' lease.
    Lease,
    /// The members' identity at the API server.
    ServiceAccount,
    /// What they may do there.
    Role,
    /// Gives the role to the identity.
    RoleBinding,
    /// The passwd lines of every pod.
    ConfigMap,
    /// Certificates and passwords.
    Secret,
    /// Where clients connect to.
    Service,
    /// Where a Service leads to.
    EndpointSlice,
    /// How many members a drain must leave.
    Budget,
    /// A member's volume.
    Claim,
    /// A member.
    Pod,
    /// A pod that brings an image to a node.
    Puller,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 13] = [
        Kind::Term,
        Kind::Lease,
        Kind::ServiceAccount,
        Kind::Role,
        Kind::RoleBinding,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Budget,
        Kind::Claim,
        Kind::Pod,
        Kind::Puller,
    ];

    /// What the API server calls it.
    pub fn resource(self) -> ApiResource {
        match self {
            Kind::Term => ApiResource::erase::<PgTerm>(&()),
            Kind::Lease => ApiResource::erase::<Lease>(&()),
            Kind::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Kind::Role => ApiResource::erase::<Role>(&()),
            Kind::RoleBinding => ApiResource::erase::<RoleBinding>(&()),
            Kind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Kind::Secret => ApiResource::erase::<Secret>(&()),
            Kind::Service => ApiResource::erase::<Service>(&()),
            Kind::EndpointSlice => ApiResource::erase::<EndpointSlice>(&()),
            Kind::Budget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Kind::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Kind::Pod | Kind::Puller => ApiResource::erase::<Pod>(&()),
        }
    }

    /// Its name for people, and the label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Term => "PgTerm",
            Kind::Lease => "Lease",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Role => "Role",
            Kind::RoleBinding => "RoleBinding",
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Budget => "PodDisruptionBudget",
            Kind::Claim => "PersistentVolumeClaim",
            Kind::Pod | Kind::Puller => "Pod",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object as it should be.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it, as it is sent to the API server.
    pub body: Value,
}

impl Object {
    /// The object that `typed` is.
    pub fn new<K: Serialize>(kind: Kind, name: &str, typed: &K) -> Self {
        // Kubernetes' own types always serialise. Were one not to, the API server would refuse the `null` and say so.
        let body = serde_json::to_value(typed).unwrap_or(Value::Null);
        Self { kind, name: name.to_owned(), body }
    }
}

// Secrets pass through here: their contents must not reach a log.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
