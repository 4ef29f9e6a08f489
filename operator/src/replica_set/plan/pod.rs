//! A member's pod.

use super::containers;
use crate::kinds::{Kind, Object};
use crate::replica_set::problem::ANNOTATION_POD_SPEC;
use crate::replica_set::validate::Validated;
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile,
    EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, ProjectedVolumeSource, SeccompProfile, SecretProjection,
    SecretVolumeSource, ServiceAccountTokenProjection, TopologySpreadConstraint, Volume, VolumeProjection,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pgconvoy_crds::{names, pod};
use pgconvoy_terms::MemberName;

/// Lifetime of the agent's tokens in seconds; the kubelet renews it when four fifths are over.
const TOKEN_SECONDS: i64 = 3607;
/// Certificates and passwords: readable by owner and group, which is what PostgreSQL asks of a key that root owns.
const SECRET_MODE: i32 = 0o640;

/// Names of the volumes within the pod.
pub(super) mod volumes {
    /// The member's data.
    pub(crate) const DATA: &str = "data";
    /// Sockets and the supervisor.
    pub(crate) const RUN: &str = "run";
    /// Keys and certificates.
    pub(crate) const TLS: &str = "tls";
    /// The application's user and password.
    pub(crate) const APP: &str = "app";
    /// Shared memory.
    pub(crate) const SHM: &str = "shm";
    /// Temporary files.
    pub(crate) const TMP: &str = "tmp";
    /// The passwd lines.
    pub(crate) const POD: &str = "pod";
    /// What leads to the archive.
    pub(crate) const ARCHIVE: &str = "archive";
    /// The agent's API token.
    pub(crate) const API: &str = "api";
}

/// The pod of `member`; `archive`: what it says of the archive's Secret.
pub(super) fn pod(set: &Validated, member: &MemberName, archive: Option<&str>) -> Object {
    let hash = spec_hash(set, member);
    let spec = spec(set, member);
    let name = member.to_string();
    let template = set.spec.pod_template.clone().unwrap_or_default();
    let mut metadata = set.owned(&name);
    let mut labels = template.labels;
    labels.extend(set.member_labels(member));
    let mut annotations = template.annotations;
    annotations.insert(ANNOTATION_POD_SPEC.to_owned(), hash);
    if let Some(archive) = archive {
        annotations.insert(names::ANNOTATION_ARCHIVE.to_owned(), archive.to_owned());
    }
    metadata.labels = Some(labels);
    metadata.annotations = Some(annotations);
    Object::new(Kind::Pod, &name, &Pod { metadata, spec: Some(spec), status: None })
}

/// The hash by which a pod made by another spec is recognised. The agent's image does not count: it is changed in place.
pub(super) fn spec_hash(set: &Validated, member: &MemberName) -> String {
    let mut spec = spec(set, member);
    for container in spec.init_containers.iter_mut().flatten() {
        container.image = None;
    }
    crate::hash::fingerprint(&serde_json::to_value(spec).unwrap_or_default())
}

fn spec(set: &Validated, member: &MemberName) -> PodSpec {
    let template = set.spec.pod_template.clone().unwrap_or_default();
    let mut spread = template.topology_spread_constraints;
    if spread.is_empty() {
        spread = vec![default_spread(set)];
    }
    let pull_secrets = &set.spec.image_pull_secrets;
    PodSpec {
        hostname: Some(member.to_string()),
        restart_policy: Some("Always".to_owned()),
        service_account_name: Some(set.name.clone()),
        // The token is mounted into the agent's container alone, see `volumes::API`.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(set.spec.stop_timeout_seconds()),
        security_context: Some(security(set)),
        init_containers: Some(vec![containers::place(set), containers::agent(set)]),
        containers: vec![containers::postgres(set)],
        volumes: Some(volumes_of(set, member)),
        affinity: Some(template.affinity.unwrap_or_else(|| default_affinity(set))),
        topology_spread_constraints: Some(spread),
        node_selector: (!template.node_selector.is_empty()).then_some(template.node_selector),
        tolerations: (!template.tolerations.is_empty()).then_some(template.tolerations),
        priority_class_name: template.priority_class_name,
        image_pull_secrets: (!pull_secrets.is_empty()).then(|| pull_secrets.clone()),
        ..PodSpec::default()
    }
}

/// As whom everything in the set's pods runs.
pub(super) fn security(set: &Validated) -> PodSecurityContext {
    let uid = set.spec.uid();
    PodSecurityContext {
        run_as_user: Some(uid),
        run_as_group: Some(uid),
        fs_group: Some(uid),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn selector(set: &Validated) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(names::LABEL_SET.to_owned(), set.name.clone())].into()),
        match_expressions: None,
    }
}

/// Members on different nodes where possible.
fn default_affinity(set: &Validated) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(selector(set)),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Members in different zones where possible.
fn default_spread(set: &Validated) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(set)),
        ..TopologySpreadConstraint::default()
    }
}

fn volumes_of(set: &Validated, member: &MemberName) -> Vec<Volume> {
    let volume = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
    let empty = EmptyDirVolumeSource::default;
    let item = |key: &str| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None };
    vec![
        Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: names::data_claim(member),
                read_only: None,
            }),
            ..volume(volumes::DATA)
        },
        Volume { empty_dir: Some(empty()), ..volume(volumes::RUN) },
        Volume { empty_dir: Some(empty()), ..volume(volumes::TMP) },
        Volume {
            empty_dir: Some(EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: None }),
            ..volume(volumes::SHM)
        },
        Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(names::member_tls(member)),
                default_mode: Some(SECRET_MODE),
                ..SecretVolumeSource::default()
            }),
            ..volume(volumes::TLS)
        },
        Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(names::app_secret(&set.name)),
                default_mode: Some(SECRET_MODE),
                // A person may delete it; the members run on without.
                optional: Some(true),
                items: Some([pod::app::USERNAME, pod::app::PASSWORD, pod::app::DBNAME].map(item).to_vec()),
            }),
            ..volume(volumes::APP)
        },
        Volume { projected: Some(archive_access(set)), ..volume(volumes::ARCHIVE) },
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: names::pod_config(&set.name),
                ..ConfigMapVolumeSource::default()
            }),
            ..volume(volumes::POD)
        },
        Volume { projected: Some(api_access()), ..volume(volumes::API) },
    ]
}

/// The Secret of the archive, whether it is there or not, and a token of the set's service account that is good at AWS' security token
/// service alone, and there only for roles that trust it. Every pod has both, so that an archive comes and goes without a pod being
/// made anew.
fn archive_access(set: &Validated) -> ProjectedVolumeSource {
    let secret =
        SecretProjection { name: names::archive(&set.name), optional: Some(true), ..SecretProjection::default() };
    let token = ServiceAccountTokenProjection {
        path: pod::archive::WEB_IDENTITY_TOKEN.to_owned(),
        expiration_seconds: Some(TOKEN_SECONDS),
        audience: Some(pod::archive::WEB_IDENTITY_AUDIENCE.to_owned()),
    };
    ProjectedVolumeSource {
        default_mode: Some(SECRET_MODE),
        sources: Some(vec![
            VolumeProjection { secret: Some(secret), ..VolumeProjection::default() },
            VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        ]),
    }
}

/// What every client of the API expects in `/var/run/secrets/kubernetes.io/serviceaccount`.
fn api_access() -> ProjectedVolumeSource {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(TOKEN_SECONDS),
        audience: None,
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector { field_path: "metadata.namespace".to_owned(), api_version: None }),
        ..DownwardAPIVolumeFile::default()
    };
    ProjectedVolumeSource {
        default_mode: None,
        sources: Some(vec![
            VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
            VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
            VolumeProjection {
                downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
                ..VolumeProjection::default()
            },
        ]),
    }
}
