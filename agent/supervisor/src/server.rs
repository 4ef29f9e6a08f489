//! The server: one `poll` loop over signals, clients and tools. Nothing in it waits for anything else.

use crate::{
    connection::{Connection, ConnectionId, turn_away},
    deadman::DeadMan,
    launch::{Launch, Launcher},
    lifecycle::{Fence, Stop},
    log,
    namespace::Namespace,
    tool::Tool,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::Signal,
        signalfd::SignalFd,
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::{Mode, umask},
    },
    unistd::{Pid, getuid},
};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{ErrorCode, Event, Exit, MAX_CONNECTIONS, Message, Response},
};
use std::{
    fs,
    io::ErrorKind,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileTypeExt, net::UnixListener},
    },
    path::Path,
    time::Duration,
};

/// While processes are being killed, look this often whether any is left (SIGCHLD tells of our own at once).
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// After an `accept` that failed (out of descriptors), try again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running PostgreSQL.
pub(crate) struct Postgres {
    pub(crate) pid: Pid,
    pub(crate) started: Boottime,
    /// Until it has executed, with the connection that waits for it.
    pub(crate) launch: Option<(Launch, ConnectionId)>,
    /// Its first process has ended; what it left behind is being killed.
    pub(crate) ended: Option<Exit>,
}

/// Everything that the server knows.
pub(crate) struct Server {
    pub(crate) namespace: Namespace,
    pub(crate) deadman: DeadMan,
    pub(crate) launcher: Launcher,
    pub(crate) started: Boottime,
    pub(crate) stop_timeout: Duration,
    pub(crate) postgres: Option<Postgres>,
    /// The epoch of the running or the last PostgreSQL.
    pub(crate) epoch: Option<String>,
    pub(crate) last_exit: Option<Exit>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) fence: Option<Fence>,
    pub(crate) stop: Option<Stop>,
    /// `EXIT` came.
    pub(crate) exit_asked: bool,
    pub(crate) connections: Vec<Connection>,
    signals: SignalFd,
    listener: UnixListener,
    next_id: ConnectionId,
    accept_after: Option<Boottime>,
}

/// What a descriptor in the poll set belongs to.
enum Source {
    Signals,
    Bell,
    Listener,
    Connection(ConnectionId),
    /// A pipe or report of a child; all of them are looked at.
    Child,
}

/// Makes the socket: for this user only, in place of one that a predecessor left.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            fs::remove_file(path).map_err(|e| format!("cannot remove the old socket {shown}: {e}"))?;
        }
        Ok(_) => return Err(format!("{shown} is there and is not a socket; give another path with --socket")),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(format!("cannot look at {shown}: {e}")),
    }
    let old = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(old);
    let listener = bound.map_err(|e| {
        format!("cannot listen on {shown}: {e}; its directory must be a volume that this user may write to")
    })?;
    listener.set_nonblocking(true).map_err(|e| format!("cannot prepare {shown}: {e}"))?;
    Ok(listener)
}

impl Server {
    pub(crate) fn new(
        namespace: Namespace,
        deadman: DeadMan,
        signals: SignalFd,
        listener: UnixListener,
        stop_timeout: Duration,
        log: OwnedFd,
    ) -> Result<Self, Errno> {
        Ok(Self {
            namespace,
            deadman,
            launcher: Launcher::new(log)?,
            started: Boottime::now(),
            stop_timeout,
            postgres: None,
            epoch: None,
            last_exit: None,
            tools: Vec::new(),
            fence: None,
            stop: None,
            exit_asked: false,
            connections: Vec::new(),
            signals,
            listener,
            next_id: 1,
            accept_after: None,
        })
    }

    /// Serves until PostgreSQL is gone and the container was asked to stop.
    pub(crate) fn run(mut self) -> Result<(), String> {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(format!("cannot wait for events: {e}")),
            };
            let now = Boottime::now();
            let mut knocking = false;
            for (source, flags) in ready {
                match source {
                    Source::Signals => self.read_signals(now),
                    Source::Bell => self.deadman.silence_bell(),
                    Source::Listener => knocking = true,
                    Source::Connection(id) => self.serve(id, flags, now),
                    Source::Child => {}
                }
            }
            self.hear_children();
            self.reap();
            let now = Boottime::now();
            self.tick(now);
            // In this order: that the agent has gone matters to what comes next.
            self.drop_finished();
            self.advance(now);
            // After the gone have been dropped: an agent that comes back does not meet its own old connections.
            if knocking {
                self.accept(now);
            }
            if self.may_leave(now) {
                self.connections.iter_mut().for_each(Connection::flush);
                return Ok(());
            }
        }
    }

    fn wait(&mut self) -> Result<Vec<(Source, PollFlags)>, Errno> {
        let now = Boottime::now();
        let timeout = self
            .deadline(now)
            .map_or(PollTimeout::NONE, |at| PollTimeout::try_from(at.remaining(now)).unwrap_or(PollTimeout::MAX));
        let mut sources = vec![Source::Signals, Source::Bell];
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.deadman.bell(), PollFlags::POLLIN),
        ];
        if self.accept_after.is_none_or(|at| at <= now) {
            sources.push(Source::Listener);
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        for connection in &self.connections {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, connection.wants_input());
            flags.set(PollFlags::POLLOUT, connection.wants_output());
            sources.push(Source::Connection(connection.id));
            fds.push(PollFd::new(connection.stream.as_fd(), flags));
        }
        let launches = self.postgres.iter().filter_map(|p| p.launch.as_ref().map(|(launch, _)| launch));
        let launches = launches.chain(self.tools.iter().filter_map(|t| t.launch.as_ref())).map(Launch::fd);
        let pipes = self.tools.iter().flat_map(|t| [&t.out, &t.err]).filter_map(|c| c.pipe.as_ref());
        for fd in launches.chain(pipes) {
            sources.push(Source::Child);
            fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        }
        poll(&mut fds, timeout)?;
        let flags = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
        Ok(sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect())
    }

    /// When something has to be done although nothing happens.
    fn deadline(&self, now: Boottime) -> Option<Boottime> {
        let busy = self.fence.is_some() || self.postgres.as_ref().is_some_and(|p| p.ended.is_some());
        let tools = self.tools.iter().filter(|t| !t.overdue()).map(|t| t.deadline);
        let connections = self.connections.iter().filter_map(Connection::deadline);
        // Lines that came together are served in turns.
        let turn = self.connections.iter().any(Connection::has_turn).then_some(now);
        let own = [
            turn,
            busy.then(|| now.after(LOOK_AGAIN)),
            self.stop.as_ref().and_then(|stop| stop.deadline(self.stop_timeout)).filter(|at| *at > now),
            self.accept_after,
        ];
        tools.chain(connections).chain(own.into_iter().flatten()).min()
    }

    fn read_signals(&mut self, now: Boottime) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) | Err(_) => {}
                Ok(signal) => self.asked_to_stop(signal, now),
            }
        }
    }

    fn accept(&mut self, now: Boottime) {
        self.accept_after = None;
        // A bounded turn: a flood of connections must not keep the loop here.
        for _ in 0..MAX_CONNECTIONS {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
                Err(e) => {
                    log::warn("cannot accept a connection", &[("error", &e)]);
                    self.accept_after = Some(now.after(ACCEPT_PAUSE));
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let refused = match getsockopt(&stream, PeerCredentials) {
                Ok(peer) if peer.uid() != getuid().as_raw() => Some((
                    ErrorCode::Peer,
                    format!("the supervisor runs as user {} and serves no other; you are {}", getuid(), peer.uid()),
                )),
                Ok(_) if self.connections.len() >= MAX_CONNECTIONS => Some((
                    ErrorCode::Busy,
                    format!("{MAX_CONNECTIONS} connections are open, which is the most; close one and try again"),
                )),
                Ok(_) => None,
                Err(e) => Some((ErrorCode::Peer, format!("cannot tell who you are: {e}"))),
            };
            match refused {
                // Whoever does not read it has gone already.
                Some((code, sentence)) => drop(turn_away(stream, code, sentence)),
                None => {
                    self.connections.push(Connection::new(self.next_id, stream));
                    self.next_id += 1;
                }
            }
        }
    }

    fn serve(&mut self, id: ConnectionId, flags: PollFlags, now: Boottime) {
        let Some(connection) = self.connection(id) else { return };
        if flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            connection.hang_up();
        }
        if flags.contains(PollFlags::POLLOUT) {
            connection.flush();
        }
        if connection.wants_input() && flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
            connection.read(now);
        }
    }

    pub(crate) fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    /// Answers a request of `id`, whose next one may then be served.
    pub(crate) fn answer(&mut self, id: ConnectionId, response: Response) {
        if let Some(connection) = self.connection(id) {
            connection.awaits = false;
            connection.send(&Message::Response(response));
        }
    }

    /// Tells everybody who watches.
    pub(crate) fn announce(&mut self, event: Event) {
        for connection in self.connections.iter_mut().filter(|c| c.watches) {
            connection.send(&Message::Event(event));
        }
    }

    fn tick(&mut self, now: Boottime) {
        for index in 0..self.connections.len() {
            // A bounded turn for each: a client that sends without end must not keep the others waiting.
            for _ in 0..8 {
                let Some(connection) = self.connections.get_mut(index) else { break };
                let id = connection.id;
                let Some(line) = connection.line(now) else { break };
                self.request(id, &line, now);
            }
        }
        self.connections.iter_mut().for_each(|c| c.tick(now));
        self.tools.iter_mut().for_each(|t| t.tick(now));
    }

    fn drop_finished(&mut self) {
        let tools = &self.tools;
        self.connections.retain(|c| !c.finished(tools.iter().any(|t| t.owner == Some(c.id))));
        let connections = &self.connections;
        for tool in &mut self.tools {
            // Nobody would read its result, and whoever comes next must not meet it at work.
            if tool.owner.is_some_and(|id| !connections.iter().any(|c| c.id == id)) {
                tool.owner = None;
                tool.kill();
                log::warn("killed a tool whose client has gone", &[("id", &tool.id), ("pid", &tool.pid)]);
            }
        }
    }
}
