//! What the parts stand on: the store, and a server with a backlog of WAL.

use crate::{
    Options,
    gateway::Gateway,
    peers::{Barman, Peers, PgBackRest},
    process::{Cost, contender, run},
    server::{Programs, Server, segments},
};
use anyhow::{Context, Result};
use pgconvoy_terms::Lsn;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub(crate) const SEGMENT: u64 = 16 << 20;

pub(super) struct Bed {
    pub(super) runs: usize,
    pub(super) size: u64,
    pub(super) programs: Programs,
    pub(super) gateway: Gateway,
    peers: Peers,
    filled: Option<Filled>,
    // The last: everything that lies in it has ended by then.
    dir: tempfile::TempDir,
}

/// A server that has written so much WAL that nobody has archived.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) server: Server,
    /// A copy from before it was written.
    pub(super) base: PathBuf,
    pub(super) from: Lsn,
    /// Where recovery is to stop, and where the segment behind it ends.
    pub(super) target: Lsn,
    pub(super) until: Lsn,
    pub(super) pgbackrest: Option<PgBackRest>,
    pub(super) barman: Option<Barman>,
}

impl Bed {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("pgconvoy-bench-").tempdir_in(&options.dir)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            runs: options.runs,
            size: options.size,
            programs: Programs::find(options.postgres.clone())?,
            gateway: Gateway::start(&options.versitygw, dir.path().join("s3"))?,
            peers: Peers { pgbackrest: options.pgbackrest.clone(), barman: options.barman.clone() },
            filled: None,
            dir,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server with the backlog, made at the first call.
    pub(super) async fn filled(&mut self) -> Result<&Filled> {
        if self.filled.is_none() {
            self.filled = Some(self.fill().await?);
        }
        self.filled.as_ref().context("no server")
    }

    /// The same, if it was made.
    pub(super) fn known(&self) -> Option<&Filled> {
        self.filled.as_ref()
    }

    pub(super) fn end_filled(&mut self) {
        if let Some(filled) = self.filled.take() {
            let dir = filled.server.dir.clone();
            drop(filled);
            let _ = fs::remove_dir_all(dir);
            let _ = fs::remove_dir_all(self.path("base"));
        }
    }

    async fn fill(&self) -> Result<Filled> {
        eprintln!("writing {} MiB of WAL", self.size);
        let settings = ["fsync=off", "autovacuum=off"];
        let server = Server::start(&self.programs, self.path("filled"), SEGMENT, &settings).await?;
        server.value("SELECT pg_switch_wal()").await?;
        let from = server.lsn("SELECT pg_current_wal_flush_lsn()").await?;
        let base = self.path("base");
        let mut copy = server.programs.command("pg_basebackup")?;
        copy.args(["-X", "fetch", "--checkpoint=fast", "-U", "postgres", "-h"]).arg(&server.dir);
        fs::create_dir(&base)?;
        fs::set_permissions(&base, fs::Permissions::from_mode(0o700))?;
        crate::server::give(&base)?;
        run(copy.args(["-p", &server.port.to_string(), "-D"]).arg(&base))?;
        server.fill(self.size).await?;
        let target = server.lsn("SELECT pg_current_wal_insert_lsn()").await?;
        server.value("SELECT pg_logical_emit_message(true, 'bench', 'the end')").await?;
        server.value("SELECT pg_switch_wal()").await?;
        server.value("SELECT pg_logical_emit_message(true, 'bench', 'behind it')").await?;
        server.value("CHECKPOINT").await?;
        let from = Lsn(from.0 - from.0 % SEGMENT);
        let until = Lsn(target.0 - target.0 % SEGMENT + SEGMENT);
        let pgbackrest = match &self.peers.pgbackrest {
            Some(program) => Some(PgBackRest::new(program, &self.gateway, &server, self.path("pgbackrest"))?),
            None => None,
        };
        let barman = self.peers.barman.as_deref().map(|bin| Barman::new(bin, &self.gateway));
        Ok(Filled { server, base, from, target, until, pgbackrest, barman })
    }

    /// pgBackRest for another server.
    pub(super) fn pgbackrest(&self, server: &Server, name: &str) -> Result<Option<PgBackRest>> {
        match &self.peers.pgbackrest {
            Some(program) => Ok(Some(PgBackRest::new(program, &self.gateway, server, self.path(name))?)),
            None => Ok(None),
        }
    }

    /// Runs a contender of ours.
    pub(super) async fn ours(&self, args: &[String]) -> Result<Cost> {
        contender(args, &self.gateway.env()).await
    }

    /// A list of files, for a contender.
    pub(super) fn list(&self, files: &[PathBuf]) -> Result<PathBuf> {
        let path = self.path("list");
        let text: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        fs::write(&path, text.join("\n"))?;
        Ok(path)
    }
}

impl Filled {
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        segments(&self.server.wal(), self.from, self.until, SEGMENT)
    }

    /// The command line that ships the backlog under a prefix.
    pub(super) fn ship(&self, prefix: &str) -> Vec<String> {
        let mut args = ship_args(&self.server, prefix, self.from, SEGMENT);
        args.extend(["--until".to_owned(), self.until.to_string()]);
        args
    }
}

/// The command line that ships a server's WAL; how it ends is still missing.
pub(super) fn ship_args(server: &Server, prefix: &str, from: Lsn, segment: u64) -> Vec<String> {
    arguments(
        "ship",
        &[
            ("prefix", prefix.to_owned()),
            ("socket", server.dir.display().to_string()),
            ("port", server.port.to_string()),
            ("from", from.to_string()),
            ("segment-size", segment.to_string()),
        ],
    )
}

pub(super) fn arguments(work: &str, options: &[(&str, String)]) -> Vec<String> {
    let mut args = vec![work.to_owned()];
    for (name, value) in options {
        args.extend([format!("--{name}"), value.clone()]);
    }
    args
}

pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}
