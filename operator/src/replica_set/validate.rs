//! From what a user wrote to what the planner may rely on.
//!
//! The CRD refuses most of this at the door; it is checked again here, because a set may be older than a rule.

use crate::quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pgconvoy_crds::{GROUP, PgReplicaSet, PgReplicaSetSpec, VERSION, WhenDeleted, names};
use pgconvoy_terms::MemberName;
use std::collections::BTreeMap;

/// The most members that a set can have: a pod's ordinal has three digits, a quorum of more is of no use.
pub const MEMBERS_LIMIT: i32 = 64;

/// A replica set that can be planned for.
#[derive(Debug, Clone)]
pub struct Validated {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// How many members it should have, 1 or more.
    pub members: usize,
    /// Size of a volume in bytes.
    pub size: u128,
    /// The rest of what the user wrote.
    pub spec: PgReplicaSetSpec,
    /// The agents' image.
    pub agent_image: String,
}

/// Checks a set.
///
/// # Errors
/// Sentences, one for each thing that is wrong.
pub fn validate(set: &PgReplicaSet, agent_image: &str) -> Result<Validated, Vec<String>> {
    let spec = &set.spec;
    let name = set.metadata.name.clone().unwrap_or_default();
    let mut wrong = vec![];
    if name.len() > MemberName::SET_LIMIT {
        wrong.push(format!(
            "the name has {} characters, but pods, volumes and replication slots are named after it: {} at most",
            name.len(),
            MemberName::SET_LIMIT
        ));
    }
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(label) || name.ends_with('-') {
        wrong.push(format!(
            "the name {name:?} cannot be used for Services: it must begin with a letter, hold only a-z, 0-9 and '-', and not end with '-'"
        ));
    }
    if spec.image.trim().is_empty() {
        wrong.push("spec.image is empty: name a PostgreSQL image, like docker.io/library/postgres:17".to_owned());
    }
    if !(1..=MEMBERS_LIMIT).contains(&spec.members) {
        wrong.push(format!("spec.members is {}: it must be between 1 and {MEMBERS_LIMIT}", spec.members));
    }
    if let Some(w) = spec.durability.as_ref().and_then(|d| d.acknowledgements)
        && !(0..spec.members.max(1)).contains(&w)
    {
        wrong.push(format!(
            "spec.durability.acknowledgements is {w}, but a set of {} has {} followers: it must be less than spec.members",
            spec.members,
            (spec.members - 1).max(0)
        ));
    }
    let size = quantity::bytes(&spec.storage.size.0).filter(|s| *s > 0);
    if size.is_none() {
        wrong.push(format!("spec.storage.size is {:?}: give a size, like 20Gi", spec.storage.size.0));
    }
    if spec.uid() <= 0 {
        wrong.push(format!("spec.runAsUser is {}: PostgreSQL refuses to run as root", spec.uid()));
    }
    let (Some(size), true) = (size, wrong.is_empty()) else { return Err(wrong) };
    Ok(Validated {
        name,
        namespace: set.metadata.namespace.clone().unwrap_or_default(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        generation: set.metadata.generation.unwrap_or_default(),
        members: usize::try_from(spec.members).unwrap_or(1),
        size,
        spec: spec.clone(),
        agent_image: agent_image.to_owned(),
    })
}

impl Validated {
    /// Whether volumes go with their members.
    pub fn deletes_volumes(&self) -> bool {
        self.spec.storage.when_deleted == Some(WhenDeleted::Delete)
    }

    /// The member with this ordinal.
    pub fn member(&self, ordinal: u32) -> MemberName {
        MemberName::new(&self.name, ordinal)
    }

    /// Makes an object the set's own: it goes when the set goes, and `kubectl drain` sees that somebody looks after it.
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "PgReplicaSet".to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// The labels of everything that belongs to the set.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            (names::LABEL_SET, self.name.as_str()),
            ("app.kubernetes.io/name", "pgconvoy"),
            ("app.kubernetes.io/instance", self.name.as_str()),
            ("app.kubernetes.io/managed-by", names::MANAGER_OPERATOR),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }

    /// The labels of what belongs to one member.
    pub fn member_labels(&self, member: &MemberName) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(names::LABEL_MEMBER.to_owned(), member.to_string());
        labels
    }

    /// Metadata of an object that the set owns.
    pub fn owned(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner()]),
            ..ObjectMeta::default()
        }
    }

    /// Label selector of the set's pods.
    pub fn selector(&self) -> String {
        format!("{}={}", names::LABEL_SET, self.name)
    }
}
