//! Base backups that go well.

use crate::server::{Installation, Server, each, give};
use pgconvoy_terms::SystemId;
use pgconvoy_wire::{
    BackupEvent, BackupOptions, BaseBackup, Client, Config, Durability, RestoreOptions, RestoreProgress, Restored,
};
use std::{fs, path::Path};

/// A server with something in it: some 10 MB.
pub(crate) async fn filled(pg: &'static Installation) -> Server {
    let server = Server::start(pg).await;
    let sql = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 8) AS text FROM generate_series(1, 30000) i";
    server.sql().await.simple_query(sql).await.unwrap();
    server
}

pub(crate) async fn begin(config: &Config, options: BackupOptions) -> BaseBackup {
    Client::connect(config).await.unwrap().base_backup(options).await.unwrap()
}

pub(crate) async fn restore(config: &Config, dir: &Path, options: &RestoreOptions) -> Restored {
    begin(config, BackupOptions::new("test")).await.restore_into(dir, options, |_| {}).await.unwrap()
}

#[test]
fn a_restored_backup_is_verified_and_follows() {
    each("a_restored_backup_is_verified_and_follows", async |pg| {
        let primary = filled(pg).await;
        let mut client = Client::connect(&primary.local()).await.unwrap();
        client.create_physical_slot("follower", true, false).await.unwrap();
        let config = if pg.has_tls() { primary.secure() } else { primary.plain() };
        let mut backup = begin(&config, BackupOptions::new("it's a test")).await;
        assert_eq!(backup.tablespaces().len(), 1);
        let total = backup.estimated_size().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut told: Vec<RestoreProgress> = Vec::new();
        let restored = backup.restore_into(&data, &RestoreOptions::default(), |p| told.push(p)).await.unwrap();
        assert!(told.is_sorted_by_key(|p| p.done) && told.len() > 3 && told.iter().all(|p| p.total == Some(total)));
        assert!(told.last().unwrap().done >= restored.bytes && restored.bytes > 10 << 20);
        assert!(restored.start.lsn < restored.end.lsn && restored.files > 900, "{restored:?}");
        let [range] = restored.wal_ranges[..] else { panic!("{restored:?}") };
        assert_eq!((range.start, range.timeline), (restored.start.lsn, restored.start.timeline));
        let id: SystemId = client.identify_system().await.unwrap().system_id;
        assert_eq!(restored.system_id, (pg.major() >= 17).then_some(id));
        assert!(fs::read_to_string(data.join("backup_label")).unwrap().contains("LABEL: it's a test"));
        // The connection takes commands again.
        backup.into_client().identify_system().await.unwrap();

        give(dir.path());
        pg.verify(&data);

        let standby = Server::standby(&primary, dir, "follower").await;
        primary.sql().await.simple_query("INSERT INTO t VALUES (-1, 'after the backup')").await.unwrap();
        standby.wait_for("SELECT count(*) = 30001 FROM t").await;
        let streaming = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'";
        primary.wait_for(streaming).await;
    });
}

#[test]
fn every_durability_gives_the_same_copy() {
    each("every_durability_gives_the_same_copy", async |pg| {
        let server = Server::start(pg).await;
        for durability in [Durability::None, Durability::EachFile, Durability::Filesystem] {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            restore(&server.local(), &data, &RestoreOptions { durability, ..RestoreOptions::default() }).await;
            give(dir.path());
            pg.verify(&data);
        }
    });
}

#[test]
fn the_parts_come_in_order() {
    each("the_parts_come_in_order", async |pg| {
        let server = Server::start(pg).await;
        let bare = BackupOptions { manifest: false, wal: false, progress: false, ..BackupOptions::new("x") };
        for (options, expected) in
            [(BackupOptions::new("x"), "Archive base.tar, Manifest, End"), (bare, "Archive base.tar, End")]
        {
            let mut backup = begin(&server.local(), options.clone()).await;
            assert_eq!(backup.estimated_size().is_some(), options.progress);
            let mut parts = Vec::new();
            while let Some(event) = backup.next().await.unwrap() {
                match event {
                    BackupEvent::Archive { name, .. } => parts.push(format!("Archive {name}")),
                    BackupEvent::Manifest => parts.push("Manifest".into()),
                    BackupEvent::End(_) => parts.push("End".into()),
                    BackupEvent::Data(_) | BackupEvent::Progress(_) => {}
                }
            }
            assert_eq!(parts.join(", "), expected);
            assert!(backup.next().await.unwrap().is_none());
        }
        // A backup cannot be restored without its manifest: nothing could be checked.
        let dir = tempfile::tempdir().unwrap();
        let options = BackupOptions { manifest: false, ..BackupOptions::new("x") };
        let mut backup = begin(&server.local(), options).await;
        let error = backup.restore_into(&dir.path().join("d"), &RestoreOptions::default(), |_| {}).await.unwrap_err();
        assert_eq!(error.reason(), "Manifest", "{error}");
    });
}

#[test]
fn tablespaces_need_a_place() {
    each("tablespaces_need_a_place", async |pg| {
        let server = Server::start(pg).await;
        let there = server.dir().join("there");
        fs::create_dir(&there).unwrap();
        give(&there);
        let mut sql = server.sql().await;
        sql.simple_query(&format!("CREATE TABLESPACE far LOCATION '{}'", there.display())).await.unwrap();
        sql.simple_query("CREATE TABLE f TABLESPACE far AS SELECT generate_series(1, 1000) i").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (data, here) = (dir.path().join("data"), dir.path().join("here"));

        let mut backup = begin(&server.local(), BackupOptions::new("x")).await;
        assert_eq!(backup.tablespaces().len(), 2);
        let error = backup.restore_into(&data, &RestoreOptions::default(), |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("no place was given"), "{error}");
        assert!(!data.exists());

        let mut options = RestoreOptions::default();
        options.tablespaces.insert(there, here.clone());
        restore(&server.local(), &data, &options).await;
        give(dir.path());
        pg.verify(&data);
        let link = fs::read_dir(data.join("pg_tblspc")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::read_link(link).unwrap(), here);
        assert_eq!(fs::read_dir(&here).unwrap().count(), 1);
    });
}
