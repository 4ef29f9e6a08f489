//! PostgreSQL, as the machine has it.

use crate::{gateway::free_port, process::run};
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use pgconvoy_terms::Lsn;
use pgconvoy_wire::{Client, Config, Mode, Target};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// PostgreSQL's programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs(PathBuf);

/// Whom PostgreSQL runs as: it refuses root.
fn account() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("running as root, and there is no user postgres or nobody to run PostgreSQL as")
}

/// Has a command run as PostgreSQL's user.
pub(crate) fn as_postgres(mut command: Command) -> Result<Command> {
    if let Some(user) = account()? {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Ok(command)
}

/// Makes this process one of PostgreSQL's user, as the agent is.
pub(crate) fn become_postgres() -> Result<()> {
    if let Some(user) = account()? {
        nix::unistd::setgid(user.gid)?;
        nix::unistd::setuid(user.uid)?;
    }
    Ok(())
}

/// Gives a tree to PostgreSQL's user.
pub(crate) fn give(path: &Path) -> Result<()> {
    if let Some(user) = account()? {
        run(Command::new("chown").arg("-R").arg(format!("{}:{}", user.uid, user.gid)).arg(path))?;
    }
    Ok(())
}

impl Programs {
    pub(crate) fn find(named: Option<PathBuf>) -> Result<Self> {
        if let Some(dir) = named {
            return Ok(Self(dir));
        }
        let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let version = |path: &Path| path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok());
        let newest = entries.map(|e| e.path()).filter(|p| p.join("bin/postgres").exists()).max_by_key(|p| version(p));
        Ok(Self(newest.context("there is no PostgreSQL in /usr/lib/postgresql; name one with --postgres")?.join("bin")))
    }

    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let mut command = as_postgres(Command::new(self.0.join(program)))?;
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/").stdin(Stdio::null());
        Ok(command)
    }
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) programs: Programs,
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    child: Child,
}

impl Server {
    /// A new cluster. Its archiver does nothing: contenders take its place.
    pub(crate) async fn start(programs: &Programs, dir: PathBuf, segment: u64, settings: &[&str]) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        give(&dir)?;
        let size = format!("--wal-segsize={}", segment >> 20);
        let data = dir.join("data");
        let mut initdb = programs.command("initdb")?;
        run(initdb.args(["-U", "postgres", "-A", "trust", "-N", "--locale=C", "-E", "UTF8", &size, "-D"]).arg(&data))?;
        let port = free_port()?;
        let log = fs::File::create(dir.join("log"))?;
        let mut command = programs.command("postgres")?;
        command.arg("-D").arg(&data);
        let (port_is, socket) = (format!("port={port}"), format!("unix_socket_directories={}", dir.display()));
        let own = [
            port_is.as_str(),
            &socket,
            "listen_addresses=127.0.0.1",
            "shared_buffers=256MB",
            "max_wal_size=64GB",
            "checkpoint_timeout=1h",
            // Without a command: what would be archived waits.
            "archive_mode=on",
        ];
        for setting in own.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { programs: programs.clone(), dir, port, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(e) = server.sql().await {
            if Instant::now() > deadline || server.child.try_wait()?.is_some() {
                bail!("PostgreSQL did not start: {e}: {}", fs::read_to_string(server.dir.join("log"))?);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.dir.join("data/pg_wal")
    }

    pub(crate) async fn sql(&self) -> Result<Client> {
        connect(&self.dir, self.port).await
    }

    /// The first value of the first row, or nothing.
    pub(crate) async fn value(&self, sql: &str) -> Result<String> {
        value(&mut self.sql().await?, sql).await
    }

    pub(crate) async fn lsn(&self, sql: &str) -> Result<Lsn> {
        let text = self.value(sql).await?;
        text.parse().map_err(|_| anyhow::anyhow!("{sql} answered {text:?}"))
    }

    /// What its archiver runs for each segment; nothing: segments wait.
    pub(crate) async fn archive_command(&self, command: &str) -> Result<()> {
        self.value(&format!("ALTER SYSTEM SET archive_command = '{}'", command.replace('\'', "''"))).await?;
        self.value("SELECT pg_reload_conf()").await.map(drop)
    }

    /// Rows of text, as hard to compress as real ones, until there is so much WAL.
    pub(crate) async fn fill(&self, mib: u64) -> Result<()> {
        let mut sql = self.sql().await?;
        sql.simple_query("CREATE TABLE IF NOT EXISTS filled (id bigserial PRIMARY KEY, n int, text text)").await?;
        let begin = self.lsn("SELECT pg_current_wal_insert_lsn()").await?;
        loop {
            sql.simple_query(
                "INSERT INTO filled (n, text) SELECT (random() * 1e6)::int, \
                 md5(random()::text) || ' ' || md5(random()::text) || repeat(' some words', 5) || md5(random()::text) \
                 FROM generate_series(1, 50000)",
            )
            .await?;
            let now = self.lsn("SELECT pg_current_wal_insert_lsn()").await?;
            if now.bytes_since(begin) >= mib << 20 {
                return Ok(());
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Immediate: nothing is worth keeping.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}

/// For replication commands.
pub(crate) fn streaming(dir: &Path, port: u16) -> Config {
    Config::new(Target::Unix { dir: dir.to_owned(), port }, "postgres")
}

/// For SQL.
pub(crate) async fn connect(dir: &Path, port: u16) -> Result<Client> {
    let database = Some("postgres".to_owned());
    Ok(Client::connect(&Config { mode: Mode::Database, database, ..streaming(dir, port) }).await?)
}

pub(crate) async fn value(sql: &mut Client, query: &str) -> Result<String> {
    let rows = sql.simple_query(query).await?;
    Ok(rows.into_iter().next().and_then(|r| r.into_iter().next()).flatten().unwrap_or_default())
}

/// The segments from one position to another, in their order.
pub(crate) fn segments(wal: &Path, from: Lsn, to: Lsn, size: u64) -> Vec<PathBuf> {
    use pgconvoy_terms::{SegmentName, TimelineId};
    (from.0 / size..to.0.div_ceil(size))
        .map(|n| wal.join(SegmentName::holding(TimelineId(1), Lsn(n * size), size).to_string()))
        .collect()
}
