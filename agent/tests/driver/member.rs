//! Members: each a supervisor in namespaces of its own, a volume, and a driver.

use crate::certificates::Authority;
use nix::unistd::{Uid, User};
use pgconvoy_agent::{
    postgres::{DriverConfig, DriverHandle, Inputs, Outputs, spawn},
    settings::{Addresses, Identity, Paths, PostgresReport, PostgresSettings},
};
use pgconvoy_ha::{Data, Local, Permission, Server, Want, WantKind};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, MemberId, MemberName, Position, Rule, Tag};
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Longest wait in a test; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn say(text: &str) {
    // Not eprintln: past the capture of the test harness.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "{text}").unwrap();
}

/// What these tests need of the machine.
pub(crate) struct Machine {
    programs: PathBuf,
    supervisor: PathBuf,
    namespaces: Vec<String>,
    /// The root file system of another image; its user postgres has the number 999. For root only.
    image: Option<PathBuf>,
}

/// Runs its further arguments as the first process of a container with the root file system in the first one.
const ENTER: &str = r#"
root=$1; shift
mount --make-rprivate / && mount --bind "$root" "$root" && mount --bind /tmp "$root/tmp" &&
mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" && cd "$root" && pivot_root . mnt &&
cd / && exec unshare --user --map-user=999 --map-group=999 -- "$@"
"#;

impl Machine {
    /// A command that runs the supervisor as the first process of a container.
    fn container(&self) -> Command {
        let mut command = Command::new("unshare");
        match &self.image {
            None => command.args(&self.namespaces).arg("--mount-proc"),
            Some(root) => {
                command.args(["--mount", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]).arg(root)
            }
        };
        command.arg(&self.supervisor);
        command
    }
}

/// The machine, or none after having said what is missing.
pub(crate) fn machine() -> Option<&'static Machine> {
    static MACHINE: OnceLock<Option<Machine>> = OnceLock::new();
    let found = MACHINE.get_or_init(|| match look_for_machine() {
        Ok(machine) => Some(machine),
        Err(why) => {
            say(&format!("SKIPPED driver tests: {why}"));
            None
        }
    });
    found.as_ref()
}

fn look_for_machine() -> Result<Machine, String> {
    let programs = match std::env::var_os("PGCONVOY_TEST_POSTGRES") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let mut all: Vec<_> = fs::read_dir("/usr/lib/postgresql")
                .map_err(|_| "no PostgreSQL in /usr/lib/postgresql (or set PGCONVOY_TEST_POSTGRES to its bin)")?
                .filter_map(|e| Some(e.ok()?.path().join("bin")))
                .filter(|p| p.join("initdb").exists())
                .collect();
            all.sort();
            all.pop().ok_or("no PostgreSQL server in /usr/lib/postgresql")?
        }
    };
    let mut options: Vec<String> = ["--user", "--ipc", "--pid", "--fork", "--kill-child"].map(String::from).into();
    let root = Uid::effective().is_root();
    match User::from_name("postgres").ok().flatten().filter(|_| root) {
        Some(user) => options.extend([format!("--map-user={}", user.uid), format!("--map-group={}", user.gid)]),
        None if root => return Err("there is no user postgres, whose name peer authentication needs".into()),
        None => options.push("--map-current-user".into()),
    }
    let image = std::env::var_os("PGCONVOY_TEST_ROOT").map(PathBuf::from);
    let tried = Command::new("unshare").args(&options).args(["--mount-proc", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Err(format!("no namespaces: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(e) => return Err(format!("cannot run unshare: {e}")),
    }
    Ok(Machine { programs, supervisor: build_supervisor(), namespaces: options, image })
}

/// The supervisor is another package's program: cargo makes it when it is not there or old, unless one is named.
fn build_supervisor() -> PathBuf {
    if let Some(path) = std::env::var_os("PGCONVOY_TEST_SUPERVISOR") {
        return path.into();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "pgconvoy-supervisor"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success(), "the supervisor cannot be built");
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    target.join("pgconvoy-supervisor")
}

/// A set: its authority, port and addresses.
pub(crate) struct Set {
    machine: &'static Machine,
    authority: Authority,
    port: u16,
    net: u8,
    addresses: watch::Sender<Addresses>,
}

impl Set {
    /// None, having said so, when this machine cannot run one.
    pub(crate) fn new() -> Option<Self> {
        static NET: AtomicU8 = AtomicU8::new(1);
        let machine = machine()?;
        drop(tracing_subscriber::fmt().with_test_writer().with_env_filter("info,pgconvoy_agent=debug").try_init());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let net = NET.fetch_add(1, Ordering::Relaxed);
        Some(Self { machine, authority: Authority::new(), port, net, addresses: watch::channel(Addresses::new()).0 })
    }

    /// Runs `sql` as the application over TLS; what psql says when it cannot.
    pub(crate) fn application(&self, member: &Member, sql: &str) -> Result<String, String> {
        let conninfo = format!(
            "host={} port={} user=shop dbname=orders sslmode=require connect_timeout=5",
            member.config.identity.pod_ip, self.port
        );
        let psql = Command::new("psql").args(["-qXAtc", sql, &conninfo]).env("PGPASSWORD", "geheim").output();
        let psql = psql.unwrap_or_else(|e| panic!("psql: {e}"));
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
        if psql.status.success() { Ok(text(&psql.stdout)) } else { Err(text(&psql.stderr)) }
    }

    pub(crate) fn address(&self, ordinal: u32) -> IpAddr {
        IpAddr::from([127, 77, self.net, u8::try_from(ordinal).unwrap()])
    }

    /// A member with an empty volume and no want.
    pub(crate) async fn member(&self, ordinal: u32) -> Member {
        self.member_with(ordinal, |_| {}).await
    }

    /// A member whose settings are changed by `adjust`.
    pub(crate) async fn member_with(&self, ordinal: u32, adjust: impl FnOnce(&mut PostgresSettings)) -> Member {
        self.member_on(ordinal, |_| None, adjust).await
    }

    /// The same on a volume that `mount` makes of an empty directory.
    pub(crate) async fn member_on(
        &self,
        ordinal: u32,
        mount: impl FnOnce(&Path) -> Option<SmallVolume>,
        adjust: impl FnOnce(&mut PostgresSettings),
    ) -> Member {
        let name = MemberName::new("t", ordinal);
        let dir = tempfile::tempdir().unwrap();
        for part in ["volume", "run", "tls", "app"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        // Before the container, which sees what is mounted when it starts.
        let volume = mount(&dir.path().join("volume"));
        let at = |n: &str| dir.path().join(n);
        self.authority.write(&at("tls"), &name.to_string());
        fs::write(at("app/username"), "shop").unwrap();
        fs::write(at("app/dbname"), "orders").unwrap();
        fs::write(at("app/password"), "geheim").unwrap();
        let paths = Paths {
            volume: at("volume"),
            pgdata: at("volume/pgdata"),
            state: at("volume/state"),
            run: at("run"),
            tls: at("tls"),
            app: at("app"),
            archive: at("archive"),
        };
        let identity = Identity {
            member: name.clone(),
            namespace: "default".into(),
            set_uid: "0000-set".into(),
            adopt: None,
            pod_uid: format!("pod-{ordinal}"),
            pod_ip: self.address(ordinal),
            node: "node".into(),
            paths,
            postgres_port: self.port,
            peers_port: 0,
            http_port: 0,
        };
        let mut config = DriverConfig::new(identity);
        config.programs = Some(self.machine.programs.clone());
        config.listen = self.address(ordinal).to_string();
        self.addresses.send_modify(|a| {
            a.insert(name.clone(), self.address(ordinal));
        });
        let mut settings = PostgresSettings {
            parameters: [("shared_buffers", "16MB"), ("max_connections", "50")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..Default::default()
        };
        adjust(&mut settings);
        let container = self.container(dir.path());
        let want = Want { revision: 1, kind: WantKind::Keep };
        let driver = Driver::start(config.clone(), want, settings.clone(), self.addresses.subscribe());
        let incarnation = Incarnation::from_random(u128::from(ordinal) + u128::from(self.net) * 1000);
        let addresses = self.addresses.subscribe();
        Member { name, incarnation, config, settings, addresses, driver, container, _volume: volume, dir }
    }

    /// Kills the container, and starts it anew as the kubelet does.
    pub(crate) fn restart_container(&self, member: &mut Member) {
        member.container.kill().unwrap();
        member.container.wait().unwrap();
        member.container = self.container(member.dir.path());
    }

    fn container(&self, dir: &Path) -> Child {
        let socket = dir.join("run/supervisor.sock");
        let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let child = self
            .machine
            .container()
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < PATIENCE, "no supervisor");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// Founds the set on `one`, which then leads epoch 1 alone.
    pub(crate) async fn founded(&self) -> Member {
        let mut one = self.member(1).await;
        let incarnation = one.incarnation.clone();
        one.reach(WantKind::Found { incarnation }).await;
        let rule = rule(&epoch(1), &one, &[], 0);
        one.reach(WantKind::Lead { epoch: epoch(1), rule, gate: true }).await;
        one
    }

    /// A new member, cloned from `leader` and following it in `epoch`.
    pub(crate) async fn follower(&self, ordinal: u32, leader: &Member, epoch: &Epoch) -> Member {
        let mut member = self.member(ordinal).await;
        let slot = leader.admitted(epoch, &member, None).await;
        let incarnation = member.incarnation.clone();
        let from = leader.name.clone();
        member.reach(WantKind::Clone { incarnation, from, slot, replace: false }).await;
        let position = member.detached().await;
        leader.admitted(epoch, &member, Some(position)).await;
        member.follow(leader, epoch).await;
        member
    }
}

/// A driver and the other ends of its channels.
pub(crate) struct Driver {
    pub(crate) want: watch::Sender<(Want, Permission)>,
    pub(crate) settings: watch::Sender<PostgresSettings>,
    pub(crate) local: watch::Receiver<Option<Local>>,
    pub(crate) report: watch::Receiver<PostgresReport>,
    pub(crate) term: watch::Receiver<bool>,
    pub(crate) handle: DriverHandle,
    task: JoinHandle<()>,
}

impl Driver {
    fn start(
        config: DriverConfig,
        want: Want,
        settings: PostgresSettings,
        addresses: watch::Receiver<Addresses>,
    ) -> Self {
        let (want_to, want) = watch::channel((want, Permission::Forever));
        let (settings_to, settings) = watch::channel(settings);
        let (local_to, mut locals) = mpsc::channel(4);
        let (report_to, report) = watch::channel(PostgresReport::default());
        let (term_to, term) = watch::channel(false);
        let inputs = Inputs { want, settings, addresses };
        let outputs = Outputs { local: local_to, report: report_to, term: term_to };
        let (task, handle) = spawn(config, inputs, outputs).unwrap();
        let (seen, local) = watch::channel(None);
        tokio::spawn(async move {
            while let Some(local) = locals.recv().await {
                seen.send_replace(Some(local));
            }
        });
        Self { want: want_to, settings: settings_to, local, report, term, handle, task }
    }
}

pub(crate) struct Member {
    pub(crate) name: MemberName,
    pub(crate) incarnation: Incarnation,
    pub(crate) config: DriverConfig,
    settings: PostgresSettings,
    addresses: watch::Receiver<Addresses>,
    pub(crate) driver: Driver,
    container: Child,
    /// Unmounted before its directory goes.
    _volume: Option<SmallVolume>,
    dir: TempDir,
}

/// A volume in memory that can be full. For root only.
pub(crate) struct SmallVolume(PathBuf);

impl SmallVolume {
    pub(crate) fn mount(at: &Path, mib: u32) -> Self {
        let size = format!("size={mib}m,mode=755");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "pgconvoy-test"]).arg(at).status();
        assert!(done.unwrap().success(), "no volume at {}", at.display());
        Self(at.to_owned())
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        // Lazily: what runs there has been killed, and may not be gone yet.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            say(&format!("--- log of {}", self.name));
            tail.iter().rev().for_each(|l| say(l));
        }
        // Kills the namespace with it.
        drop(self.container.kill());
        drop(self.container.wait());
    }
}

impl Member {
    pub(crate) fn id(&self) -> MemberId {
        MemberId { name: self.name.clone(), incarnation: self.incarnation.clone() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn local(&self) -> Option<Local> {
        self.driver.local.borrow().clone()
    }

    /// What `pg_controldata` says of this.
    pub(crate) fn control(&self, what: &str) -> String {
        let program = self.config.programs.as_ref().unwrap().join("pg_controldata");
        let pgdata = &self.config.identity.paths.pgdata;
        let said = std::process::Command::new(program).env("LC_ALL", "C").arg(pgdata).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(what)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {what} in {text}")).trim().to_owned()
    }

    /// Wants something, and does not wait.
    pub(crate) fn want(&self, kind: WantKind) -> u64 {
        self.want_until(kind, Permission::Forever)
    }

    pub(crate) fn want_until(&self, kind: WantKind, permission: Permission) -> u64 {
        let revision = self.driver.want.borrow().0.revision + 1;
        self.driver.want.send_replace((Want { revision, kind }, permission));
        revision
    }

    /// Wants something, and waits until it is reached.
    pub(crate) async fn reach(&mut self, kind: WantKind) -> Local {
        let what = format!("{kind:?}");
        let revision = self.want(kind);
        self.until(&what, |l| l.applied == revision).await
    }

    /// Waits until the report is as `good` says.
    pub(crate) async fn until(&self, what: &str, good: impl Fn(&Local) -> bool) -> Local {
        let mut local = self.driver.local.clone();
        let waited = timeout(PATIENCE, local.wait_for(|l| l.as_ref().is_some_and(&good))).await;
        match waited {
            Ok(seen) => seen.unwrap().clone().unwrap(),
            Err(_) => panic!("{}: {what} was not reached: {:?}", self.name, self.local()),
        }
    }

    /// Makes it a standby that receives from nobody; its position.
    pub(crate) async fn detached(&mut self) -> Position {
        let revision = self.want(WantKind::Detached);
        let known = |l: &Local| {
            l.applied == revision
                && matches!(l.server, Server::Standby { following: None, receiving: false, position: Some(_), .. })
        };
        match self.until("a known position", known).await.server {
            Server::Standby { position: Some(position), .. } => position,
            other => panic!("{other:?}"),
        }
    }

    /// Follows, and waits until it streams.
    pub(crate) async fn follow(&mut self, leader: &Member, epoch: &Epoch) {
        let tag = Tag::new(&self.id(), epoch);
        let slot = tag.slot();
        self.reach(WantKind::Follow { leader: leader.name.clone(), epoch: epoch.clone(), tag, slot, gate: true }).await;
        leader.until("its stream", |l| l.streams().iter().any(|s| s.member == self.id() && s.caught_up)).await;
    }

    /// As leader: lets `member` in, which must succeed.
    pub(crate) async fn admitted(&self, epoch: &Epoch, member: &Member, position: Option<Position>) -> String {
        let answer = self.driver.handle.admit(epoch.clone(), member.id(), position, self.name.clone()).await;
        match answer {
            pgconvoy_ha::Answer::Admitted { slot, from } => {
                assert_eq!(from, self.name);
                slot
            }
            other => panic!("{other:?}"),
        }
    }

    /// One value, over the Unix socket, as the superuser.
    pub(crate) async fn value(&self, sql: &str) -> String {
        self.try_value(sql).await.unwrap_or_else(|e| panic!("{}: {sql}: {e}", self.name))
    }

    pub(crate) async fn try_value(&self, sql: &str) -> Result<String, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.config.identity.paths.run).port(self.config.identity.postgres_port);
        let (client, connection) = config.user("postgres").dbname("postgres").connect(tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        let rows = client.simple_query(sql).await;
        connection.abort();
        let value = rows?.iter().find_map(|m| match m {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(value.unwrap_or_default())
    }

    pub(crate) async fn wait_value(&self, sql: &str, wanted: &str) {
        let begun = Instant::now();
        loop {
            let got = self.try_value(sql).await;
            if got.as_deref().is_ok_and(|v| v == wanted) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}: {sql}: {got:?} instead of {wanted}", self.name);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The supervisor's number outside of its namespace.
    pub(crate) fn supervisor(&self) -> i32 {
        let unshare = self.container.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// Whether the container has ended.
    pub(crate) fn container_ended(&mut self) -> bool {
        self.container.try_wait().unwrap().is_some()
    }

    /// The postmaster's number outside of its namespace.
    pub(crate) fn postmaster(&self) -> i32 {
        let wanted = format!("{}\0", self.config.identity.paths.pgdata.display());
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
            if line.ends_with(&wanted) && line.contains("/postgres\0-D\0") {
                return pid;
            }
        }
        panic!("{}: no postmaster", self.name)
    }

    /// Another driver on the same volume.
    pub(crate) fn second_driver(&self) -> Driver {
        let want = Want { revision: 1, kind: WantKind::Keep };
        Driver::start(self.config.clone(), want, self.settings.clone(), self.addresses.clone())
    }

    /// Changes the spec's settings.
    pub(crate) fn set(&self, change: impl FnOnce(&mut PostgresSettings)) {
        self.driver.settings.send_modify(change);
    }

    pub(crate) fn current_settings(&self) -> PostgresSettings {
        self.driver.settings.borrow().clone()
    }

    /// Why the configuration is refused.
    pub(crate) fn error(&self) -> Option<String> {
        self.driver.report.borrow().configuration_error.clone()
    }

    pub(crate) async fn wait_error(&self, part: &str) {
        let mut report = self.driver.report.clone();
        let good = |r: &PostgresReport| r.configuration_error.as_ref().is_some_and(|e| e.contains(part));
        let waited = timeout(PATIENCE, report.wait_for(good)).await;
        assert!(waited.is_ok(), "{}: no error with {part:?}: {:?}", self.name, self.driver.report.borrow());
    }

    pub(crate) async fn wait_no_error(&self) {
        let mut report = self.driver.report.clone();
        let waited = timeout(PATIENCE, report.wait_for(|r| r.configuration_error.is_none())).await;
        assert!(waited.is_ok(), "{}: {:?}", self.name, self.driver.report.borrow());
    }

    /// Parameters that wait for a restart, once there are any.
    pub(crate) async fn pending(&self) -> Vec<String> {
        let mut report = self.driver.report.clone();
        let waited = timeout(PATIENCE, report.wait_for(|r| !r.pending_restart.is_empty())).await;
        waited.expect("something waits").unwrap().pending_restart.clone()
    }

    /// Ends the agent's part, and starts it anew with this want: PostgreSQL is not touched by that.
    pub(crate) async fn restart_driver(&mut self, kind: WantKind) {
        let settings = self.settings.clone();
        self.restart_driver_with(kind, settings).await;
    }

    pub(crate) async fn restart_driver_with(&mut self, kind: WantKind, settings: PostgresSettings) {
        let revision = self.driver.want.borrow().0.revision + 100;
        let new = |m: &Member| {
            Driver::start(
                m.config.clone(),
                Want { revision, kind: kind.clone() },
                settings.clone(),
                m.addresses.clone(),
            )
        };
        // Dropping the sender of wants ends it, and with it the lock on the volume.
        let (want, _) = watch::channel((Want { revision: 0, kind: WantKind::Keep }, Permission::Forever));
        drop(std::mem::replace(&mut self.driver.want, want));
        timeout(PATIENCE, &mut self.driver.task).await.expect("the driver ends").unwrap();
        self.driver = new(self);
    }
}

pub(crate) trait Streams {
    fn streams(&self) -> Vec<pgconvoy_ha::Stream>;
    fn good(&self) -> bool;
}

impl Streams for Local {
    fn streams(&self) -> Vec<pgconvoy_ha::Stream> {
        match &self.server {
            Server::Primary { streams, .. } => streams.clone(),
            _ => Vec::new(),
        }
    }

    fn good(&self) -> bool {
        matches!(self.data, Data::Good { .. })
    }
}

pub(crate) fn epoch(number: u32) -> Epoch {
    Epoch { number, id: ChangeId::from_random(u128::from(number) * 7_777_777) }
}

pub(crate) fn rule(epoch: &Epoch, leader: &Member, followers: &[&Member], w: u32) -> Rule {
    let followers: BTreeSet<_> = followers.iter().map(|m| m.id()).collect();
    Rule { epoch: epoch.clone(), leader: leader.id(), followers, acknowledgements: w }
}
