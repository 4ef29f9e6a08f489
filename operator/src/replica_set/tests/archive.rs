use super::World;
use crate::kinds::Kind;
use crate::replica_set::archive::{ArchiveFiles, ArchiveSeen, Held, Use, gather};
use k8s_openapi::ByteString;
use pgconvoy_crds::{MemberArchive, PgArchiveSpec, Retention};
use serde_json::json;
use std::collections::BTreeMap;

fn spec() -> PgArchiveSpec {
    serde_json::from_value(json!({
        "bucket": "backups",
        "endpoint": "https://s3.example:9000",
        "credentials": {
            "accessKeyId": { "name": "s3", "key": "id" },
            "secretAccessKey": { "name": "s3", "key": "secret" },
        },
    }))
    .unwrap()
}

fn secrets(keys: &[&str], version: &str) -> BTreeMap<String, Held> {
    let data = keys.iter().map(|k| ((*k).to_owned(), ByteString(format!("the {k}").into_bytes()))).collect();
    BTreeMap::from([("s3".to_owned(), Held { version: version.to_owned(), data })])
}

fn there(world: &World, version: &str) -> ArchiveFiles {
    match gather(&world.valid(), "s3", &spec(), Use::Own, &secrets(&["id", "secret"], version)) {
        ArchiveSeen::There(files) => files,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_missing_is_named() {
    let world = World::new(3);
    let said = |secrets| match gather(&world.valid(), "s3", &spec(), Use::Own, &secrets) {
        ArchiveSeen::Missing { reason, message } => (reason, message),
        other => panic!("{other:?}"),
    };
    let (reason, message) = said(BTreeMap::new());
    assert_eq!(reason, "NoArchiveSecret");
    assert!(message.contains("no Secret s3 ") && message.contains("key id"), "{message}");
    assert!(said(secrets(&["id"], "1")).1.contains("Secret s3 has no key secret"));
}

#[test]
fn keys_that_are_lent_need_no_secret() {
    let world = World::new(3);
    for (credentials, lender) in [
        (
            json!({ "webIdentity": { "roleArn": "arn:aws:iam::111122223333:role/backups" } }),
            json!({ "webIdentity": { "roleArn": "arn:aws:iam::111122223333:role/backups" } }),
        ),
        (json!({ "podIdentity": {} }), json!("podIdentity")),
        (json!({ "instanceRole": {} }), json!("instanceRole")),
    ] {
        let spec: PgArchiveSpec =
            serde_json::from_value(json!({ "bucket": "backups", "credentials": credentials })).unwrap();
        let ArchiveSeen::There(seen) = gather(&world.valid(), "s3", &spec, Use::Own, &BTreeMap::new()) else {
            panic!("nothing is missing for {credentials}")
        };
        assert_eq!(seen.files.keys().collect::<Vec<_>>(), ["access.json"]);
        let access: serde_json::Value = serde_json::from_slice(&seen.files["access.json"]).unwrap();
        assert_eq!(access["lender"], lender);
        assert_eq!(access["account"], "system:serviceaccount:shop:orders");
    }
}

#[test]
fn retention_goes_to_the_agents_and_makes_the_kubelets_look() {
    let world = World::new(3);
    let gathered =
        |spec: &PgArchiveSpec, used| match gather(&world.valid(), "s3", spec, used, &secrets(&["id", "secret"], "1")) {
            ArchiveSeen::There(files) => files,
            other => panic!("{other:?}"),
        };
    let mut asking = spec();
    let without = gathered(&asking, Use::Own);
    assert!(!without.files.contains_key("retention.json"));
    asking.retention = Some(Retention { days: Some(30), snapshots: None });
    let with = gathered(&asking, Use::Own);
    let asked: serde_json::Value = serde_json::from_slice(&with.files["retention.json"]).unwrap();
    assert_eq!(asked, json!({ "archive": "s3", "retention": { "days": 30 } }));
    assert_ne!(with.fingerprint, without.fingerprint);
    // An archive that is only read loses nothing by it.
    assert!(!gathered(&asking, Use::Source(Some("a/b"))).files.keys().any(|f| f.contains("retention")));
}

#[test]
fn the_agents_get_one_secret_and_the_kubelets_are_told() {
    let mut world = World::running(3);
    let files = there(&world, "1");
    assert!(!format!("{files:?}").contains("the secret"));
    world.archive = ArchiveSeen::There(files.clone());
    world.settle();
    let secret = world.body(Kind::Secret, "orders-archive").clone();
    let access: serde_json::Value =
        serde_json::from_slice(&super::base64(secret["data"]["access.json"].as_str().unwrap())).unwrap();
    assert_eq!((access["prefix"].as_str(), access["region"].as_str()), (Some("shop/orders"), Some("us-east-1")));
    for n in 1..=3 {
        let told = &world.body(Kind::Pod, &format!("orders-{n}"))["metadata"]["annotations"]["pgconvoy.dev/archive"];
        assert_eq!(*told, files.fingerprint.as_str(), "without the pod being made anew");
    }
    assert!(world.restarts.is_empty());

    // Another key.
    let changed = there(&world, "2");
    assert_ne!(changed.fingerprint, files.fingerprint);
    world.archive = ArchiveSeen::There(changed.clone());
    world.settle();
    let told = world.body(Kind::Pod, "orders-1")["metadata"]["annotations"]["pgconvoy.dev/archive"].clone();
    assert_eq!(told, changed.fingerprint.as_str());

    // What is missing takes nothing away; that none is asked for does.
    world.archive = ArchiveSeen::Missing { reason: "NoArchive", message: "it is gone".into() };
    world.settle();
    assert!(world.bodies.contains_key(&(Kind::Secret, "orders-archive".to_owned())));
    assert_eq!(world.condition("Archiving"), ("False".into(), "NoArchive".into(), "it is gone".into()));
    world.archive = ArchiveSeen::NotAsked;
    world.settle();
    assert!(!world.bodies.contains_key(&(Kind::Secret, "orders-archive".to_owned())));
    assert!(world.set.status.as_ref().unwrap().conditions.iter().all(|c| c.type_ != "Archiving"));
}

#[test]
fn the_condition_says_what_the_leader_says() {
    let mut world = World::running(3);
    world.archive = ArchiveSeen::There(there(&world, "1"));
    world.settle();
    assert_eq!(world.condition("Archiving").1, "ArchiveStarting");
    let mut say = |reason: &str, message: Option<&str>| {
        let states = &mut world.set.status.as_mut().unwrap().member_states;
        let leader = states.iter_mut().find(|s| s.name == "orders-1").unwrap();
        leader.archive = Some(MemberArchive {
            reason: reason.into(),
            message: message.map(str::to_owned),
            ..MemberArchive::default()
        });
        world.settle();
        world.condition("Archiving")
    };
    assert_eq!(say("Archiving", None).0, "True");
    assert_eq!(
        say("StoreUnreachable", Some("no connection")),
        ("False".into(), "StoreUnreachable".into(), "no connection".into())
    );
    assert_eq!(say("FromALaterAgent", Some("?")).1, "ArchiveFailing");
    assert_eq!(say("ArchiveBehind", Some("2 GiB")), ("True".into(), "ArchiveBehind".into(), "2 GiB".into()));
}

#[test]
fn the_source_of_a_new_set_has_files_of_its_own() {
    let world = World::new(3);
    let seen = |prefix| gather(&world.valid(), "s3", &spec(), Use::Source(prefix), &secrets(&["id", "secret"], "1"));
    let ArchiveSeen::There(files) = seen(Some("shop/old")) else { panic!("it is there") };
    let names: Vec<_> = files.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["source-access-key-id", "source-access.json", "source-secret-access-key"]);
    assert!(String::from_utf8_lossy(&files.files["source-access.json"]).contains("\"prefix\":\"shop/old\""));
    let ArchiveSeen::Missing { message, .. } = seen(None) else { panic!("whose archive?") };
    assert!(message.contains("fromArchive.prefix"), "{message}");
}
