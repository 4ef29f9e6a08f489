//! The program that a person, or a test, starts: makes the directory, starts the process inside, shows what it says and
//! forwards connections.

use super::{Keys, SETTINGS, Settings, Word, forward, janitor, network};
use crate::postgres;
use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// What a cluster is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where its directory is made; default: the system's for temporary files.
    pub parent: Option<PathBuf>,
    /// The directory that pgconvoy's programs are in; default: this program's own.
    pub programs: Option<PathBuf>,
    /// The directory of PostgreSQL's programs; default: the newest of the machine.
    pub postgres: Option<PathBuf>,
    /// The program pgconvoy-embedded itself; default: this one.
    pub own: Option<PathBuf>,
    /// Port of the API server; 0: any.
    pub api_port: u16,
    /// Without the operator.
    pub no_operator: bool,
    /// Files to apply before the operator starts.
    pub apply: Vec<PathBuf>,
    /// Whom an object store in the cluster lets in; none: there is no store.
    pub store: Option<Keys>,
    /// There is a PgArchive from the start that leads to it.
    pub lead_to_store: bool,
    /// Start containers again at once, however often they end: who tests that has no time for the kubelet's growing pauses.
    pub impatient: bool,
}

/// A cluster that runs. Dropped, it goes with everything that it started.
pub struct Cluster {
    child: Child,
    /// Open as long as this process lives.
    stdin: Option<ChildStdin>,
    /// Takes the directory away should this process be killed.
    _janitor: janitor::Janitor,
    words: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    directory: PathBuf,
    _lock: Flock<File>,
}

/// How the names of clusters' directories begin.
pub(crate) const PREFIX: &str = "pgconvoy-embedded-";
const NODES: u32 = 3;

impl Cluster {
    /// Starts one.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let parent = options.parent.clone().unwrap_or_else(std::env::temp_dir);
        sweep(&parent);
        let directory = parent.join(format!("{PREFIX}{}-{:08x}", std::process::id(), rand::random::<u32>()));
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let made = Self::start_in(options, &directory);
        if made.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        made
    }

    fn start_in(options: &Options, directory: &Path) -> anyhow::Result<Self> {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .context("cannot make the directory private")?;
        let lock = File::create(directory.join("lock")).context("cannot make a file")?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e).context("cannot lock")?;
        let own = options.own.clone().map_or_else(std::env::current_exe, Ok).context("cannot find this program")?;
        let programs = options.programs.clone().or_else(|| own.parent().map(Path::to_path_buf)).unwrap_or_default();
        let postgres = match &options.postgres {
            Some(bin) => bin.clone(),
            None => {
                let found = postgres::find(&[]);
                found
                    .map_err(|e| anyhow::anyhow!("{e}: install the package postgresql, or say where its programs are"))?
                    .bin
            }
        };
        if !postgres.join("postgres").is_file() {
            bail!("there is no program postgres in {}", postgres.display());
        }
        let root = Uid::effective().is_root();
        // Whoever runs the cluster must be able to read them, wherever Cargo put them.
        let place = directory.join("programs");
        fs::create_dir(&place).context("cannot make a directory")?;
        let program = |name: &str| -> anyhow::Result<PathBuf> {
            let (from, to) = (programs.join(name), place.join(name));
            // They are given away, and Cargo's own are not ours to give: root makes copies.
            let linked = if root { Err(std::io::ErrorKind::Unsupported.into()) } else { fs::hard_link(&from, &to) };
            linked
                .or_else(|_| fs::copy(&from, &to).map(drop))
                .with_context(|| format!("there is no {}; build it: cargo build -p {name}", from.display()))?;
            Ok(to)
        };
        let binary = place.join("pgconvoy-embedded");
        fs::copy(&own, &binary).context("cannot copy this program")?;
        let port = free_port(options.api_port)?;
        let settings = Settings {
            directory: directory.to_path_buf(),
            api_port: port,
            operator: if options.no_operator { None } else { Some(program("pgconvoy-operator")?) },
            agent: program("pgconvoy-agent")?,
            supervisor: program("pgconvoy-supervisor")?,
            postgres,
            apply: options.apply.iter().map(|f| absolute(f)).collect::<Result<_, _>>()?,
            nodes: NODES,
            store: options.store.clone(),
            lead_to_store: options.lead_to_store,
            impatient: options.impatient,
        };
        // Copied, too: whoever runs the cluster may not be allowed to where they are.
        let mut settings = settings;
        let manifests = directory.join("manifests");
        fs::create_dir(&manifests).context("cannot make a directory")?;
        for (i, file) in settings.apply.iter_mut().enumerate() {
            let to = manifests.join(format!("{i}.yaml"));
            fs::copy(&*file, &to).with_context(|| format!("cannot read {}", file.display()))?;
            *file = to;
        }
        let path = directory.join("settings.json");
        fs::write(&path, serde_json::to_vec(&settings)?).context("cannot write the settings")?;
        let mut command = std::process::Command::new(binary);
        command.arg("enter").env(SETTINGS, &path).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        if root {
            let nobody = unused_uid();
            give(directory, nobody)?;
            command.uid(nobody).gid(nobody);
        }
        let janitor = janitor::Janitor::start(&own, directory)?;
        let mut child = Command::from(command).kill_on_drop(true).spawn().context("cannot start the cluster")?;
        let stdin = child.stdin.take();
        let words = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        Ok(Self { child, stdin, _janitor: janitor, words, directory: directory.to_path_buf(), _lock: lock })
    }

    /// Where the cluster's files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `KUBECONFIG` must be.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// The next thing that the cluster says; nothing when it is over. Forwards connections on the way. Where the port of a
    /// Service is taken on this machine (a PostgreSQL that listens at every address, or another cluster), the word names
    /// the one that was free instead.
    ///
    /// # Errors
    /// When the API server's port is taken, or the cluster failed.
    pub async fn word(&mut self) -> anyhow::Result<Option<Word>> {
        let Some(line) = self.words.next_line().await.context("the cluster cannot be heard")? else { return Ok(None) };
        let mut word: Word = serde_json::from_str(&line).with_context(|| format!("the cluster said {line:?}"))?;
        match &mut word {
            Word::Listen { at, to, .. } => {
                let fixed = to.ip() == network::API;
                *at = forward::listen(*at, fixed, *to, self.directory.join(forward::SOCKET)).await?;
            }
            Word::Failed(why) => bail!("{why}"),
            Word::Say(_) | Word::Ready => {}
        }
        Ok(Some(word))
    }

    /// Ends it and takes its directory away.
    ///
    /// # Errors
    /// When something stays behind.
    pub async fn end(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        if tokio::time::timeout(std::time::Duration::from_secs(5), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        fs::remove_dir_all(&self.directory).with_context(|| format!("cannot remove {}", self.directory.display()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The child is killed by tokio, and the kernel kills everything inside.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Takes away directories of clusters that were killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("there is no {}", path.display()))
}

fn free_port(wanted: u16) -> anyhow::Result<u16> {
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), wanted);
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}; name another port"))?;
    Ok(listener.local_addr().context("a socket without an address")?.port())
}

/// A user that nobody is.
fn unused_uid() -> u32 {
    let taken = |uid: &u32| nix::unistd::User::from_uid(Uid::from_raw(*uid)).ok().flatten().is_some();
    (50_000..59_999).rev().find(|uid| !taken(uid)).unwrap_or(65_534)
}

fn give(path: &Path, uid: u32) -> anyhow::Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            give(&entry.path(), uid)?;
        }
    }
    chown(path, Some(uid), Some(uid)).with_context(|| format!("cannot give {} away", path.display()))
}
