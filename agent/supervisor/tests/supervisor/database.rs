//! A PostgreSQL under the supervisor, and just enough of its protocol to write to it.

use crate::container::{Client, Container, program, skipped};
use pgconvoy_supervisor::protocol::{Permit, Program};
use std::{
    fs,
    io::{self, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the newest PostgreSQL of this machine lives.
pub(crate) fn binaries() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let found = versions.map(|v| v.path().join("bin")).filter(|bin| bin.join("postgres").exists());
    let newest = found.max_by_key(|bin| bin.to_str().and_then(|b| b.split('/').nth(4)?.parse::<u32>().ok()));
    if newest.is_none() {
        skipped("a real PostgreSQL", "none in /usr/lib/postgresql/*/bin");
    }
    newest
}

fn words(bin: &Path, name: &str, arguments: &[&str]) -> Program {
    let path = bin.join(name);
    program(&[&[path.to_str().unwrap()], arguments].concat())
}

/// Makes the data directory through the supervisor.
pub(crate) fn initdb(container: &Container, client: &mut Client, bin: &Path) {
    let data = container.path("data");
    let options = ["-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8", "-D", data.to_str().unwrap()];
    let done = client.run(words(bin, "initdb", &options));
    assert!(done.exit.success(), "initdb: {} {} {}", done.exit, done.out.text(), done.err.text());
}

/// The server, with a socket in the container's directory.
pub(crate) fn server(container: &Container, bin: &Path) -> Program {
    let dir = container.dir.path().to_str().unwrap();
    let data = container.path("data");
    let settings = ["listen_addresses=", "dynamic_shared_memory_type=mmap", "restart_after_crash=off"];
    let mut arguments = vec!["-D", data.to_str().unwrap(), "-k", dir];
    arguments.extend(settings.iter().flat_map(|s| ["-c", s]));
    words(bin, "postgres", &arguments)
}

/// Starts PostgreSQL, and waits until it answers. What an earlier one left behind goes: its process is gone, its number
/// may be in use.
pub(crate) fn up(container: &Container, client: &mut Client, bin: &Path, epoch: &str, permit: Permit) -> Session {
    drop(fs::remove_file(container.path("data/postmaster.pid")));
    drop(fs::remove_file(container.path(".s.PGSQL.5432.lock")));
    client.start(epoch, permit, server(container, bin));
    let mut session = None;
    crate::container::wait_for("PostgreSQL", || {
        session = Session::open(container).ok();
        session.is_some()
    });
    session.unwrap()
}

/// One session.
pub(crate) struct Session {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Session {
    pub(crate) fn open(container: &Container) -> io::Result<Self> {
        Self::named(container, "postgres")
    }

    /// As this user.
    pub(crate) fn named(container: &Container, user: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(container.path(".s.PGSQL.5432"))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut session = Self { stream, reader };
        let body = [b"\0\x03\0\0user\0", user.as_bytes(), b"\0database\0postgres\0\0"].concat();
        session.send(&[], &body)?;
        session.answer()?;
        Ok(session)
    }

    /// Runs a statement; the first column of the last row, if there is one.
    pub(crate) fn query(&mut self, sql: &str) -> io::Result<Option<String>> {
        self.send(b"Q", &[sql.as_bytes(), b"\0"].concat())?;
        self.answer()
    }

    fn send(&mut self, kind: &[u8], body: &[u8]) -> io::Result<()> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        self.stream.write_all(&[kind, &length, body].concat())
    }

    fn answer(&mut self) -> io::Result<Option<String>> {
        let (mut value, mut error) = (None, None);
        loop {
            let mut head = [0u8; 5];
            self.reader.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            let length = u32::from_be_bytes(length) as usize - 4;
            let mut body = vec![0u8; length];
            self.reader.read_exact(&mut body)?;
            match kind {
                b'D' => value = Some(String::from_utf8_lossy(&body[6..]).into_owned()),
                // FATAL is not followed by ReadyForQuery.
                b'E' if body.windows(5).any(|w| w == b"FATAL") => {
                    return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned()));
                }
                b'E' => error = Some(String::from_utf8_lossy(&body).into_owned()),
                b'Z' => return error.map_or(Ok(value), |e| Err(io::Error::other(e))),
                _ => {}
            }
        }
    }
}
