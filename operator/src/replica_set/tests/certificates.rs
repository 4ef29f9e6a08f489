use super::{World, base64};
use crate::kinds::Kind;
use crate::replica_set::certificates::{BACKDATE, CERTIFICATE_LIFE, OVERLAP};
use jiff::SignedDuration;
use serde_json::Value;

fn text(world: &mut World, secret: &str, key: &str) -> String {
    let body = world.body(Kind::Secret, secret).clone();
    String::from_utf8(base64(body["data"][key].as_str().unwrap())).unwrap()
}

fn count(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn certificates_name_what_they_are_for_and_are_signed_by_the_sets_authority() {
    let mut world = World::new(2);
    world.settle();
    let ca = text(&mut world, "orders-ca", "ca.crt");
    assert_eq!(text(&mut world, "orders-1-tls", "ca.crt"), ca);
    let (_, ca) = x509_parser::pem::parse_x509_pem(ca.as_bytes()).unwrap();
    let ca = ca.parse_x509().unwrap();
    assert!(ca.is_ca());
    for (key, common_name, names) in [
        (
            "server.crt",
            "orders-2",
            &["orders-2", "orders-rw", "orders-ro.shop.svc", "orders-r.shop.svc.cluster.local", "localhost"][..],
        ),
        ("replication.crt", "pgconvoy_replication", &[]),
        ("agent.crt", "orders-2", &["orders-2"]),
    ] {
        let pem = text(&mut world, "orders-2-tls", key);
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.issuer(), ca.subject(), "{key}");
        assert_eq!(certificate.subject().iter_common_name().next().unwrap().as_str().unwrap(), common_name);
        let san = certificate.subject_alternative_name().unwrap().map(|s| format!("{:?}", s.value.general_names));
        for name in names {
            assert!(san.as_ref().unwrap().contains(&format!("{name:?}")), "{key} is not for {name}: {san:?}");
        }
        assert!(!certificate.is_ca());
    }
}

#[test]
fn they_are_renewed_after_two_thirds_of_their_life() {
    let mut world = World::new(1);
    world.settle();
    let before = text(&mut world, "orders-1-tls", "agent.crt");
    let thirds = SignedDuration::try_from(CERTIFICATE_LIFE / 3 * 2 - BACKDATE).unwrap();
    world.later(thirds - SignedDuration::from_secs(1));
    world.settle();
    assert_eq!(text(&mut world, "orders-1-tls", "agent.crt"), before);
    world.later(SignedDuration::from_secs(2));
    world.settle();
    assert_ne!(text(&mut world, "orders-1-tls", "agent.crt"), before);
    assert_eq!(count(&text(&mut world, "orders-1-tls", "ca.crt")), 1);
}

#[test]
fn a_deleted_or_damaged_secret_of_a_member_is_made_again_by_the_same_authority() {
    let mut world = World::new(2);
    world.settle();
    let (ca, other) = (text(&mut world, "orders-ca", "ca.crt"), text(&mut world, "orders-1-tls", "agent.crt"));
    world.take(Kind::Secret, "orders-2-tls");
    world.settle();
    assert_eq!(text(&mut world, "orders-2-tls", "ca.crt"), ca);
    assert_eq!(text(&mut world, "orders-1-tls", "agent.crt"), other, "nobody else is touched");
    world.body(Kind::Secret, "orders-2-tls")["data"]["server.key"] = Value::String(String::new());
    world.settle();
    assert!(!text(&mut world, "orders-2-tls", "server.key").is_empty());
}

#[test]
fn a_deleted_authority_is_replaced_and_the_old_one_trusted_for_a_while() {
    let mut world = World::new(2);
    world.settle();
    let old = text(&mut world, "orders-ca", "ca.crt");
    world.later(SignedDuration::from_hours(1));
    world.take(Kind::Secret, "orders-ca");
    world.settle();
    let new = text(&mut world, "orders-ca", "ca.crt");
    assert_ne!(new, old);
    for secret in ["orders-1-tls", "orders-2-tls"] {
        let trusted = text(&mut world, secret, "ca.crt");
        assert!(trusted.starts_with(&new) && trusted.contains(&old), "{secret}");
    }
    assert_eq!(world.reconcile(usize::MAX), 0);
    world.later(OVERLAP);
    world.settle();
    for secret in ["orders-1-tls", "orders-2-tls"] {
        assert_eq!(text(&mut world, secret, "ca.crt"), new, "{secret}");
    }
}
