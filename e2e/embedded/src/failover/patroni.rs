//! Patroni with etcd on this machine, to be measured beside: three members on loopback, clients with all of them in their
//! connection string.

use super::measure::{Event, System};
use super::processes::{below, everything};
use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_postgres::Config;
use tokio_postgres::config::{LoadBalanceHosts, SslMode, TargetSessionAttrs};

const WHOLE: Duration = Duration::from_secs(240);
/// A member that was killed altogether is started again after this, as something like systemd would.
const AGAIN: Duration = Duration::from_secs(1);

/// Where its programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// What `pip install --target` made of `patroni[etcd3]` and `psycopg2-binary`.
    pub patroni: PathBuf,
    /// The interpreter for it.
    pub python: PathBuf,
    /// The program etcd.
    pub etcd: PathBuf,
    /// The directory of PostgreSQL's programs.
    pub postgres: PathBuf,
}

/// Three members.
pub struct Patroni {
    place: tempfile::TempDir,
    programs: Programs,
    etcd: Child,
    members: Vec<Member>,
    way_in: Config,
    stopped: Vec<i32>,
}

struct Member {
    name: String,
    process: Child,
    rest: u16,
}

/// Both settings are documented ones. `tuned`: the shortest times that Patroni accepts (a ttl below 20 s it does not), no waiting
/// for the recovery of a leader that crashed, quorum commit, and failsafe mode.
fn settings(tuned: bool) -> Value {
    let parameters = json!({ "wal_log_hints": "on", "max_connections": 200 });
    let postgresql = json!({ "use_pg_rewind": true, "use_slots": true, "parameters": parameters });
    if tuned {
        json!({ "ttl": 20, "loop_wait": 1, "retry_timeout": 3, "primary_start_timeout": 0, "synchronous_mode": "quorum",
            "synchronous_node_count": 1, "failsafe_mode": true, "postgresql": postgresql })
    } else {
        json!({ "synchronous_mode": true, "postgresql": postgresql })
    }
}

fn free_ports(n: usize) -> anyhow::Result<Vec<u16>> {
    // All at once, or the same one comes twice.
    let listeners: Vec<TcpListener> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?.iter().map(|a| a.port()).collect())
}

/// PostgreSQL never runs as root, and initdb asks for its user's name: then as `nobody`.
fn user() -> Option<u32> {
    let nobody = || User::from_name("nobody").ok().flatten().map_or(65_534, |u| u.uid.as_raw());
    Uid::effective().is_root().then(nobody)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    if let Some(uid) = user() {
        chown(path, Some(uid.into()), Some(uid.into()))?;
    }
    Ok(())
}

fn start(program: &Path, arguments: &[&str], env: &[(&str, &Path)], log: &Path) -> anyhow::Result<Child> {
    let out = fs::File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.args(arguments).envs(env.iter().copied()).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    command.current_dir("/");
    if let Some(uid) = user() {
        command.uid(uid).gid(uid);
    }
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

impl Patroni {
    /// Starts it.
    ///
    /// # Errors
    /// What is missing.
    pub async fn start(programs: &Programs, tuned: bool) -> anyhow::Result<Self> {
        let place = tempfile::Builder::new().prefix("failover-patroni-").tempdir()?;
        let at = place.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
        // Where they are, only their owner may be able to read them.
        let copied =
            Command::new("cp").args(["-r", "--"]).args([&programs.patroni, &programs.etcd]).arg(at).status()?;
        ensure!(copied.success(), "Patroni and etcd cannot be copied");
        let file = |p: &Path| p.file_name().map(|n| at.join(n)).context("a program without a name");
        let programs = Programs { patroni: file(&programs.patroni)?, etcd: file(&programs.etcd)?, ..programs.clone() };
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        write(&at.join("cert.pem"), &key.cert.pem())?;
        write(&at.join("key.pem"), &key.signing_key.serialize_pem())?;
        if let Some(uid) = user() {
            chown(at, Some(uid.into()), Some(uid.into()))?;
        }
        let ports = free_ports(8)?;
        let (clients, peers) = (format!("http://127.0.0.1:{}", ports[0]), format!("http://127.0.0.1:{}", ports[1]));
        let data = at.join("etcd-data");
        let data = data.to_str().context("an odd directory")?;
        let arguments = [
            ["--data-dir", data],
            ["--listen-client-urls", &clients],
            ["--advertise-client-urls", &clients],
            ["--listen-peer-urls", &peers],
            ["--initial-advertise-peer-urls", &peers],
            ["--initial-cluster", &format!("default={peers}")],
        ];
        let etcd = start(&programs.etcd, arguments.as_flattened(), &[], &at.join("etcd.log"))?;
        let password = crate::cluster::random_name();
        let mut way_in = Config::new();
        way_in.user("postgres").password(&password).dbname("postgres").ssl_mode(SslMode::Require);
        way_in.target_session_attrs(TargetSessionAttrs::ReadWrite).load_balance_hosts(LoadBalanceHosts::Random);
        way_in.connect_timeout(super::writer::PATIENCE);
        let mut patroni = Self { place, programs, etcd, members: vec![], way_in, stopped: vec![] };
        for n in 0..3 {
            let (rest, port) = (ports[2 + n], ports[5 + n]);
            patroni.way_in.host("127.0.0.1").port(port);
            let configuration = patroni.configuration(n, [ports[0], rest, port], &password, tuned);
            let name = format!("m{n}");
            let file = patroni.place.path().join(format!("{name}.yml"));
            // JSON is YAML.
            write(&file, &configuration.to_string())?;
            let process = patroni.run(&name)?;
            patroni.members.push(Member { name, process, rest });
        }
        Ok(patroni)
    }

    fn configuration(&self, n: usize, [etcd, rest, port]: [u16; 3], password: &str, tuned: bool) -> Value {
        let at = |name: &str| self.place.path().join(name).display().to_string();
        let user = |name: &str| json!({ "username": name, "password": password });
        let (rest, port) = (format!("127.0.0.1:{rest}"), format!("127.0.0.1:{port}"));
        json!({
            "scope": "bench", "name": format!("m{n}"),
            "restapi": { "listen": rest, "connect_address": rest },
            "etcd3": { "host": format!("127.0.0.1:{etcd}") },
            "bootstrap": { "dcs": settings(tuned), "initdb": [{ "encoding": "UTF8" }, "data-checksums"] },
            "postgresql": {
                "listen": port, "connect_address": port, "data_dir": at(&format!("m{n}-data")),
                "bin_dir": self.programs.postgres, "pgpass": at(&format!("m{n}.pgpass")),
                "authentication": { "superuser": user("postgres"), "replication": user("replicator"), "rewind": user("rewinder") },
                "pg_hba": ["local all all trust", "host replication replicator 127.0.0.1/32 scram-sha-256",
                    "host all all 127.0.0.1/32 scram-sha-256"],
                "parameters": { "unix_socket_directories": at(""), "ssl": "on", "ssl_cert_file": at("cert.pem"),
                    "ssl_key_file": at("key.pem"), "password_encryption": "scram-sha-256" },
            },
            "watchdog": { "mode": "off" },
        })
    }

    fn run(&self, name: &str) -> anyhow::Result<Child> {
        let file = self.place.path().join(format!("{name}.yml")).display().to_string();
        let log = self.place.path().join(format!("{name}.log"));
        start(&self.programs.python, &["-m", "patroni", &file], &[("PYTHONPATH", &self.programs.patroni)], &log)
    }

    /// Asks the REST API of a member.
    async fn ask(port: u16, request: &str) -> anyhow::Result<String> {
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.context("no answer")??;
        Ok(answer.split_once("\r\n\r\n").context("no HTTP")?.1.to_owned())
    }

    /// What the members know of each other.
    async fn cluster(&self) -> anyhow::Result<Value> {
        for member in &self.members {
            let asked = Self::ask(member.rest, "GET /cluster HTTP/1.0\r\n\r\n");
            let Ok(Ok(body)) = tokio::time::timeout(Duration::from_secs(3), asked).await else { continue };
            if let Ok(cluster) = serde_json::from_str(&body) {
                return Ok(cluster);
            }
        }
        bail!("no member answers; see {}", self.place.path().display())
    }

    async fn leader(&self) -> anyhow::Result<(usize, u32)> {
        let cluster = self.cluster().await?;
        let members = cluster["members"].as_array().into_iter().flatten();
        let leader = members.into_iter().find(|m| m["role"] == "leader").context("nobody leads")?;
        let index = self.members.iter().position(|m| leader["name"] == m.name).context("an unknown leader")?;
        let timeline = leader["timeline"].as_u64().context("a leader without a timeline")?;
        Ok((index, u32::try_from(timeline)?))
    }

    async fn missing(&self) -> anyhow::Result<()> {
        let cluster = self.cluster().await?;
        let (_, timeline) = self.leader().await?;
        let members: Vec<&Value> = cluster["members"].as_array().into_iter().flatten().collect();
        let streams = |m: &&&Value| m["state"] == "streaming" && m["timeline"] == timeline && m["role"] != "leader";
        let synchronous =
            |m: &&Value| m["role"].as_str().is_some_and(|r| r.starts_with("sync") || r.starts_with("quorum"));
        ensure!(members.iter().filter(streams).count() == 2 && members.iter().any(synchronous), "{cluster}");
        super::writer::Session::open(&self.way_in).await.map(drop)
    }

    /// The server of a member: from its `postmaster.pid`, and only if it is ours.
    fn postmaster(&self, index: usize) -> Option<u32> {
        let data = self.place.path().join(format!("m{index}-data"));
        let pid: u32 = fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&command).contains(data.to_str()?).then_some(pid)
    }

    /// Everything that a member consists of.
    fn processes(&self, index: usize) -> Vec<i32> {
        let all = everything();
        let mut pids = vec![self.members[index].process.id()];
        pids.extend(self.postmaster(index));
        let children: Vec<u32> = pids.iter().flat_map(|p| below(&all, *p)).collect();
        pids.extend(children);
        pids.into_iter().filter_map(|p| i32::try_from(p).ok()).collect()
    }
}

fn signal(pids: &[i32], signal: Signal) {
    pids.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid), signal));
}

impl System for Patroni {
    fn knows(&self, event: Event) -> bool {
        matches!(
            event,
            Event::PostmasterKill | Event::ContainerKill | Event::Switchover | Event::Freeze | Event::ApiDown
        )
    }

    fn way_in(&self) -> &Config {
        &self.way_in
    }

    async fn whole(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut well = 0;
        while well < 2 {
            match self.missing().await {
                Ok(()) => well += 1,
                Err(why) if begun.elapsed() > WHOLE => return Err(why.context("Patroni is not whole")),
                Err(_) => well = 0,
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    async fn epoch(&self) -> anyhow::Result<u32> {
        Ok(self.leader().await?.1)
    }

    async fn strike(&mut self, event: Event) -> anyhow::Result<()> {
        let (leader, _) = self.leader().await?;
        match event {
            Event::PostmasterKill => {
                let pid = self.postmaster(leader).context("no postmaster")?;
                signal(&[i32::try_from(pid)?], Signal::SIGKILL);
            }
            Event::ContainerKill => {
                signal(&self.processes(leader), Signal::SIGKILL);
                self.members[leader].process.wait()?;
                tokio::time::sleep(AGAIN).await;
                let name = self.members[leader].name.clone();
                self.members[leader].process = self.run(&name)?;
            }
            Event::Freeze => {
                self.stopped = self.processes(leader);
                signal(&self.stopped, Signal::SIGSTOP);
            }
            Event::ApiDown => {
                self.stopped = vec![i32::try_from(self.etcd.id())?];
                signal(&self.stopped, Signal::SIGSTOP);
            }
            Event::Switchover => {
                let body = json!({ "leader": self.members[leader].name }).to_string();
                let head = format!("POST /switchover HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
                let answer = Self::ask(self.members[leader].rest, &format!("{head}{body}")).await?;
                ensure!(answer.contains("Successfully"), "the switchover was refused: {answer}");
            }
            other => bail!("{other:?} is not done to Patroni"),
        }
        Ok(())
    }

    async fn undo(&mut self) -> anyhow::Result<()> {
        signal(&std::mem::take(&mut self.stopped), Signal::SIGCONT);
        Ok(())
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            let all = self.processes(index);
            signal(&all, Signal::SIGKILL);
            let _ = self.members[index].process.wait();
        }
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}
