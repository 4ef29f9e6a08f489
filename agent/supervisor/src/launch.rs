//! Starting a program: what is checked and made before the fork, and what comes back after it.

use crate::sys::{self, Descriptors, Image};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Pid, pipe2, read},
};
use pgconvoy_supervisor::protocol::Program;
use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
};

/// A child that was forked and may not have executed yet.
pub(crate) struct Launch {
    report: OwnedFd,
    /// The program, for the sentence when it cannot be executed.
    exec: OsString,
    cwd: OsString,
    lock: OsString,
}

/// What a [`Launch`] came to.
pub(crate) enum Report {
    /// Not known yet.
    Pending,
    /// The program runs (or was killed before it could).
    Executed,
    /// It does not, and this is why.
    Failed(String),
}

/// The reading ends of a tool's output.
pub(crate) struct Pipes {
    pub(crate) out: OwnedFd,
    pub(crate) err: OwnedFd,
}

/// Starts programs.
pub(crate) struct Launcher {
    /// The reading end of a pipe that nobody writes to: an empty standard input that needs no `/dev/null`.
    empty: OwnedFd,
    /// Takes what PostgreSQL writes.
    log: OwnedFd,
}

impl Launcher {
    pub(crate) fn new(log: OwnedFd) -> Result<Self, Errno> {
        Ok(Self { empty: pipe2(OFlag::O_CLOEXEC)?.0, log })
    }

    /// Starts a program whose output goes into the log.
    pub(crate) fn start(&self, program: &Program) -> Result<(Pid, Launch), Errno> {
        self.fork(program, None, (&self.log, &self.log))
    }

    /// Starts a program whose output comes back through pipes.
    pub(crate) fn run(&self, program: &Program, stdin: Option<&[u8]>) -> Result<(Pid, Launch, Pipes), Errno> {
        let (out, out_end) = pipe2(OFlag::O_CLOEXEC)?;
        let (err, err_end) = pipe2(OFlag::O_CLOEXEC)?;
        for end in [&out, &err] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        // A file in memory, not a pipe: a pipe may be as small as a page, and whoever fills it would wait.
        let stdin = stdin.map(in_memory).transpose()?;
        let (pid, launch) = self.fork(program, stdin.as_ref(), (&out_end, &err_end))?;
        Ok((pid, launch, Pipes { out, err }))
    }

    fn fork(
        &self,
        program: &Program,
        stdin: Option<&OwnedFd>,
        output: (&OwnedFd, &OwnedFd),
    ) -> Result<(Pid, Launch), Errno> {
        let image = image(program, std::env::vars_os()).ok_or(Errno::EINVAL)?;
        let (report, report_end) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let descriptors = Descriptors {
            stdin: stdin.unwrap_or(&self.empty).as_fd(),
            output: (output.0.as_fd(), output.1.as_fd()),
            report: report_end.as_fd(),
        };
        let pid = sys::spawn(&image, &descriptors)?;
        let lock = program.lock.clone().unwrap_or_default();
        Ok((pid, Launch { report, exec: program.exec.clone(), cwd: program.cwd.clone(), lock }))
    }
}

impl Launch {
    /// Becomes readable when there is news.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.report
    }

    /// Asks without waiting.
    pub(crate) fn report(&self) -> Report {
        let mut words = [0u8; 8];
        match read(&self.report, &mut words) {
            Ok(0) => Report::Executed,
            Ok(8) => {
                let [a, b, c, d, e, f, g, h] = words;
                let error = Errno::from_raw(i32::from_ne_bytes([e, f, g, h]));
                Report::Failed(self.sentence(i32::from_ne_bytes([a, b, c, d]), error))
            }
            Ok(_) => Report::Failed(self.sentence(sys::STAGE_EXEC, Errno::EIO)),
            Err(Errno::EAGAIN | Errno::EINTR) => Report::Pending,
            Err(error) => Report::Failed(self.sentence(sys::STAGE_SETUP, error)),
        }
    }

    fn sentence(&self, stage: i32, error: Errno) -> String {
        let (exec, cwd) = (self.exec.display(), self.cwd.display());
        match stage {
            sys::STAGE_CHDIR => {
                format!("cannot run {exec} in the directory {cwd}: {error}; is the volume mounted in this container?")
            }
            sys::STAGE_LOCK if error == Errno::EWOULDBLOCK => format!(
                "cannot run {exec}: another process holds the lock {}; PostgreSQL of another pod of this member may still \
                 run on the volume",
                self.lock.display()
            ),
            sys::STAGE_LOCK => format!("cannot run {exec}: the lock {} cannot be taken: {error}", self.lock.display()),
            sys::STAGE_EXEC => format!("cannot execute {exec}: {error}; does the container's image have it?"),
            _ => format!("cannot prepare the process for {exec}: {error}"),
        }
    }
}

fn in_memory(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let io = |e: std::io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let mut file = File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes).map_err(io)?;
    file.rewind().map_err(io)?;
    Ok(file.into())
}

/// Lays the request's environment over the container's, and finds the paths to try. None if a string holds a zero byte,
/// which the protocol excludes.
fn image(program: &Program, inherited: impl Iterator<Item = (OsString, OsString)>) -> Option<Image> {
    let mut env: BTreeMap<OsString, OsString> = inherited.collect();
    for entry in &program.env {
        match entry.as_bytes().iter().position(|b| *b == b'=') {
            Some(at) => {
                let (name, value) = entry.as_bytes().split_at(at);
                env.insert(OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned());
            }
            None => drop(env.remove(entry)),
        }
    }
    let path = env.get(OsStr::new("PATH")).map_or("/usr/local/bin:/usr/bin:/bin".as_bytes(), |p| p.as_bytes());
    let candidates = if program.exec.as_bytes().contains(&b'/') {
        vec![program.exec.clone()]
    } else {
        let directories = path.split(|b| *b == b':').filter(|d| !d.is_empty());
        directories.map(|d| OsString::from_vec([d, b"/", program.exec.as_bytes()].concat())).collect()
    };
    let text = |s: OsString| CString::new(s.into_vec()).ok();
    let pair = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let args = std::iter::once(&program.exec).chain(&program.args);
    Some(Image {
        candidates: candidates.into_iter().map(text).collect::<Option<_>>()?,
        args: args.cloned().map(text).collect::<Option<_>>()?,
        env: env.into_iter().map(|e| CString::new(pair(e)).ok()).collect::<Option<_>>()?,
        cwd: text(program.cwd.clone())?,
        lock: match &program.lock {
            Some(lock) => Some(text(lock.clone())?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_and_path() {
        let program = Program {
            exec: "initdb".into(),
            cwd: "/".into(),
            args: vec!["-D".into(), "".into()],
            env: ["PATH=/a::/b", "GONE", "EMPTY=", "E=1=2"].map(OsString::from).to_vec(),
            lock: None,
        };
        let inherited = [("PATH", "/x"), ("GONE", "1"), ("KEPT", "2")].map(|(k, v)| (k.into(), v.into()));
        let image = image(&program, inherited.into_iter()).unwrap();
        let text = |list: &[CString]| list.iter().map(|s| s.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(text(&image.candidates), ["/a/initdb", "/b/initdb"]);
        assert_eq!(text(&image.args), ["initdb", "-D", ""]);
        assert_eq!(text(&image.env), ["E=1=2", "EMPTY=", "KEPT=2", "PATH=/a::/b"]);
    }
}
