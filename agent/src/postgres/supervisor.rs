//! The supervisor's client: what may run, and the news of what ended.
//!
//! Requests that start or stop something go through one connection, strictly in order and whether or not somebody still
//! waits for the answer: a START that was given up is over before the FENCE behind it. Tools have a connection each (a
//! tool whose connection closes is killed), and so does [`Supervisor::fence_now`], which waits for nothing.

use pgconvoy_supervisor::clock::Boottime;
use pgconvoy_supervisor::protocol::{
    Done, ErrorCode, Event, MAX_MESSAGE, Malformed, Message, Permit, Program, Refusal, Request, Response, Signal,
    Status, VERSION,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How long the supervisor may take to answer; it never waits for anything itself.
const ANSWER: Duration = Duration::from_secs(5);
/// How long killing everything may take: a process in the kernel's hands dies late.
const KILL: Duration = Duration::from_secs(20);
/// Requests that may wait in line.
const QUEUE: usize = 32;

/// Why the supervisor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens: the `postgres` container is not there (yet, or any more), so no PostgreSQL runs.
    #[error("the postgres container is not running: nobody listens at {}", .0.display())]
    Absent(PathBuf),
    /// The connection failed.
    #[error("the supervisor's connection failed: {0}")]
    Cut(#[from] io::Error),
    /// No answer in time.
    #[error("the supervisor did not answer within {0:?}")]
    Timeout(Duration),
    /// A line that does not belong there.
    #[error("the supervisor's answer is unreadable: {0}")]
    Malformed(#[from] Malformed),
    /// It answered something else than what was asked.
    #[error("the supervisor answered something that was not asked")]
    Unexpected,
    /// It said no.
    #[error("the supervisor refused: {0}")]
    Refused(#[from] Refusal),
}

impl Error {
    /// The refusal's code, if it is one.
    pub(crate) fn code(&self) -> Option<&ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }
}

/// One connection.
struct Connection {
    lines: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    async fn open(socket: &Path) -> Result<Self, Error> {
        let stream = match timeout(ANSWER, UnixStream::connect(socket)).await {
            Err(_) => return Err(Error::Timeout(ANSWER)),
            Ok(Err(e)) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Err(Error::Absent(socket.to_owned()));
            }
            Ok(stream) => stream?,
        };
        let (reader, writer) = stream.into_split();
        let mut connection = Self { lines: BufReader::new(reader), writer };
        match connection.ask(&Request::Hello { version: VERSION }, ANSWER).await? {
            Response::Hello { .. } => Ok(connection),
            _ => Err(Error::Unexpected),
        }
    }

    /// Sends a request and reads its answer; what comes in between is not for us.
    async fn ask(&mut self, request: &Request, within: Duration) -> Result<Response, Error> {
        let asked = async {
            self.writer.write_all(request.to_line()?.as_bytes()).await?;
            loop {
                if let Message::Response(response) = self.read().await? {
                    return match response {
                        Response::Error(refusal) => Err(Error::Refused(refusal)),
                        good => Ok(good),
                    };
                }
            }
        };
        timeout(within, asked).await.map_err(|_| Error::Timeout(within))?
    }

    async fn read(&mut self) -> Result<Message, Error> {
        let mut line = Vec::new();
        let limit = MAX_MESSAGE as u64 + 1;
        (&mut self.lines).take(limit).read_until(b'\n', &mut line).await?;
        match line.pop() {
            Some(b'\n') => Ok(Message::parse(&line)?),
            _ => Err(Error::Cut(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

type Asked = (Request, Duration, oneshot::Sender<Result<Response, Error>>);

/// The client. Clones share the connection that keeps the order.
#[derive(Clone)]
pub struct Supervisor {
    socket: Arc<Path>,
    queue: mpsc::Sender<Asked>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// A client for the supervisor behind `socket`; must be called on a runtime. Connects when it is needed.
    pub fn new(socket: &Path) -> Self {
        let socket: Arc<Path> = Arc::from(socket);
        let (queue, requests) = mpsc::channel(QUEUE);
        tokio::spawn(in_order(socket.clone(), requests));
        Self { socket, queue }
    }

    async fn ask(&self, request: Request, within: Duration) -> Result<Response, Error> {
        let (send, receive) = oneshot::channel();
        let asked = async {
            self.queue.send((request, within, send)).await.ok()?;
            receive.await.ok()
        };
        // Those before us in the line have deadlines of their own.
        let patience = within + KILL;
        match timeout(patience, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(Error::Unexpected),
            Err(_) => Err(Error::Timeout(patience)),
        }
    }

    /// What runs.
    pub(crate) async fn status(&self) -> Result<Status, Error> {
        match self.ask(Request::Status, ANSWER).await? {
            Response::Status(status) => Ok(status),
            _ => Err(Error::Unexpected),
        }
    }

    /// Starts PostgreSQL.
    pub(crate) async fn start(&self, epoch: &str, permit: Permit, program: Program) -> Result<(), Error> {
        let request = Request::Start { id: "postgres".into(), epoch: epoch.into(), permit, program };
        self.done(request, ANSWER).await
    }

    /// Moves the permission of the PostgreSQL that runs in `epoch`.
    pub(crate) async fn permit(&self, epoch: &str, until: Permit) -> Result<(), Error> {
        self.done(Request::Permit { epoch: epoch.into(), until }, ANSWER).await
    }

    /// The PostgreSQL that runs in `from` goes on in `to`.
    pub(crate) async fn epoch(&self, from: &str, to: &str, until: Permit) -> Result<(), Error> {
        self.done(Request::Epoch { from: from.into(), to: to.into(), until }, ANSWER).await
    }

    /// Signals PostgreSQL's first process.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.done(Request::Signal { signal }, ANSWER).await
    }

    /// Kills everything, after everything that was asked before; returns when nothing is left.
    pub(crate) async fn fence(&self) -> Result<(), Error> {
        self.done(Request::Fence, KILL).await
    }

    /// Kills everything, over a connection of its own and at once; returns when nothing is left.
    pub(crate) async fn fence_now(&self) -> Result<(), Error> {
        Connection::open(&self.socket).await?.ask(&Request::Fence, KILL).await.map(drop)
    }

    /// Tells the supervisor that its `TERM` is being seen to.
    pub(crate) async fn acknowledge(&self) -> Result<(), Error> {
        self.done(Request::Ack, ANSWER).await
    }

    /// Lets the supervisor end when no PostgreSQL runs.
    pub(crate) async fn exit(&self) -> Result<(), Error> {
        self.done(Request::Exit, ANSWER).await
    }

    async fn done(&self, request: Request, within: Duration) -> Result<(), Error> {
        self.ask(request, within).await.map(drop)
    }

    /// Runs a tool to its end. Dropped before, the tool is killed.
    pub(crate) async fn run(&self, id: &str, program: Program, within: Duration) -> Result<Done, Error> {
        let mut connection = Connection::open(&self.socket).await?;
        let request = Request::Run { id: id.into(), timeout: within, program, stdin: None };
        connection.ask(&request, ANSWER).await?;
        let patience = within + ANSWER;
        let ended = async {
            loop {
                if let Message::Done(done) = connection.read().await? {
                    return Ok(done);
                }
            }
        };
        timeout(patience, ended).await.map_err(|_| Error::Timeout(patience))?
    }

    /// Sends on what happens, for ever; whenever the connection was made anew, `None` says that something may have been
    /// missed. Ends when nobody listens.
    pub(crate) async fn watch(&self, news: mpsc::Sender<Option<Event>>) {
        while !news.is_closed() {
            // Ends with an error; what it was does not matter, the next connection tells.
            drop(self.watch_once(&news).await);
            if news.send(None).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn watch_once(&self, news: &mpsc::Sender<Option<Event>>) -> Result<(), Error> {
        let mut connection = Connection::open(&self.socket).await?;
        connection.ask(&Request::Watch, ANSWER).await?;
        if news.send(None).await.is_err() {
            return Ok(());
        }
        loop {
            if let Message::Event(event) = connection.read().await?
                && news.send(Some(event)).await.is_err()
            {
                return Ok(());
            }
        }
    }
}

/// Carries requests out one after the other, whoever still waits.
async fn in_order(socket: Arc<Path>, mut requests: mpsc::Receiver<Asked>) {
    let mut connection: Option<Connection> = None;
    while let Some((request, within, reply)) = requests.recv().await {
        let answer = async {
            let (mut open, reused) = match connection.take() {
                Some(open) => (open, true),
                None => (Connection::open(&socket).await?, false),
            };
            let mut answer = open.ask(&request, within).await;
            if reused && matches!(answer, Err(Error::Cut(_))) {
                // That supervisor is gone, and all it had started; this one has not been asked yet.
                open = Connection::open(&socket).await?;
                answer = open.ask(&request, within).await;
            }
            // After a refusal the connection is good; after anything else it may owe us an answer.
            if matches!(answer, Ok(_) | Err(Error::Refused(_))) {
                connection = Some(open);
            }
            answer
        }
        .await;
        drop(reply.send(answer));
    }
}

/// The permission as the supervisor takes it.
pub(crate) fn permit(permission: pgconvoy_ha::Permission) -> Permit {
    match permission {
        pgconvoy_ha::Permission::Forever => Permit::Forever,
        pgconvoy_ha::Permission::Until(at) => Permit::Until(Boottime(at.0)),
    }
}
