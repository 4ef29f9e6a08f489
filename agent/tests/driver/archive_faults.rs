//! What a person reads of each fault of a store, and what becomes of what an agent had begun when it was killed or the volume
//! was full. docs/archive.md, "What can go wrong", has the list.

use crate::{
    archive::{Archive, ROWS, come, follow},
    archiving::{SOON, archiving, archiving_as, system},
    member::{Member, Set, SmallVolume, Streams, epoch, say},
};
use pgconvoy_agent::{archive::Role, coordination::Snapshots};
use pgconvoy_archive::{layout::Owner, layout::open_archive, retain::Inventory};
use pgconvoy_crds::SnapshotPhase;
use pgconvoy_e2e_s3::{Fault, Operation, Options, Server};
use pgconvoy_ha::WantKind;
use serde_json::json;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// What leads to a bucket, in a directory of its own beside the member's.
fn leads_to(member: &Member, name: &str, place: &serde_json::Value, secret: &str) -> std::path::PathBuf {
    let dir = member.path(&format!("archive-{name}"));
    fs::create_dir(&dir).unwrap();
    let files = [("access.json", place.to_string()), ("access-key-id", Options::default().access_key)];
    for (file, text) in files.into_iter().chain([("secret-access-key", secret.to_owned())]) {
        fs::write(dir.join(file), text).unwrap();
    }
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_store_is_told_with_the_object_what_it_means_and_what_to_do() {
    let Some(set) = Set::new() else { return };
    let one = set.founded().await;
    one.set(|s| s.archive = true);
    let archive = Archive::new().await;
    let owner = Owner {
        format: 1,
        namespace: "shop".into(),
        name: "orders".into(),
        uid: "another".into(),
        time: "2026-01-01T00:00:00Z".into(),
    };
    open_archive(&archive.store, &owner).await.unwrap();
    let newer = archive.s3.bucket_dir().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("owner-00000000.json"), r#"{"format": 99}"#).unwrap();
    let store = async |change: &dyn Fn(&Server)| {
        let server = Server::start(Options::default()).await.unwrap();
        change(&server);
        server
    };
    let elsewhere = store(&|s| s.faults().set_region(Some("eu-central-1"))).await;
    let skewed = store(&|s| s.faults().set_clock_offset(3600)).await;
    let expired = store(&|s| s.faults().order(Operation::Put, "", Fault::ExpiredToken, 1_000_000)).await;
    let unlisted = store(&|s| s.faults().order(Operation::List, "", Fault::AccessDenied, 1_000_000)).await;
    let no_key = "u is not authorized to perform: kms:GenerateDataKey on resource: alias/backups";
    let no_key = Fault::Refused(403, "AccessDenied", no_key);
    let keyless = store(&|s| s.faults().order(Operation::Put, "", no_key, 1_000_000)).await;
    let careless = store(&|s| s.faults().set_conditional_writes(false)).await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let there = archive.s3.endpoint();
    let good = archive.s3.options().secret_key.clone();
    // Name, endpoint, bucket, prefix, secret; reason of the condition, and what its message holds.
    let cases = [
        (
            "key",
            &there,
            "backups",
            "k",
            "wrong",
            "StoreDenies",
            ["check access key, secret and expiry", "SignatureDoesNotMatch"],
        ),
        (
            "bucket",
            &there,
            "nowhere",
            "k",
            &good,
            "NoBucket",
            ["in bucket nowhere at http", "create it or correct its name"],
        ),
        ("gone", &closed, "backups", "k", &good, "StoreUnreachable", ["check the endpoint", "bucket backups at http"]),
        (
            "owned",
            &there,
            "backups",
            "default/t",
            &good,
            "ArchiveOfAnotherSet",
            ["replica set shop/orders, uid another", "Choose another prefix"],
        ),
        (
            "newer",
            &there,
            "backups",
            "newer",
            &good,
            "ArchiveDamaged",
            ["owner-00000000.json is of format 99", "reads up to 1"],
        ),
        (
            "kms",
            &keyless.endpoint(),
            "backups",
            "k",
            &good,
            "StoreDenies",
            ["grant kms:GenerateDataKey and kms:Decrypt on the key alias/backups", "not authorized to perform"],
        ),
        (
            "region",
            &elsewhere.endpoint(),
            "backups",
            "k",
            &good,
            "StoreRefuses",
            ["correct the region", "expecting 'eu-central-1'"],
        ),
        (
            "clock",
            &skewed.endpoint(),
            "backups",
            "k",
            &good,
            "StoreRefuses",
            ["set the node's clock", "RequestTimeTooSkewed"],
        ),
        (
            "expired",
            &expired.endpoint(),
            "backups",
            "k",
            &good,
            "StoreDenies",
            ["expiry (PutObject: ExpiredToken", "write k/"],
        ),
        ("verb", &unlisted.endpoint(), "backups", "k", &good, "StoreDenies", ["grant s3:ListBucket", "list k/"]),
        (
            "careless",
            &careless.endpoint(),
            "backups",
            "k",
            &good,
            "Archiving",
            ["overlooks If-None-Match", "two leaders at once"],
        ),
    ];
    let mut running = Vec::new();
    for (name, endpoint, bucket, prefix, secret, ..) in &cases {
        let mut place = json!({ "bucket": bucket, "prefix": prefix, "region": "us-east-1", "endpoint": endpoint,
            "pathStyle": true, "maxDelaySeconds": 1 });
        if *name == "kms" {
            place["serverSideEncryption"] = json!({ "type": "SSE-KMS", "kmsKeyId": "alias/backups" });
        }
        let mut identity = one.config.identity.clone();
        identity.paths.archive = leads_to(&one, name, &place, secret);
        running.push(archiving_as(&one, identity, Default::default()).await);
    }
    for ((name, .., secret, reason, words), archiving) in cases.iter().zip(&mut running) {
        let said = archiving.says(reason).await;
        assert!(words.iter().all(|w| said.contains(w)), "{name}: {said}");
        assert!(!said.contains(&good) && (*secret != "wrong" || !said.contains(secret)), "{name}: {said}");
        let works = *reason == "Archiving";
        let begun = Instant::now();
        while !works && archiving.event(reason).is_none() {
            assert!(begun.elapsed() < SOON, "{name}: no Event {reason}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if !works {
            assert!(words.iter().all(|w| archiving.event(reason).unwrap().contains(w)), "{name}");
        }
    }
    // Writes go on all the while, and nothing was written where it may not be.
    one.value("CREATE TABLE t AS SELECT 1 AS x").await;
    let keys = archive.s3.keys();
    assert_eq!(keys, ["default/t/owner-00000000.json", "newer/owner-00000000.json"]);
}

/// A leader with an archive of a snapshot, and rows behind it.
async fn archived(set: &Set, archive: &Archive, part_size: u64) -> (Member, crate::archive::Shipper) {
    let one = set.founded().await;
    one.value("CREATE TABLE t AS SELECT x, md5(x::text) AS y FROM generate_series(1, 20000) x").await;
    let mut shipper = archive.ship(&one, 1, None).await;
    archive.snapshot_in_parts(&one, 1, "first", part_size).await;
    one.value("INSERT INTO t VALUES (0, 'last')").await;
    shipper.caught_up(&one).await;
    (one, shipper)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_set_says_which_object_is_damaged_and_comes_out_of_an_older_snapshot() {
    let Some(set) = Set::new() else { return };
    let archive = Archive::new().await;
    let (one, mut shipper) = archived(&set, &archive, 1 << 30).await;
    let system = archive.snapshot(&one, 1, "second").await;
    one.value("INSERT INTO t VALUES (-1, 'behind the second')").await;
    shipper.caught_up(&one).await;
    let wanted = one.value(ROWS).await;
    let part = archive.s3.bucket_dir().join(format!("default/t/{system}/snapshots/second/part/00000000.tar.zst"));
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes).unwrap();

    let from = json!({ "ref": { "name": "s3" } });
    let from = serde_json::from_value(from).unwrap();
    let mut two = archive.member_on(&set, 2, |_| None, |s| s.restore = Some(from)).await;
    for name in ["access.json", "access-key-id", "secret-access-key"] {
        fs::copy(two.path("archive").join(name), two.path("archive").join(format!("source-{name}"))).unwrap();
    }
    let incarnation = two.incarnation.clone();
    two.want(WantKind::Found { incarnation });
    let why = |p: &String| p.contains("snapshots/second/part/00000000.tar.zst is damaged");
    two.until("which object", |l| l.problem.as_ref().is_some_and(why)).await;
    two.until("its data", |l| l.good()).await;
    crate::archive::lead(&mut two, 1, &[]).await;
    assert_eq!(two.value(ROWS).await, wanted, "all of it, by way of the first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_fills_the_volume_says_so_and_comes_to_its_end_once_there_is_room() {
    let Some(set) = Set::new() else { return };
    if !nix::unistd::Uid::effective().is_root() {
        return say("SKIPPED a restore that fills the volume: only root can make a small one");
    }
    let archive = Archive::new().await;
    let (one, _shipper) = archived(&set, &archive, 1 << 30).await;
    // Something that does not belong there takes the room in which the snapshot would fit.
    let full = |at: &Path| {
        let volume = SmallVolume::mount(at, 400);
        fs::write(at.join("core"), vec![1; 375 << 20]).unwrap();
        Some(volume)
    };
    let mut three = archive.member_on(&set, 3, full, |_| {}).await;
    let slot = one.admitted(&epoch(1), &three, None).await;
    let (incarnation, from) = (three.incarnation.clone(), one.name.clone());
    three.want(WantKind::Clone { incarnation, from, slot, replace: false });
    let mut report = three.driver.report.clone();
    let told = report.wait_for(|r| r.obstacle.is_some());
    let told = tokio::time::timeout(SOON, told).await.unwrap().unwrap().obstacle.clone().unwrap();
    assert_eq!(told.reason, "VolumeFull");
    assert!(
        told.sentence.contains("the volume of t-3 is full (less than 32 MiB of 400 MiB are free"),
        "{}",
        told.sentence
    );
    // What came out of the archive, and what came by copying once that had failed three times.
    for way in ["restoring snapshot first", "cannot write"] {
        let why =
            |p: &String| p.starts_with(way) && p.contains("/volume/pgdata/") && p.contains("No space left on device");
        three.until(way, |l| l.problem.as_ref().is_some_and(why)).await;
    }
    fs::remove_file(three.path("volume/core")).unwrap();
    three.until("its data", |l| l.good()).await;
    follow(&mut three, &one, 1).await;
    let wanted = one.value(ROWS).await;
    three.wait_value(ROWS, &wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_cut_off_in_the_middle_leaves_nothing_that_would_be_taken_for_data() {
    let Some(set) = Set::new() else { return };
    let archive = Archive::new().await;
    let (one, _shipper) = archived(&set, &archive, 1 << 20).await;
    let mut three = archive.member(&set, 3).await;
    archive.s3.faults().set_rate(Some(200 << 10));
    let slot = one.admitted(&epoch(1), &three, None).await;
    let (incarnation, from) = (three.incarnation.clone(), one.name.clone());
    three.want(WantKind::Clone { incarnation, from, slot, replace: false });
    let version = three.path("volume/pgdata/base");
    let begun = Instant::now();
    while !version.exists() {
        assert!(begun.elapsed() < SOON, "nothing comes: {:?}", three.local());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What a killed agent leaves is what one leaves that gives it up: some files, and the mark that they are not all.
    three.want(WantKind::Keep);
    three.restart_driver(WantKind::Keep).await;
    assert!(version.exists() && three.path("volume/state/making").exists());
    three.until("a look", |l| matches!(l.data, pgconvoy_ha::Data::HalfMade)).await;
    archive.s3.faults().set_rate(None);
    let ways = come(&mut three, &one, 1, false).await;
    assert!(ways.len() == 1 && ways[0].starts_with("restoring snapshot first, "), "{ways:?}");
    follow(&mut three, &one, 1).await;
    let wanted = one.value(ROWS).await;
    three.wait_value(ROWS, &wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_agent_is_killed_is_told_to_have_failed_and_the_next_one_is_whole() {
    let Some(set) = Set::new() else { return };
    let archive = Archive::new().await;
    let mut one = archive.member(&set, 1).await;
    let incarnation = one.incarnation.clone();
    one.reach(WantKind::Found { incarnation }).await;
    crate::archive::lead(&mut one, 1, &[]).await;
    one.value("CREATE TABLE t AS SELECT x, md5(x::text) AS y FROM generate_series(1, 20000) x").await;
    let mut first = archiving(&one).await;
    first.says("Archiving").await;
    let api = first.api.clone();
    api.ask("first");
    archive.s3.faults().set_rate(Some(256 << 10));
    first.open.send_replace([("first".to_owned(), Default::default())].into());
    let begun = Instant::now();
    let backups = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_backup_start%'";
    while api.snapshot("first").phase != Some(SnapshotPhase::Running) || one.value(backups).await != "1" {
        assert!(begun.elapsed() < SOON, "{:?}", api.snapshot("first"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(first);
    archive.s3.faults().set_rate(None);
    one.wait_value(backups, "0").await;
    let system = system(&one).await;
    assert_eq!(Inventory::look(&archive.store, system).await.unwrap().good, []);

    // What the next agent is told of it: it is under way, by this member.
    let next = archiving_as(&one, one.config.identity.clone(), api.clone()).await;
    let ends = async |snapshots: Snapshots, name: &str| {
        next.open.send_replace(snapshots);
        let begun = Instant::now();
        loop {
            let now = api.snapshot(name);
            if matches!(now.phase, Some(SnapshotPhase::Failed | SnapshotPhase::Completed)) {
                return now;
            }
            assert!(begun.elapsed() < SOON, "{now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = ends([("first".to_owned(), api.snapshot("first"))].into(), "first").await;
    assert_eq!(told.phase, Some(SnapshotPhase::Failed));
    assert!(told.message.as_deref().unwrap().contains("agent that took it was restarted meanwhile; make another"));
    api.ask("second");
    let told = ends([("second".to_owned(), Default::default())].into(), "second").await;
    assert_eq!(told.phase, Some(SnapshotPhase::Completed), "{told:?}");
    let inventory = Inventory::look(&archive.store, system).await.unwrap();
    assert_eq!(inventory.good.iter().map(|g| g.id.to_string()).collect::<Vec<_>>(), ["second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_gives_way_while_its_follower_is_behind() {
    let Some(set) = Set::new() else { return };
    let archive = Archive::new().await;
    let mut one = archive.member(&set, 1).await;
    let incarnation = one.incarnation.clone();
    one.reach(WantKind::Found { incarnation }).await;
    crate::archive::lead(&mut one, 1, &[]).await;
    one.value("CREATE TABLE t AS SELECT x, repeat(md5(x::text), 30) AS y FROM generate_series(1, 40000) x").await;
    let mut two = archive.member(&set, 2).await;
    come(&mut two, &one, 1, false).await;
    follow(&mut two, &one, 1).await;

    let taker = archiving(&two).await;
    let (system, leader) = (system(&two).await, one.name.clone());
    taker.handle.role.send_replace(Role::Follows { leader, epoch: epoch(1), system });
    let is_there = |name: &str| {
        let manifest = format!("/snapshots/{name}/manifest.json");
        archive.s3.keys().iter().any(|key| key.ends_with(&manifest))
    };
    let take = async |name: &str| {
        taker.api.ask(name);
        taker.open.send_replace([(name.to_owned(), Default::default())].into());
        let begun = Instant::now();
        while taker.api.snapshot(name).phase != Some(SnapshotPhase::Running) {
            assert!(begun.elapsed() < SOON, "nobody takes {name}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // More than 60 MiB of data at 4 MiB/s: fifteen seconds.
    two.value("SELECT pg_wal_replay_pause()").await;
    one.value("SELECT count(pg_logical_emit_message(true, 'x', repeat('x', 1000000))) FROM generate_series(1, 40)")
        .await;
    two.wait_value("SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > 33554432", "t").await;
    take("held-back").await;
    // PostgreSQL has begun the backup, so that it is the reading that takes so long.
    let begun = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_backup_start%' AND state = 'idle'";
    two.wait_value(begun, "1").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!is_there("held-back"), "it was read as if nothing waited");
    two.value("SELECT pg_wal_replay_resume()").await;
    let begun = Instant::now();
    while !is_there("held-back") {
        assert!(begun.elapsed() < SOON, "{:?}", taker.api.snapshot("held-back"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
