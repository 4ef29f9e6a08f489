//! One container of a pod: its process, its lives, its log.

use super::probe::Probe;
use crate::clock;
use crate::machine::container::Spec;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The kubelet's own waiting times between two lives.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A life as long as this makes the next pause the first one again.
const GOOD_LIFE: Duration = Duration::from_secs(600);

/// How a container is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Waiting { reason: String, message: String },
    Running { since: String },
    Terminated { code: i64, since: String, until: String },
}

impl State {
    fn to_value(&self) -> Value {
        match self {
            State::Waiting { reason, message } if message.is_empty() => json!({ "waiting": { "reason": reason } }),
            State::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
            State::Running { since } => json!({ "running": { "startedAt": since } }),
            State::Terminated { code, since, until } => {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                json!({ "terminated": {
                    "exitCode": code, "reason": reason, "startedAt": since, "finishedAt": until } })
            }
        }
    }
}

/// A life of a container has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) container: String,
    pub(super) life: u32,
    pub(super) code: i64,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: String,
    /// From the pod.
    pub(super) spec: Value,
    /// An init container that runs beside the others.
    pub(super) sidecar: bool,
    pub(super) state: State,
    last: Option<State>,
    pub(super) restarts: u32,
    life: u32,
    begun: Instant,
    pause: Duration,
    impatient: bool,
    /// When it may start again.
    pub(super) not_before: Option<Instant>,
    pub(super) ready: bool,
    pub(super) readiness: Option<Probe>,
    pub(super) liveness: Option<Probe>,
    pid_file: PathBuf,
    shim: Option<u32>,
    /// The image that runs.
    image: String,
}

impl Container {
    /// `impatient`: it is started again at once, however often it ends.
    pub(super) fn new(spec: &Value, sidecar: bool, impatient: bool) -> Self {
        let waiting = State::Waiting { reason: "PodInitializing".to_owned(), message: String::new() };
        Self {
            name: spec["name"].as_str().unwrap_or_default().to_owned(),
            spec: spec.clone(),
            sidecar,
            state: waiting,
            last: None,
            restarts: 0,
            life: 0,
            begun: Instant::now(),
            pause: FIRST_PAUSE,
            impatient,
            not_before: None,
            ready: false,
            readiness: None,
            liveness: None,
            pid_file: PathBuf::new(),
            shim: None,
            image: String::new(),
        }
    }

    pub(super) fn image(&self) -> &str {
        self.spec["image"].as_str().unwrap_or_default()
    }

    /// Whether the pod wants another image than the one that runs.
    pub(super) fn outdated(&self) -> bool {
        self.runs() && self.image != self.image()
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(super) fn succeeded(&self) -> bool {
        matches!(self.state, State::Terminated { code: 0, .. })
    }

    /// Which life it is.
    pub(super) fn life(&self) -> u32 {
        self.life
    }

    pub(super) fn waits(&mut self, reason: &str, message: String) {
        self.state = State::Waiting { reason: reason.to_owned(), message };
    }

    /// Starts its next life.
    ///
    /// # Errors
    /// A sentence, when the process cannot be started.
    pub(super) fn start(
        &mut self,
        mut spec: Spec,
        own: &Path,
        logs: &Path,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> Result<(), String> {
        let io = |what: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", what.display());
        self.life += 1;
        let folder = logs.join(&self.name);
        std::fs::create_dir_all(&folder).map_err(|e| io(&folder, &e))?;
        let log = folder.join(format!("{}.log", self.life));
        self.pid_file = own.join(format!("{}.{}.pid", self.name, self.life));
        self.pid_file.clone_into(&mut spec.pid_file);
        let file = own.join(format!("{}.{}.json", self.name, self.life));
        let text = serde_json::to_vec(&spec).map_err(|e| io(&file, &e))?;
        std::fs::write(&file, text).map_err(|e| io(&file, &e))?;
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .arg("shim")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        self.shim = child.id();
        let (lines_in, lines) = mpsc::channel(256);
        type Stream = std::pin::Pin<Box<dyn AsyncRead + Send>>;
        let out = child.stdout.take().map(|s| Box::pin(s) as Stream);
        let err = child.stderr.take().map(|s| Box::pin(s) as Stream);
        for stream in out.into_iter().chain(err) {
            tokio::spawn(read(stream, lines_in.clone()));
        }
        drop(lines_in);
        tokio::spawn(write(log, lines));
        let (container, life) = (self.name.clone(), self.life);
        tokio::spawn(async move {
            let code = child.wait().await.ok().and_then(|s| s.code()).map_or(137, i64::from);
            let _ = ended.send(Ended { container, life, code });
        });
        let now = Instant::now();
        self.begun = now;
        self.image().to_owned().clone_into(&mut self.image);
        self.state = State::Running { since: clock::text(0) };
        self.not_before = None;
        self.readiness = Probe::of(&self.spec, "readinessProbe", now);
        self.liveness = Probe::of(&self.spec, "livenessProbe", now);
        self.ready = self.readiness.is_none();
        Ok(())
    }

    /// Takes note of its end. `again`: it is started again, after a pause that grows.
    pub(super) fn end(&mut self, code: i64, again: bool, at_once: bool) {
        let since = match &self.state {
            State::Running { since } => since.clone(),
            _ => clock::text(0),
        };
        let end = State::Terminated { code, since, until: clock::text(0) };
        self.ready = false;
        self.shim = None;
        if !again {
            self.state = end;
            return;
        }
        self.last = Some(end);
        self.restarts += 1;
        if self.begun.elapsed() > GOOD_LIFE {
            self.pause = FIRST_PAUSE;
        }
        // The first restart comes at once, as the kubelet does it.
        let wait = if at_once || self.impatient || self.restarts == 1 { Duration::ZERO } else { self.pause };
        if wait > Duration::ZERO {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            let message = format!("back-off {}s restarting failed container={}", wait.as_secs(), self.name);
            self.waits("CrashLoopBackOff", message);
        } else {
            self.waits("ContainerCreating", String::new());
        }
        self.not_before = Some(Instant::now() + wait);
    }

    /// Signals its first process.
    pub(super) fn signal(&self, signal: Signal) {
        let Ok(text) = std::fs::read_to_string(&self.pid_file) else {
            // It has not come that far.
            if let Some(shim) = self.shim.filter(|_| signal == Signal::SIGKILL).and_then(|s| i32::try_from(s).ok()) {
                let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
            }
            return;
        };
        if let (true, Ok(pid)) = (self.runs(), text.trim().parse()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Its part of the pod's status.
    pub(super) fn status(&self, uid: &str) -> Value {
        let mut status = json!({
            "name": self.name, "image": self.image(), "imageID": self.image(), "restartCount": self.restarts,
            "ready": self.ready, "started": self.runs(), "state": self.state.to_value(), "lastState": {},
        });
        if self.life > 0 {
            status["containerID"] = json!(format!("embedded://{uid}/{}/{}", self.name, self.life));
        }
        if let Some(last) = &self.last {
            status["lastState"] = last.to_value();
        }
        status
    }
}

async fn read(stream: std::pin::Pin<Box<dyn AsyncRead + Send>>, to: mpsc::Sender<String>) {
    let mut lines = BufReader::new(stream).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let stamp = clock::now();
        let text = String::from_utf8_lossy(&line);
        if to.send(format!("{stamp:.9} {text}\n")).await.is_err() {
            return;
        }
    }
}

async fn write(path: PathBuf, mut lines: mpsc::Receiver<String>) {
    let Ok(mut file) = tokio::fs::File::options().append(true).create(true).open(&path).await else { return };
    while let Some(line) = lines.recv().await {
        let _ = file.write_all(line.as_bytes()).await;
        let _ = file.flush().await;
    }
}
