//! PostgreSQL servers that live as long as a test.

use crate::certificates::Certificates;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use pgconvoy_wire::{Client, Config, Mode, Target};
use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

/// Changes when initdb's options below change.
const TEMPLATE: &str = "pgconvoy-wire-template-1";
/// The name in the servers' certificates.
pub(crate) const NAME: &str = "orders-1";

/// One installation of PostgreSQL.
pub(crate) struct Installation {
    pub(crate) bin: PathBuf,
    pub(crate) version: String,
    template: OnceLock<PathBuf>,
}

/// Writes past the test harness's capture, so that it is seen in a run that passes.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn installations() -> &'static [Installation] {
    static FOUND: OnceLock<Vec<Installation>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
        let named = std::env::var_os("PGCONVOY_TEST_POSTGRES").unwrap_or_default();
        let mut bins: Vec<_> = debian.chain(std::env::split_paths(&named)).filter(|bin| bin.is_absolute()).collect();
        bins.sort();
        let version = |bin: &Path| {
            let out = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
            let text = String::from_utf8(out.stdout).ok()?;
            text.split_whitespace().nth(2).map(str::to_owned)
        };
        bins.into_iter()
            .filter_map(|bin| Some(Installation { version: version(&bin)?, bin, template: OnceLock::new() }))
            .collect()
    })
}

/// Runs a test against each installation.
pub(crate) fn each(name: &str, test: impl AsyncFn(&'static Installation)) {
    if installations().is_empty() {
        say(&format!("SKIPPED {name}: no PostgreSQL in /usr/lib/postgresql or PGCONVOY_TEST_POSTGRES"));
    }
    for installation in installations() {
        println!("PostgreSQL {}", installation.version);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test(installation));
    }
}

/// Runs a test against each installation that can do TLS.
pub(crate) fn each_with_tls(name: &str, test: impl AsyncFn(&'static Installation)) {
    each(name, async |pg| {
        if pg.has_tls() {
            test(pg).await;
        } else {
            say(&format!("SKIPPED {name} on PostgreSQL {}: it was built without TLS", pg.version));
        }
    });
}

/// Whom the servers run as: PostgreSQL refuses root.
fn account() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).unwrap());
    Some(user.expect("running as root, and there is no user postgres or nobody to run PostgreSQL as"))
}

/// Gives a file tree to the servers' user.
pub(crate) fn give(path: &Path) {
    let Some(user) = account() else { return };
    std::os::unix::fs::lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|e| give(&e.unwrap().path()));
    }
}

impl Installation {
    /// A command of this installation, run as the servers' user.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        if let Some(user) = account() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; it must succeed.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let out = self.command(program).args(args).output().unwrap();
        let (said, cried) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{program} {args:?}: {said}{cried}");
        said.into_owned()
    }

    /// Has PostgreSQL's own program verify a restored directory.
    pub(crate) fn verify(&self, data: &Path) {
        if !self.command("pg_verifybackup").arg("--version").output().unwrap().status.success() {
            return say(&format!(
                "SKIPPED pg_verifybackup of PostgreSQL {}: this build of it does not run",
                self.version
            ));
        }
        let said = self.run("pg_verifybackup", &[data.to_str().unwrap()]);
        assert!(said.contains("backup successfully verified"), "{said}");
    }

    pub(crate) fn has_tls(&self) -> bool {
        let template = self.template();
        !self.run("postgres", &["-C", "ssl_library", "-D", template.to_str().unwrap()]).trim().is_empty()
    }

    pub(crate) fn major(&self) -> u32 {
        self.version.split('.').next().unwrap().parse().unwrap()
    }

    /// An initialised data directory. It is kept between runs; a lock keeps runs at the same time apart.
    fn template(&self) -> &Path {
        self.template.get_or_init(|| {
            let me = nix::unistd::geteuid();
            let uid = account().map_or(me, |u| u.uid).as_raw();
            let dir = std::env::temp_dir().join(format!("{TEMPLATE}-{me}-{}", self.version));
            let lock = fs::File::create(format!("{}.lock", dir.display())).unwrap();
            lock.lock().unwrap();
            match fs::metadata(&dir) {
                Ok(m) => assert_eq!(m.uid(), uid, "{} belongs to somebody else; remove it", dir.display()),
                Err(_) => {
                    let half = tempfile::tempdir().unwrap();
                    give(half.path());
                    let data = half.path().join("data");
                    let args =
                        ["-D", data.to_str().unwrap(), "-k", "-U", "postgres", "-A", "trust", "-N", "--locale=C"];
                    self.run("initdb", &args);
                    fs::rename(&data, &dir).unwrap();
                }
            }
            dir
        })
    }
}

/// A running server. Dropping it ends it, also in a panic.
pub(crate) struct Server {
    pub(crate) installation: &'static Installation,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    settings: Vec<String>,
    child: Mutex<Child>,
}

/// Copies a tree, cheaply where the file system can.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

impl Server {
    /// A fresh cluster with the roles `replicator` (by certificate), `plain` (trusted) and `secret` (SCRAM).
    pub(crate) async fn start(installation: &'static Installation) -> Self {
        Self::start_with(installation, &[]).await
    }

    /// The same with further settings (`name=value`).
    pub(crate) async fn start_with(installation: &'static Installation, settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("pgw-").tempdir().unwrap();
        let data = dir.path().join("data");
        copy(installation.template(), &data);
        let me = User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        fs::write(data.join("pg_ident.conf"), format!("me {me} postgres\n")).unwrap();
        let mut hba = "local all,replication postgres peer map=me\n".to_owned();
        if installation.has_tls() {
            hba += "hostssl all,replication replicator 127.0.0.1/32 cert\n";
        }
        hba +=
            "host all,replication plain 127.0.0.1/32 trust\nhost all,replication secret 127.0.0.1/32 scram-sha-256\n";
        hba += "host all,replication old 127.0.0.1/32 password\n";
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let server = Self::run(installation, dir, data, Arc::new(Certificates::new()), settings).await;
        let mut sql = server.sql().await;
        let roles = "CREATE ROLE replicator LOGIN REPLICATION; CREATE ROLE plain LOGIN REPLICATION SUPERUSER;
                     CREATE ROLE old LOGIN REPLICATION; CREATE ROLE secret LOGIN REPLICATION PASSWORD 'right'";
        sql.simple_query(roles).await.unwrap();
        server
    }

    /// Starts what was restored into `<dir>/data` as a standby of `primary`.
    pub(crate) async fn standby(primary: &Server, dir: tempfile::TempDir, slot: &str) -> Self {
        let data = dir.path().join("data");
        fs::write(data.join("standby.signal"), "").unwrap();
        give(dir.path());
        let conninfo = format!("primary_conninfo=host=127.0.0.1 port={} user=plain", primary.port);
        let slot = format!("primary_slot_name={slot}");
        let settings = [conninfo.as_str(), &slot, "wal_retrieve_retry_interval=100ms"];
        Self::run(primary.installation, dir, data, primary.certificates.clone(), &settings).await
    }

    async fn run(
        installation: &'static Installation,
        dir: tempfile::TempDir,
        data: PathBuf,
        certificates: Arc<Certificates>,
        settings: &[&str],
    ) -> Self {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut all: Vec<String> = [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "shared_buffers=16MB",
            "max_wal_senders=20",
            "max_replication_slots=20",
            "wal_keep_size=256MB",
            "autovacuum=off",
            "log_line_prefix=%m [%p] ",
        ]
        .map(str::to_owned)
        .to_vec();
        all.push(format!("port={port}"));
        all.push(format!("unix_socket_directories={}", dir.path().display()));
        if installation.has_tls() {
            all.extend(certificates.write_for_server(dir.path()));
        }
        all.extend(settings.iter().map(|s| (*s).to_owned()));
        give(dir.path());
        let child = Mutex::new(spawn(installation, dir.path(), &data, &all));
        let server = Self { installation, certificates, data, port, dir, settings: all, child };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let gone = self.child.lock().unwrap().try_wait().unwrap();
            match Client::connect(&self.local()).await {
                Ok(client) => return client.close().await.unwrap(),
                Err(e) if gone.is_some() || Instant::now() > deadline => {
                    panic!("the server did not start: {e}\n{}", self.log())
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A folder of the server's own, for whatever a test needs.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A physical connection over the Unix socket.
    pub(crate) fn local(&self) -> Config {
        Config::new(Target::Unix { dir: self.dir.path().to_owned(), port: self.port }, "postgres")
    }

    /// A physical connection over TCP, without TLS, trusted.
    pub(crate) fn plain(&self) -> Config {
        self.tcp("plain")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn tcp(&self, user: &str) -> Config {
        Config::new(Target::Tcp { addr: self.address(), server_name: NAME.to_owned() }, user)
    }

    /// A physical connection over TCP with TLS and the certificate of `replicator`.
    pub(crate) fn secure(&self) -> Config {
        let tls = Some(Arc::new(self.certificates.client("replicator")));
        Config { tls, ..self.tcp("replicator") }
    }

    /// A connection that takes SQL.
    pub(crate) async fn sql(&self) -> Client {
        let database = Some("postgres".to_owned());
        Client::connect(&Config { mode: Mode::Database, database, ..self.local() }).await.unwrap()
    }

    /// The first column of the first row.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let mut client = self.sql().await;
        let value = client.simple_query(sql).await.unwrap().remove(0).remove(0).unwrap_or_default();
        client.close().await.unwrap();
        value
    }

    /// Waits until a query says `t`.
    pub(crate) async fn wait_for(&self, sql: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.value(sql).await != "t" {
            assert!(Instant::now() < deadline, "still not: {sql}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal to the postmaster.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.lock().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// Stops the server (fast) and waits for its end.
    pub(crate) async fn stop(&self) {
        self.signal(Signal::SIGINT);
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.child.lock().unwrap().try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the server does not stop\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a stopped server again.
    pub(crate) async fn start_again(&self) {
        *self.child.lock().unwrap() = spawn(self.installation, self.dir.path(), &self.data, &self.settings);
        self.wait_until_ready().await;
    }
}

fn spawn(installation: &Installation, dir: &Path, data: &Path, settings: &[String]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = installation.command("postgres");
    command.arg("-D").arg(data);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = Pid::from_raw(child.id().cast_signed());
        // Immediate: its children go with it, nothing is worth keeping.
        let _ = kill(pid, Signal::SIGQUIT);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill(pid, Signal::SIGKILL);
        let _ = child.wait();
    }
}
