//! What the members may do at the API server: named objects only.

use crate::kinds::{Kind, Object};
use crate::replica_set::validate::Validated;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use pgconvoy_crds::GROUP;
use pgconvoy_crds::names::Service;

fn rule(group: &str, resource: &str, names: &[String], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: (!names.is_empty()).then(|| names.to_vec()),
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        non_resource_urls: None,
    }
}

/// ServiceAccount, Role and RoleBinding of the set.
pub(super) fn access(set: &Validated) -> [Object; 3] {
    let name = &set.name;
    let own = std::slice::from_ref(name);
    let slices: Vec<String> = Service::ALL.iter().map(|s| s.name(name)).collect();
    let mut rules = vec![
        rule(GROUP, "pgterms", own, &["get", "list", "watch", "update"]),
        rule("coordination.k8s.io", "leases", own, &["get", "list", "watch", "update"]),
        rule("discovery.k8s.io", "endpointslices", &slices, &["get", "update"]),
        rule(GROUP, "pgreplicasets", own, &["get", "list", "watch"]),
        rule(GROUP, "pgreplicasets/status", own, &["patch"]),
        // Whichever is made next; their names are not known.
        rule(GROUP, "pgsnapshots", &[], &["get", "list", "watch"]),
        rule(GROUP, "pgsnapshots/status", &[], &["update"]),
        // A request has any name; the agents ask for those of their set by a field selector.
        rule(GROUP, "pgrequests", &[], &["get", "list", "watch"]),
        rule(GROUP, "pgrequests/status", &[], &["patch"]),
        // Neither pods nor events can be limited by name here: the names are not known, or chosen by the writer.
        rule("", "pods", &[], &["get", "list", "watch"]),
        rule("", "events", &[], &["create", "patch"]),
        rule("events.k8s.io", "events", &[], &["create", "patch"]),
    ];
    // What retention has come to.
    if let Some(archive) = &set.spec.archive {
        rules.push(rule(GROUP, "pgarchives/status", std::slice::from_ref(&archive.reference.name), &["patch"]));
    }
    let account = ServiceAccount {
        metadata: set.owned(name),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let binding = RoleBinding {
        metadata: set.owned(name),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(set.namespace.clone()),
            api_group: None,
        }]),
    };
    [
        Object::new(Kind::ServiceAccount, name, &account),
        Object::new(Kind::Role, name, &Role { metadata: set.owned(name), rules: Some(rules) }),
        Object::new(Kind::RoleBinding, name, &binding),
    ]
}
