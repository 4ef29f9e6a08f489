//! A server on a restored data directory.

use crate::server::{Installation, give};
use pgconvoy_wire::{Client, Config, Mode, Target};
use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub(crate) struct Restored {
    installation: &'static Installation,
    dir: tempfile::TempDir,
    port: u16,
}

impl Restored {
    /// A base backup of a server, with no WAL.
    pub(crate) fn copy(installation: &'static Installation, port: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("pgr-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(dir.path());
        let to = dir.path().join("data");
        let args = ["-D", to.to_str().unwrap(), "-X", "none", "-c", "fast", "--no-manifest", "-h", "127.0.0.1", "-p"];
        let port_text = port.to_string();
        installation.run("pg_basebackup", &[&args[..], &[&port_text, "-U", "plain"]].concat());
        Self::of(installation, dir)
    }

    /// What was restored into `<dir>/data`.
    pub(crate) fn of(installation: &'static Installation, dir: tempfile::TempDir) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Self { installation, dir, port }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Recovers with these settings, and is promoted at the end.
    pub(crate) fn recover(&self, settings: &[String]) {
        fs::write(self.data().join("recovery.signal"), "").unwrap();
        let mut all = vec![
            "listen_addresses = ''".to_owned(),
            format!("port = {}", self.port),
            format!("unix_socket_directories = '{}'", self.dir.path().display()),
            "fsync = off".to_owned(),
            "ssl = off".to_owned(),
            "shared_buffers = 16MB".to_owned(),
            // No lower than on the server that it comes from.
            "max_wal_senders = 20".to_owned(),
            "recovery_target_action = promote".to_owned(),
        ];
        all.extend_from_slice(settings);
        fs::write(self.data().join("postgresql.auto.conf"), all.join("\n")).unwrap();
        give(self.dir.path());
        let log = self.dir.path().join("log");
        let (data, log) = (self.data(), log.to_str().unwrap());
        let start = ["start", "-s", "-w", "-t", "60", "-l", log, "-D", data.to_str().unwrap()];
        let done = self.installation.command("pg_ctl").args(start).status().unwrap();
        assert!(done.success(), "{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The first column of the first row, once it is promoted.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let target = Target::Unix { dir: self.dir.path().to_owned(), port: self.port };
        let config = Config::new(target, "postgres");
        let mut client = Client::connect(&Config { mode: Mode::Database, database: Some("postgres".into()), ..config })
            .await
            .unwrap();
        for _ in 0..600 {
            let rows = client.simple_query("SELECT pg_is_in_recovery()").await.unwrap();
            if rows[0][0].as_deref() == Some("f") {
                return client.simple_query(sql).await.unwrap().remove(0).remove(0).unwrap_or_default();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("it does not come out of recovery\n{}", self.log())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let data = self.data();
        let stop = ["stop", "-s", "-m", "immediate", "-D", data.to_str().unwrap_or_default()];
        let _ = self.installation.command("pg_ctl").args(stop).stderr(std::process::Stdio::null()).status();
    }
}
