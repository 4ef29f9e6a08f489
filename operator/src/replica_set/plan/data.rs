//! The term, the lease, volumes, Secrets and the passwd lines: what holds state.

use crate::kinds::{Kind, Object};
use crate::replica_set::certificates::{self, AUTHORITY_KEY};
use crate::replica_set::problem::{ANNOTATION_CERTIFICATE, ANNOTATION_SET_UID};
use crate::replica_set::validate::Validated;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret, VolumeResourceRequirements,
};
use pgconvoy_crds::names::{self, Service};
use pgconvoy_crds::{PgTerm, PgTermSpec, pod};
use pgconvoy_terms::MemberName;
use std::collections::BTreeMap;

/// The record at number 0; `again`: in place of one that was lost.
pub(super) fn term(set: &Validated, again: bool) -> Object {
    let spec = if again { PgTermSpec::made_again(&set.uid) } else { PgTermSpec::zero(&set.uid) };
    let mut term = PgTerm::new(&set.name, spec);
    term.metadata = set.owned(&set.name);
    Object::new(Kind::Term, &set.name, &term)
}

/// The lease, held by nobody.
pub(super) fn lease(set: &Validated) -> Object {
    let lease = Lease { metadata: set.owned(&set.name), spec: Some(LeaseSpec::default()) };
    Object::new(Kind::Lease, &set.name, &lease)
}

/// The passwd lines of every pod.
pub(super) fn passwd(set: &Validated) -> Object {
    let name = names::pod_config(&set.name);
    let uid = set.spec.uid();
    let lines = format!(
        "root:x:0:0:root:/root:/sbin/nologin\n{}:x:{uid}:{uid}:PostgreSQL:{}:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
        pod::SUPERUSER,
        pod::VOLUME
    );
    let map = ConfigMap {
        metadata: set.owned(&name),
        data: Some([("passwd".to_owned(), lines)].into()),
        ..ConfigMap::default()
    };
    Object::new(Kind::ConfigMap, &name, &map)
}

/// A member's volume. Kept volumes have no owner, so that they outlive the set.
pub(super) fn claim(set: &Validated, member: &MemberName) -> Object {
    let name = names::data_claim(member);
    let mut metadata = set.owned(&name);
    metadata.labels = Some(set.member_labels(member));
    metadata.annotations = Some([(ANNOTATION_SET_UID.to_owned(), set.uid.clone())].into());
    if !set.deletes_volumes() {
        metadata.owner_references = None;
    }
    let storage = &set.spec.storage;
    let claim = PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), storage.size.clone())].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    };
    Object::new(Kind::Claim, &name, &claim)
}

fn secret(set: &Validated, name: &str, type_: &str, files: &BTreeMap<String, String>) -> Secret {
    Secret {
        metadata: set.owned(name),
        type_: Some(type_.to_owned()),
        data: Some(files.iter().map(|(k, v)| (k.clone(), ByteString(v.clone().into_bytes()))).collect()),
        ..Secret::default()
    }
}

/// The authority's Secret.
pub(super) fn authority(set: &Validated, certificate: &str, key: &str) -> Object {
    let name = names::ca(&set.name);
    let files = [(pod::tls::CA, certificate), (AUTHORITY_KEY, key)];
    let files = files.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Object::new(Kind::Secret, &name, &secret(set, &name, "Opaque", &files))
}

/// A member's Secret.
pub(super) fn member_tls(set: &Validated, member: &MemberName, files: &BTreeMap<String, String>) -> Object {
    let name = names::member_tls(member);
    let mut secret = secret(set, &name, "Opaque", files);
    secret.metadata.labels = Some(set.member_labels(member));
    secret.metadata.annotations =
        Some([(ANNOTATION_CERTIFICATE.to_owned(), certificates::made_for_hash(set, member))].into());
    Object::new(Kind::Secret, &name, &secret)
}

/// The Secret for applications.
///
/// Clients that take the URI notice a dead node: a connection attempt ends after 5 s, an idle connection after some
/// 25 s, unacknowledged bytes after 20 s.
pub(super) fn application(set: &Validated, password: &str) -> Object {
    let name = names::app_secret(&set.name);
    let initdb = set.spec.initdb();
    let (user, database) = (initdb.owner.unwrap_or_default(), initdb.database.unwrap_or_default());
    let host = format!("{}.{}.svc", Service::Rw.name(&set.name), set.namespace);
    let port = pod::PORT_POSTGRES;
    let (user_in_uri, database_in_uri) = (percent(&user), percent(&database));
    let uri = format!(
        "postgresql://{user_in_uri}:{password}@{host}:{port}/{database_in_uri}?sslmode=require&connect_timeout=5&keepalives=1&keepalives_idle=10&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=20000"
    );
    let jdbc = format!(
        "jdbc:postgresql://{host}:{port}/{database_in_uri}?user={user_in_uri}&password={password}&sslmode=require&connectTimeout=5&socketTimeout=0&tcpKeepAlive=true"
    );
    let files = [
        (pod::app::USERNAME, user),
        (pod::app::PASSWORD, password.to_owned()),
        (pod::app::DBNAME, database),
        ("host", host),
        ("port", port.to_string()),
        ("uri", uri),
        ("jdbc-uri", jdbc),
    ];
    let files = files.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Object::new(Kind::Secret, &name, &secret(set, &name, "Opaque", &files))
}

/// Percent-encodes whatever is not a letter, a digit or one of `-._~`.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn odd_names_survive_a_uri() {
        assert_eq!(percent("app"), "app");
        assert_eq!(percent("my app/é"), "my%20app%2F%C3%A9");
    }
}
