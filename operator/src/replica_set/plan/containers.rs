//! The three containers of a member's pod.

use super::pod::volumes;
use crate::replica_set::validate::Validated;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, Probe,
    ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgconvoy_crds::{ImagePullPolicy, pod};
use std::collections::BTreeMap;

/// Where clients of the API look for their token.
const API_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the agent asks of the scheduler, and the memory it may not exceed.
const AGENT_REQUESTS: [(&str, &str); 2] = [("cpu", "10m"), ("memory", "32Mi")];
const AGENT_MEMORY_LIMIT: &str = "128Mi";

fn security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn quantities(of: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    of.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect()
}

fn small() -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(quantities(&AGENT_REQUESTS)),
        limits: Some(quantities(&[("memory", AGENT_MEMORY_LIMIT)])),
        claims: None,
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}

/// initdb, and peer authentication by name, want the user id to have a line in `/etc/passwd`.
fn passwd() -> VolumeMount {
    VolumeMount { sub_path: Some("passwd".to_owned()), ..read_only(volumes::POD, "/etc/passwd") }
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|w| (*w).to_owned()).collect())
}

fn pull_policy(set: &Validated) -> Option<String> {
    let word = match set.spec.image_pull_policy {
        Some(ImagePullPolicy::Always) => "Always",
        // Kubernetes' own default differs for the tag `latest`.
        Some(ImagePullPolicy::IfNotPresent) | None => "IfNotPresent",
        Some(ImagePullPolicy::Never) => "Never",
    };
    Some(word.to_owned())
}

/// Copies the supervisor into the shared directory.
pub(super) fn place(set: &Validated) -> Container {
    Container {
        name: pod::CONTAINER_PLACE.to_owned(),
        image: Some(set.agent_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: words(&["pgconvoy-agent", "place"]),
        volume_mounts: Some(vec![mount(volumes::RUN, pod::RUN)]),
        resources: Some(small()),
        security_context: Some(security()),
        ..Container::default()
    }
}

/// Shows that the agent's image is there and runs.
pub(super) fn pull(set: &Validated) -> Container {
    Container {
        name: "pull".to_owned(),
        image: Some(set.agent_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: words(&["pgconvoy-agent", "--version"]),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(&[("cpu", "1m"), ("memory", "4Mi")])),
            limits: Some(quantities(&[("memory", AGENT_MEMORY_LIMIT)])),
            claims: None,
        }),
        security_context: Some(security()),
        ..Container::default()
    }
}

/// The agent, beside PostgreSQL for as long as the pod lives.
pub(super) fn agent(set: &Validated) -> Container {
    let value =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: Some("v1".to_owned()) }),
            ..EnvVarSource::default()
        }),
    };
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let get = |path: &str| HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(pod::PORT_HTTP.into()),
        ..HTTPGetAction::default()
    };
    let probe = |path: &str, period: i32, failures: i32, timeout: i32| Probe {
        http_get: Some(get(path)),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(timeout),
        ..Probe::default()
    };
    Container {
        name: pod::CONTAINER_AGENT.to_owned(),
        image: Some(set.agent_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: words(&["pgconvoy-agent", "run"]),
        restart_policy: Some("Always".to_owned()),
        env: Some(
            [
                value(pod::env::SET, &set.name),
                value(pod::env::SET_UID, &set.uid),
                field(pod::env::NAMESPACE, "metadata.namespace"),
                field(pod::env::MEMBER, "metadata.name"),
                field(pod::env::POD_UID, "metadata.uid"),
                field(pod::env::POD_IP, "status.podIP"),
                field(pod::env::NODE, "spec.nodeName"),
            ]
            .into_iter()
            .chain(set.spec.adopt().map(|system| value(pod::env::ADOPT, system)))
            .collect(),
        ),
        ports: Some(vec![port("peers", pod::PORT_PEERS), port("http", pod::PORT_HTTP)]),
        // No startup probe: PostgreSQL's container would wait for its first success, a second later than need be. Its
        // supervisor starts nothing before it is asked.
        // Lenient: an agent that the kubelet kills does not harm PostgreSQL, but does not help it either.
        liveness_probe: Some(probe("/healthz", 10, 10, 5)),
        readiness_probe: Some(probe("/readyz", 1, 3, 2)),
        volume_mounts: Some(vec![
            mount(volumes::DATA, pod::VOLUME),
            mount(volumes::RUN, pod::RUN),
            mount(volumes::TMP, "/tmp"),
            read_only(volumes::TLS, pod::TLS),
            read_only(volumes::APP, pod::APP),
            read_only(volumes::ARCHIVE, pod::ARCHIVE),
            read_only(volumes::API, API_MOUNT),
            passwd(),
        ]),
        resources: Some(small()),
        security_context: Some(security()),
        ..Container::default()
    }
}

/// PostgreSQL under the supervisor. The image's own entry point is not used.
pub(super) fn postgres(set: &Validated) -> Container {
    Container {
        name: pod::CONTAINER_POSTGRES.to_owned(),
        image: Some(set.spec.image.clone()),
        image_pull_policy: pull_policy(set),
        command: words(&[pod::SUPERVISOR, "--socket", pod::SUPERVISOR_SOCKET]),
        ports: Some(vec![ContainerPort {
            name: Some("postgres".to_owned()),
            container_port: pod::PORT_POSTGRES.into(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        volume_mounts: Some(vec![
            mount(volumes::DATA, pod::VOLUME),
            mount(volumes::RUN, pod::RUN),
            mount(volumes::TMP, "/tmp"),
            mount(volumes::SHM, "/dev/shm"),
            read_only(volumes::TLS, pod::TLS),
            passwd(),
        ]),
        resources: set.spec.resources.clone(),
        security_context: Some(security()),
        ..Container::default()
    }
}
