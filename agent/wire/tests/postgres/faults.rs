//! Base backups that go wrong: nothing that is damaged or half may look good.

use crate::{
    backup::{begin, filled, restore},
    network::{Fault, Network},
    server::{NAME, Server, each},
};
use nix::sys::signal::Signal;
use pgconvoy_wire::{BackupOptions, Client, Config, Error, ManifestProblem, RestoreOptions, Target};
use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

async fn through(server: &Server, fault: Fault) -> (Network, Config) {
    let network = Network::to(server.address(), fault).await;
    let target = Target::Tcp { addr: network.address, server_name: NAME.into() };
    (network, Config { target, ..server.plain() })
}

async fn failing(config: &Config, dir: &Path, options: BackupOptions) -> Error {
    begin(config, options).await.restore_into(dir, &RestoreOptions::default(), |_| {}).await.unwrap_err()
}

#[test]
fn a_changed_byte_is_found() {
    each("a_changed_byte_is_found", async |pg| {
        let server = Server::start(pg).await;
        let mut sql = server.sql().await;
        sql.simple_query("CREATE TABLE t AS SELECT 'the marked place' AS text; CHECKPOINT").await.unwrap();
        let file = server.value("SELECT pg_relation_filepath('t')").await;
        let dir = tempfile::tempdir().unwrap();
        // Not from the WAL, which also holds the text: it is sent after the table.
        let (network, config) = through(&server, Fault::Flip(b"the marked plac".to_vec())).await;
        let error = failing(&config, &dir.path().join("a"), BackupOptions::new("x")).await;
        assert!(network.has_happened());
        let Error::Damaged { problems } = &error else { panic!("{error}") };
        assert_eq!(problems[..], [ManifestProblem::Checksum(file.clone().into())]);
        assert!(error.to_string().contains(&format!("{file} has a wrong checksum")), "{error}");
        assert!(!dir.path().join("a/backup_manifest").exists());

        // In the manifest itself: its first file's size.
        let (network, config) = through(&server, Fault::Flip(b"\"Size\": ".to_vec())).await;
        let error = failing(&config, &dir.path().join("b"), BackupOptions::new("x")).await;
        assert!(network.has_happened());
        assert_eq!(error.reason(), "Manifest", "{error}");
        // The same two without a fault.
        restore(&server.plain(), &dir.path().join("c"), &RestoreOptions::default()).await;
    });
}

#[test]
fn a_cut_connection_is_a_clean_error() {
    each("a_cut_connection_is_a_clean_error", async |pg| {
        let server = filled(pg).await;
        for (limit, case) in [(200 << 10, "near the beginning"), (8 << 20, "half-way")] {
            let dir = tempfile::tempdir().unwrap();
            let (network, config) = through(&server, Fault::CutAfter(limit)).await;
            let error = failing(&config, &dir.path().join("a"), BackupOptions::new("x")).await;
            assert!(network.has_happened(), "{case}");
            assert_eq!(error.reason(), "Cut", "{case}: {error}");
            assert!(!dir.path().join("a/backup_manifest").exists());
            fs::remove_dir_all(dir.path().join("a")).unwrap();
        }
        // The server is not left with anything.
        server.wait_for("SELECT count(*) = 0 FROM pg_stat_progress_basebackup").await;
    });
}

#[test]
fn a_connection_that_stands_still_is_given_up() {
    each("a_connection_that_stands_still_is_given_up", async |pg| {
        let server = filled(pg).await;
        let (network, config) = through(&server, Fault::StandStillAfter(5 << 20)).await;
        let dir = tempfile::tempdir().unwrap();
        let options = BackupOptions { idle_timeout: Duration::from_millis(500), ..BackupOptions::new("x") };
        let before = Instant::now();
        let error = failing(&config, &dir.path().join("a"), options).await;
        assert!(network.has_happened());
        assert_eq!(error.reason(), "Timeout", "{error}");
        assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    });
}

#[test]
fn a_terminated_walsender_says_why() {
    each("a_terminated_walsender_says_why", async |pg| {
        let server = filled(pg).await;
        let client = Client::connect(&server.local()).await.unwrap();
        let pid = client.process_id();
        let slow = BackupOptions { max_rate: Some(4096), ..BackupOptions::new("x") };
        let mut backup = client.base_backup(slow).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a");
        let terminate = format!("SELECT pg_terminate_backend({pid})");
        let (restore, _) = tokio::join!(
            async { backup.restore_into(&data, &RestoreOptions::default(), |_| {}).await },
            server.value(&terminate)
        );
        let error = restore.unwrap_err();
        // A walsender that waits for us to read cannot say why it ends.
        assert!(error.code() == Some("57P01") || error.reason() == "Cut", "{error}");
    });
}

#[test]
fn a_dropped_restore_leaves_the_directory_alone() {
    each("a_dropped_restore_leaves_the_directory_alone", async |pg| {
        let server = filled(pg).await;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a");
        for round in 0..5 {
            let mut backup = begin(&server.local(), BackupOptions::new("x")).await;
            let (signal, mut begun) = tokio::sync::mpsc::channel(1);
            let options = RestoreOptions::default();
            let restore = backup.restore_into(&data, &options, |_| {
                let _ = signal.try_send(());
            });
            tokio::select! {
                done = restore => panic!("{done:?}"),
                _ = begun.recv() => {}
            }
            fs::remove_dir_all(&data).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!data.exists(), "somebody still wrote to it, round {round}");
        }
    });
}

#[test]
fn a_directory_in_use_is_refused_before_anything_is_written() {
    each("a_directory_in_use_is_refused_before_anything_is_written", async |pg| {
        let server = Server::start(pg).await;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = failing(&server.local(), dir.path(), BackupOptions::new("x")).await;
        assert_eq!(error.reason(), "Target", "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    });
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    each("a_directory_that_cannot_be_made_is_named", async |pg| {
        let server = Server::start(pg).await;
        // Nothing can be created there, whatever the rights.
        let error = failing(&server.local(), Path::new("/proc/self/no"), BackupOptions::new("x")).await;
        assert_eq!(error.reason(), "Disk");
        assert!(error.to_string().contains("/proc/self/no"), "{error}");
    });
}

#[test]
fn a_damaged_page_on_the_server_fails_the_backup() {
    each("a_damaged_page_on_the_server_fails_the_backup", async |pg| {
        let server = filled(pg).await;
        let file = server.data.join(server.value("SELECT pg_relation_filepath('t')").await);
        server.sql().await.simple_query("CHECKPOINT").await.unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
        file.seek(SeekFrom::Start(3 * 8192 + 4000)).unwrap();
        file.write_all(b"rotten").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = failing(&server.local(), &dir.path().join("a"), BackupOptions::new("x")).await;
        assert_eq!(error.code(), Some("XX001"), "{error}");
        assert!(error.to_string().contains("checksum"), "{error}");
    });
}

#[test]
fn a_server_that_stops_fails_the_backup() {
    each("a_server_that_stops_fails_the_backup", async |pg| {
        let server = filled(pg).await;
        let slow = BackupOptions { max_rate: Some(4096), ..BackupOptions::new("x") };
        let mut backup = begin(&server.local(), slow).await;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a");
        let restore = async { backup.restore_into(&data, &RestoreOptions::default(), |_| {}).await };
        let (error, ()) = tokio::join!(restore, async { server.signal(Signal::SIGQUIT) });
        let error = error.unwrap_err();
        assert!(error.code() == Some("57P02") || error.reason() == "Cut", "{error}");
    });
}
