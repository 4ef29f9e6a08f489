//! The program behind `./quickstart`, in a place of its own.

use super::{ONE, PROGRAM, possible, root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long it may say nothing. Longer than what the tour itself waits for anything.
const SILENCE: Duration = Duration::from_secs(200);

/// A tour under way.
pub(crate) struct Tour {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// What it has said so far.
    pub(crate) said: String,
    place: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Tour {
    /// Starts one; none if this machine cannot.
    pub(crate) fn start(arguments: &[&str]) -> Option<Tour> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !possible() {
            return None;
        }
        let place = tempfile::Builder::new().prefix("tour-").tempdir().unwrap();
        // Started by root, the cluster is somebody else's.
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("tour").args(arguments).current_dir(root()).env("TMPDIR", place.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (line, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| line.send(l)));
        Some(Tour { child, lines, said: String::new(), place, _one: one })
    }

    /// Reads on until a line has `word`.
    pub(crate) fn until(&mut self, word: &str) {
        while let Some(line) = self.line() {
            if line.contains(word) {
                return;
            }
        }
        let mut complaint = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        panic!("{word:?} was not said:\n{}\n{complaint}", self.said);
    }

    /// Its next line; none at its end. Never waits for ever for one that keeps still.
    fn line(&mut self) -> Option<String> {
        let line = match self.lines.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.signal(Signal::SIGKILL);
                panic!("nothing more was said for {SILENCE:?}:\n{}", self.said);
            }
        };
        self.said.push_str(&line);
        self.said.push('\n');
        Some(line)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end: how it ended, and what it complained of.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        while self.line().is_some() {}
        let mut complaint = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (self.child.wait().unwrap(), complaint)
    }

    /// What is left of it: files, and processes that were told of its place.
    fn left(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.place.path()).unwrap().flatten();
        let mut left: Vec<String> = files.map(|e| e.path().display().to_string()).collect();
        let place = self.place.path().display().to_string();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(&place) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                left.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        left
    }

    /// While it runs something is there, or what says that nothing is left says nothing.
    pub(crate) fn something_is_there(&self) {
        let left = self.left();
        assert!(left.len() > 5, "{left:?}");
    }

    /// Nothing is left, or will be in a moment.
    pub(crate) fn nothing_is_left(&self, soon: Duration) {
        let begun = Instant::now();
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() <= soon, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Tour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
