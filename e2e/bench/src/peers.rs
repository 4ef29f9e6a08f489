//! pgBackRest and barman-cloud, as their manuals have them: zstd at level 1 where they can, two processes, no local copy.

use crate::{
    gateway::{BUCKET, Gateway, KEY, REGION, SECRET},
    process::{Cost, contender, run},
    server::{Server, as_postgres, give},
};
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which peers take part.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    pub(crate) pgbackrest: Option<PathBuf>,
    pub(crate) barman: Option<PathBuf>,
}

/// pgBackRest for one server.
#[derive(Debug)]
pub(crate) struct PgBackRest {
    program: PathBuf,
    config: PathBuf,
    /// Where its asynchronous processes meet.
    pub(crate) spool: PathBuf,
}

impl PgBackRest {
    pub(crate) fn new(program: &Path, gateway: &Gateway, server: &Server, dir: PathBuf) -> Result<Self> {
        let (spool, lock) = (dir.join("spool"), dir.join("lock"));
        for sub in [&spool, &lock] {
            fs::create_dir_all(sub)?;
        }
        let ca = dir.join("ca.pem");
        fs::copy(gateway.ca(), &ca)?;
        let config = dir.join("pgbackrest.conf");
        fs::write(
            &config,
            format!(
                "[global]\nrepo1-type=s3\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-endpoint=localhost\n\
                 repo1-s3-region={REGION}\nrepo1-s3-key={KEY}\nrepo1-s3-key-secret={SECRET}\n\
                 repo1-s3-uri-style=path\nrepo1-storage-host=localhost\nrepo1-storage-port={}\n\
                 repo1-storage-ca-file={}\narchive-async=y\nspool-path={}\nlock-path={}\nprocess-max=2\n\
                 compress-type=zst\ncompress-level=1\nlog-level-console=error\nlog-level-file=off\nstart-fast=y\n\
                 archive-check=n\n[main]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
                gateway.port,
                ca.display(),
                spool.display(),
                lock.display(),
                server.data().display(),
                server.port,
                server.dir.display(),
            ),
        )?;
        give(&dir)?;
        Ok(Self { program: program.to_owned(), config, spool })
    }

    /// Its command line; what lies in the store begins with `prefix`.
    pub(crate) fn args(&self, prefix: &str, command: &[&str]) -> Vec<String> {
        let mut args = vec![
            self.program.display().to_string(),
            format!("--config={}", self.config.display()),
            "--stanza=main".to_owned(),
            format!("--repo1-path=/{prefix}"),
        ];
        args.extend(command.iter().map(|c| (*c).to_owned()));
        args
    }

    /// Begins anew under a prefix.
    pub(crate) fn create(&self, prefix: &str) -> Result<()> {
        self.forget()?;
        let args = self.args(prefix, &["--no-online", "stanza-create"]);
        run(as_postgres(Command::new(&self.program))?.args(args.iter().skip(1)).current_dir("/")).map(drop)
    }

    /// What its asynchronous processes remember goes.
    pub(crate) fn forget(&self) -> Result<()> {
        let _ = fs::remove_dir_all(&self.spool);
        fs::create_dir_all(&self.spool)?;
        give(&self.spool)
    }

    pub(crate) async fn once(&self, prefix: &str, command: &[&str]) -> Result<Cost> {
        let mut args = vec!["once".to_owned(), "--postgres".to_owned(), "--".to_owned()];
        args.extend(self.args(prefix, command));
        contender(&args, &[]).await
    }
}

/// barman-cloud for one server.
#[derive(Debug)]
pub(crate) struct Barman {
    bin: PathBuf,
    gateway: (String, Vec<(String, String)>),
}

impl Barman {
    pub(crate) fn new(bin: &Path, gateway: &Gateway) -> Self {
        let env = [
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_CA_BUNDLE", gateway.ca().display().to_string()),
        ];
        let env = env.map(|(k, v)| (k.to_owned(), v)).to_vec();
        Self { bin: bin.to_owned(), gateway: (format!("https://127.0.0.1:{}", gateway.port), env) }
    }

    /// For whatever runs it.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.gateway.1
    }

    pub(crate) fn args(&self, program: &str, prefix: &str, options: &[&str]) -> Vec<String> {
        let mut args = vec![self.bin.join(program).display().to_string(), "--endpoint-url".to_owned()];
        args.push(self.gateway.0.clone());
        args.extend(options.iter().map(|o| (*o).to_owned()));
        args.extend([format!("s3://{BUCKET}/{prefix}"), "main".to_owned()]);
        args
    }

    pub(crate) async fn once(&self, args: Vec<String>) -> Result<Cost> {
        let mut all = vec!["once".to_owned(), "--".to_owned()];
        all.extend(args);
        contender(&all, self.env()).await
    }
}
