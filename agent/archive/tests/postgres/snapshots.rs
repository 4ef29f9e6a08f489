//! Snapshots of real servers, and servers from snapshots.

use crate::{
    bench::{ALL_ROWS, Bench, write},
    fetching::{Answering, fetcher},
    restored::Restored,
    server::{Server, each, give},
};
use pgconvoy_archive::snapshot::{Error, Options, RestoreOptions, SnapshotId, list, read_manifest, restore, take};
use pgconvoy_e2e_s3::{Fault, Operation};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

fn id(name: &str) -> SnapshotId {
    name.parse().unwrap()
}

fn options() -> Options {
    // Small parts, so that there are many.
    Options { part_size: 6 << 20, parallel: 3, time: "2026-01-01T00:00:00Z".into(), pace: Arc::default() }
}

/// An empty data directory, closed to others as PostgreSQL wants it.
fn empty() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::Builder::new().prefix("pgs-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    (dir, data)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_server_comes_back_from_a_snapshot_taken_under_load() {
    each("a_server_comes_back_from_a_snapshot_taken_under_load", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let dir = shipper.options.dir.clone();
        server
            .sql()
            .await
            .simple_query("CREATE UNLOGGED TABLE forgotten AS SELECT generate_series(1, 10000)")
            .await
            .unwrap();
        write(&server, 60_000).await;
        let store = Arc::new(bench.store.clone());
        let snapshot = id("20260101T000000Z-abc");
        let config = server.local();
        let busy = async {
            for _ in 0..6 {
                write(&server, 4000).await;
            }
        };
        let options = options();
        let taking = take(store.clone(), &dir, &snapshot, &server.data, &config, &options);
        let (manifest, ()) = tokio::join!(taking, busy);
        let manifest = manifest.unwrap();
        assert!(manifest.parts.len() > 4 && manifest.start < manifest.stop, "{manifest:?}");
        assert_eq!(list(&*store, dir.system).await.unwrap(), std::slice::from_ref(&snapshot));
        assert_eq!(read_manifest(&*store, dir.system, &snapshot).await.unwrap().unwrap(), manifest);
        let again = take(store.clone(), &dir, &snapshot, &server.data, &config, &options).await;
        assert!(matches!(again.unwrap_err(), Error::Id(_)), "a name is used once");

        let last = write(&server, 5).await;
        shipper.archived(last).await;
        let rows = server.value(ALL_ROWS).await;
        drop((shipper, server));

        let (home, data) = empty();
        for fault in [Fault::TornBody, Fault::WrongBytes] {
            bench.s3.faults().order(Operation::Get, ".tar.zst", fault, 1);
        }
        restore(store.clone(), dir.system, &snapshot, &manifest, &data, &RestoreOptions::default()).await.unwrap();
        give(home.path());
        let said = pg.run("pg_verifybackup", &["-n", data.to_str().unwrap()]);
        assert!(said.contains("successfully verified"), "{said}");
        let restored = Restored::of(pg, home);
        let fetcher = fetcher(&bench, &dir, restored.dir().join("ahead"), 20).await;
        let answering = Answering::new(fetcher, restored.dir()).await;
        restored.recover(&[answering.command.clone(), "recovery_target_timeline = '1'".to_owned()]);
        assert_eq!(restored.value(ALL_ROWS).await, rows);
        assert_eq!(restored.value("SELECT count(*) FROM forgotten").await, "0", "unlogged tables come back empty");
    });
}

#[test]
fn a_damaged_or_half_made_snapshot_is_never_restored() {
    each("a_damaged_or_half_made_snapshot_is_never_restored", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let store = Arc::new(bench.store.clone());
        let dir = bench.dir(&server).await;
        // The store fails in the middle: there is no manifest, so there is no snapshot.
        bench.s3.faults().order(Operation::UploadPart, "part/00000002", Fault::AccessDenied, 10);
        let config = server.local();
        let error = take(store.clone(), &dir, &id("half"), &server.data, &config, &options()).await.unwrap_err();
        assert!(error.to_string().contains("grant s3:PutObject"), "{error}");
        assert_eq!(read_manifest(&*store, dir.system, &id("half")).await.unwrap(), None);
        bench.s3.faults().clear();

        // What passes is waited for, also longer than one call's attempts.
        for operation in [Operation::CreateUpload, Operation::UploadPart, Operation::CompleteUpload] {
            bench.s3.faults().order(operation, "part/", Fault::SlowDown, 6);
        }
        let manifest = take(store.clone(), &dir, &id("whole"), &server.data, &config, &options()).await.unwrap();
        let (_home, data) = empty();
        let once = RestoreOptions { tries: 1, ..RestoreOptions::default() };
        fs::write(data.join("something"), "").unwrap();
        let error = restore(store.clone(), dir.system, &id("whole"), &manifest, &data, &once).await.unwrap_err();
        assert!(matches!(error, Error::NotEmpty(_)));

        let part =
            bench.s3.bucket_dir().join(format!("ns/orders/{}/snapshots/whole/part/00000001.tar.zst", dir.system));
        let good = fs::read(&part).unwrap();
        flip(&part);
        let (_home, data) = empty();
        let error = restore(store.clone(), dir.system, &id("whole"), &manifest, &data, &once).await.unwrap_err();
        assert!(error.to_string().contains("part/00000001.tar.zst"), "{error}");
        // A whole other object of the same length.
        fs::write(&part, vec![0; good.len()]).unwrap();
        let (_home, data) = empty();
        let error = restore(store.clone(), dir.system, &id("whole"), &manifest, &data, &once).await.unwrap_err();
        assert!(error.to_string().contains("part/00000001.tar.zst"), "{error}");
        fs::remove_file(&part).unwrap();
        let (_home, data) = empty();
        let error = restore(store, dir.system, &id("whole"), &manifest, &data, &once).await.unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    });
}
