//! A container that is only namespaces, and a client.

use nix::unistd::{Uid, User};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{Done, ErrorCode, Event, Message, Permit, Program, Refusal, Request, Response, Status},
};
use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub(crate) const SUPERVISOR: &str = env!("CARGO_BIN_EXE_pgconvoy-supervisor");

/// Says that a test did not run. Past the capture of the test harness: it must be seen.
pub(crate) fn skipped(what: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED supervisor: {what}: {why}").unwrap();
}

/// Prints a figure, past the capture of the test harness.
pub(crate) fn figure(text: &str) {
    writeln!(std::io::stderr(), "supervisor: {text}").unwrap();
}

/// The options of `unshare` that make a PID namespace in which this user is PostgreSQL's.
pub(crate) fn namespaces() -> Option<Vec<String>> {
    let mut options: Vec<String> = ["--user", "--ipc", "--pid", "--fork", "--kill-child"].map(String::from).into();
    match User::from_name("postgres").ok().flatten().filter(|_| Uid::effective().is_root()) {
        Some(user) => options.extend([format!("--map-user={}", user.uid), format!("--map-group={}", user.gid)]),
        // Without such a user every name is as good: but not root, which PostgreSQL refuses.
        None if Uid::effective().is_root() => options.extend(["--map-user=999".into(), "--map-group=999".into()]),
        None => options.push("--map-current-user".into()),
    }
    let tried = Command::new("unshare").args(&options).args(["--mount-proc", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => Some(options),
        Ok(output) => {
            skipped("everything in a namespace", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(e) => {
            skipped("everything in a namespace", &format!("cannot run unshare: {e}"));
            None
        }
    }
}

/// Tests share the machine, but for those that measure time.
static MACHINE: RwLock<()> = RwLock::new(());

enum Share {
    Some(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    All(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

/// A supervisor in namespaces of its own, and a directory that it shares with the test.
pub(crate) struct Container {
    pub(crate) dir: TempDir,
    unshare: Child,
    /// A log that is not read.
    _unread: Option<std::io::PipeReader>,
    _share: Share,
}

impl Container {
    /// Starts one; none if that is not possible here.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With further arguments for the supervisor.
    pub(crate) fn with(arguments: &[&str]) -> Option<Self> {
        Self::in_dir(tempfile::tempdir().unwrap(), arguments)
    }

    /// In a directory that may hold something.
    pub(crate) fn in_dir(dir: TempDir, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new("unshare");
        command.args(namespaces()?).args(["--mount-proc", SUPERVISOR, "--socket"]).arg(dir.path().join("socket"));
        command.args(arguments);
        Some(Self::launch(dir, command, false))
    }

    /// Whose log goes into a pipe that nobody reads.
    pub(crate) fn unread() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(namespaces()?).args(["--mount-proc", SUPERVISOR, "--socket"]).arg(dir.path().join("socket"));
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut container = Self::started(dir, command, false);
        container._unread = Some(reader);
        Some(container)
    }

    /// With no other test beside it: for those that measure.
    pub(crate) fn alone(supervisor: &Path) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(namespaces()?).arg("--mount-proc").arg(supervisor);
        command.arg("--socket").arg(dir.path().join("socket"));
        Some(Self::launch(dir, command, true))
    }

    /// Starts `command`, which ends in a supervisor that makes `socket` and logs into `log` in `dir`.
    pub(crate) fn launch(dir: TempDir, mut command: Command, alone: bool) -> Self {
        let log = fs::File::create(dir.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Self::started(dir, command, alone)
    }

    fn started(dir: TempDir, mut command: Command, alone: bool) -> Self {
        let share = match alone {
            false => Share::Some(MACHINE.read().unwrap_or_else(PoisonError::into_inner)),
            true => Share::All(MACHINE.write().unwrap_or_else(PoisonError::into_inner)),
        };
        let unshare = command.stdin(Stdio::null()).spawn().unwrap();
        // The command holds the writing ends of a log that nobody reads.
        drop(command);
        let mut container = Self { dir, unshare, _unread: None, _share: share };
        wait_for("the supervisor's socket", || {
            if let Some(status) = container.unshare.try_wait().unwrap() {
                panic!("the supervisor ended with {status}: {}", container.log());
            }
            UnixStream::connect(container.socket()).is_ok()
        });
        container
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    pub(crate) fn log(&self) -> String {
        // A container whose log is not read has none.
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket())
    }

    /// The supervisor's number outside its namespace.
    pub(crate) fn pid(&self) -> i32 {
        let unshare = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// Signals the supervisor from outside, as a container runtime does.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Everything in the namespace but the supervisor: number outside, state.
    pub(crate) fn others(&self) -> Vec<(i32, char)> {
        let pid = self.pid();
        let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        members(&namespace).into_iter().filter(|(other, _)| *other != pid).collect()
    }

    /// Those of them that are not zombies.
    pub(crate) fn living(&self) -> Vec<(i32, char)> {
        self.others().into_iter().filter(|(_, state)| !matches!(state, 'Z' | 'X')).collect()
    }

    /// How the supervisor ended (`unshare` passes it on), if it does within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.unshare.try_wait().unwrap() {
                return Some(status);
            }
            sleep(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its parent's death kills the supervisor, and that the namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        if std::thread::panicking() {
            figure(&format!("log of the container:\n{}", self.log()));
        }
    }
}

/// The processes of a PID namespace.
pub(crate) fn members(namespace: &Path) -> Vec<(i32, char)> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let inside = numbers.filter(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == namespace));
    inside.filter_map(|pid| Some((pid, state(pid)?))).collect()
}

pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// How late this machine is: a thread that does nothing but sleep, and how long after its time it wakes.
pub(crate) struct Lateness {
    watching: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Lateness {
    pub(crate) fn watch() -> Self {
        let watching = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&watching);
        let thread = std::thread::spawn(move || {
            let (mut worst, step) = (Duration::ZERO, Duration::from_millis(2));
            while seen.load(Ordering::Relaxed) {
                let begun = Instant::now();
                sleep(step);
                worst = worst.max(begun.elapsed().saturating_sub(step));
            }
            worst
        });
        Self { watching, thread }
    }

    /// What a limit in milliseconds becomes on this machine: the limit where there is CPU, more where there is none
    /// (a dozen processes must get some to exit, so it is several times what one thread waits).
    pub(crate) fn allow(self, limit: u64) -> u64 {
        self.watching.store(false, Ordering::Relaxed);
        limit + 10 * self.thread.join().unwrap().as_millis() as u64
    }
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within 60 s");
        sleep(Duration::from_millis(2));
    }
}

pub(crate) fn until(millis: u64) -> Permit {
    Permit::Until(Boottime::now().after(Duration::from_millis(millis)))
}

pub(crate) fn program(words: &[&str]) -> Program {
    Program {
        exec: words[0].into(),
        cwd: "/".into(),
        args: words[1..].iter().map(Into::into).collect(),
        ..Program::default()
    }
}

pub(crate) fn shell(script: &str) -> Program {
    program(&["sh", "-c", script])
}

/// A program that lives until a signal ends it, as a postmaster with two children in sessions of their own.
pub(crate) fn pretender() -> Program {
    shell("trap 'exit 7' INT; setsid sleep 1000 & setsid sleep 1000 & while :; do sleep 0.02; done")
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    reader: BufReader<UnixStream>,
    aside: VecDeque<Message>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader, aside: VecDeque::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next line; none at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let mut line = Vec::new();
        let n = self.reader.read_until(b'\n', &mut line).unwrap();
        if n == 0 {
            return None;
        }
        assert_eq!(line.pop(), Some(b'\n'), "an unfinished line: {line:?}");
        Some(Message::parse(&line).unwrap())
    }

    pub(crate) fn response(&mut self) -> Response {
        loop {
            match self.next().expect("the connection was closed instead of an answer") {
                Message::Response(response) => return response,
                other => self.aside.push_back(other),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Response {
        self.send(request.to_line().unwrap().as_bytes());
        self.response()
    }

    pub(crate) fn refused(&mut self, request: &Request) -> Refusal {
        match self.ask(request) {
            Response::Error(refusal) => refusal,
            other => panic!("{request:?} was answered {other:?}"),
        }
    }

    pub(crate) fn refusal_code(&mut self, request: &Request) -> ErrorCode {
        self.refused(request).code
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.ask(&Request::Status) {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self, epoch: &str, permit: Permit, program: Program) -> i32 {
        match self.ask(&start(epoch, permit, program)) {
            Response::Start { pid } => pid,
            other => panic!("START was answered {other:?}"),
        }
    }

    /// Runs a tool to its end.
    pub(crate) fn run(&mut self, program: Program) -> Done {
        match self.ask(&run("t", 120_000, program)) {
            Response::Run { .. } => self.done(),
            other => panic!("RUN was answered {other:?}"),
        }
    }

    pub(crate) fn done(&mut self) -> Done {
        match self.unasked() {
            Message::Done(done) => done,
            other => panic!("expected DONE, got {other:?}"),
        }
    }

    pub(crate) fn event(&mut self) -> Event {
        match self.unasked() {
            Message::Event(event) => event,
            other => panic!("expected an event, got {other:?}"),
        }
    }

    pub(crate) fn watch(&mut self) {
        assert_eq!(self.ask(&Request::Watch), Response::Watch);
    }

    fn unasked(&mut self) -> Message {
        self.aside.pop_front().unwrap_or_else(|| self.next().expect("the connection was closed"))
    }
}

pub(crate) fn start(epoch: &str, permit: Permit, program: Program) -> Request {
    Request::Start { id: "s".into(), epoch: epoch.into(), permit, program }
}

pub(crate) fn run(id: &str, timeout_ms: u64, program: Program) -> Request {
    Request::Run { id: id.into(), timeout: Duration::from_millis(timeout_ms), program, stdin: None }
}
