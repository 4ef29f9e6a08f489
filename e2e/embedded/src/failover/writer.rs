//! Clients that write, and remember what they were told.

use super::history::{Outcome, Write};
use super::tls::Tls;
use anyhow::Context as _;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, SimpleQueryMessage};

/// A connection that is not there by then, or a write that is not answered, is given up: what a client with sense does.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Whoever only looks waits longer.
pub const LATEST: Duration = Duration::from_secs(30);
/// So many connections of a client that makes one for each write may be under way. Then the oldest is given up for the next.
const AT_ONCE: usize = 50;

/// How the table is made that clients write to. Without a unique key: a write that is there twice is to be seen.
pub const TABLE: &str = "create table if not exists writes (id bigint not null)";

/// A session, and whether its server said of a write that it did not wait for the followers.
pub struct Session {
    client: Client,
    not_waited: Arc<AtomicBool>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// When there is no connection within [`PATIENCE`].
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let connected = tokio::time::timeout(PATIENCE, config.connect(Tls::new()?));
        let (client, mut connection) = connected.await.context("no connection in time")??;
        let not_waited = Arc::new(AtomicBool::new(false));
        let flag = not_waited.clone();
        // Ends with the client, or with the connection.
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && *notice.code() == SqlState::WARNING
                {
                    flag.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { client, not_waited })
    }

    /// Connects, and tries again: for whoever looks at what came of it, on a machine that may have little time.
    ///
    /// # Errors
    /// When there is no connection after [`LATEST`].
    pub async fn open_in_the_end(config: &Config) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::open(config).await {
                Err(error) if begun.elapsed() > LATEST => return Err(error),
                Err(_) => tokio::time::sleep(PATIENCE / 20).await,
                done => return done,
            }
        }
    }

    /// Runs SQL; the columns of its rows.
    ///
    /// # Errors
    /// When there is no answer within ten times [`PATIENCE`], or it is an error.
    pub async fn rows(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let answer = tokio::time::timeout(PATIENCE * 10, self.client.simple_query(sql));
        Ok(rows(answer.await.context("no answer in time")??))
    }

    /// Writes one row; what became of it.
    async fn write(&self, id: u64) -> Outcome {
        let sql = format!(
            "insert into writes values ({id}) returning ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, \
             host(inet_server_addr()) || ':' || inet_server_port()"
        );
        let answer = tokio::time::timeout(PATIENCE, self.client.simple_query(&sql)).await;
        let Ok(answer) = answer else { return Outcome::Unknown };
        match answer {
            Ok(_) if self.not_waited.load(Ordering::SeqCst) => Outcome::Unknown,
            Ok(messages) => match rows(messages).first().map(Vec::as_slice) {
                Some([epoch, by]) => {
                    epoch.parse().map_or(Outcome::Unknown, |epoch| Outcome::Ok { epoch, by: by.clone() })
                }
                _ => Outcome::Unknown,
            },
            // A follower: it cannot have written.
            Err(e) if e.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Outcome::Fail,
            Err(_) => Outcome::Unknown,
        }
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<Vec<String>> {
    let rows = messages.into_iter().filter_map(|m| match m {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    });
    rows.collect()
}

/// How a client goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One session, and another when it breaks.
    Held,
    /// A connection for each write, the next one whatever became of those before.
    Fresh,
}

/// What all clients of a run share.
#[derive(Clone)]
pub struct Ledger {
    /// When the run began.
    origin: Instant,
    ids: Arc<AtomicU64>,
    writes: Arc<Mutex<Vec<(Kind, Write)>>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { origin: Instant::now(), ids: Arc::new(AtomicU64::new(1)), writes: Arc::default() }
    }
}

impl Ledger {
    /// The time since the run began.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The id of the next write to be begun.
    pub fn next_id(&self) -> u64 {
        self.ids.load(Ordering::SeqCst)
    }

    /// The writes that are over, from this id on.
    pub fn since(&self, id: u64) -> Vec<(Kind, Write)> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.iter().filter(|(_, w)| w.id >= id).cloned().collect()
    }

    fn begin(&self) -> (u64, Duration) {
        // In this order: the id of a write says that it was not begun before another was asked for.
        let id = self.ids.fetch_add(1, Ordering::SeqCst);
        (id, self.now())
    }

    fn end(&self, kind: Kind, (id, begun): (u64, Duration), outcome: Outcome) {
        let write = Write { id, begun, ended: self.now(), outcome };
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).push((kind, write));
    }
}

/// A client at work.
pub struct Writer {
    task: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    /// Starts one, which begins a write that often.
    pub fn start(ledger: &Ledger, kind: Kind, every: Duration, config: &Config) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ledger, config, ended) = (ledger.clone(), config.clone(), stop.clone());
        let task = tokio::spawn(async move {
            match kind {
                Kind::Held => held(&ledger, every, &config, &ended).await,
                Kind::Fresh => fresh(&ledger, every, &config, &ended).await,
            }
        });
        Self { task, stop }
    }

    /// Ends it; nothing of it is under way afterwards.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn held(ledger: &Ledger, every: Duration, config: &Config, stop: &AtomicBool) {
    let mut session: Option<Session> = None;
    let mut ticks = ticks(every);
    while !stop.load(Ordering::SeqCst) {
        ticks.tick().await;
        let write = ledger.begin();
        let open = match session.take() {
            Some(open) => Ok(open),
            None => Session::open(config).await,
        };
        let Ok(open) = open else {
            ledger.end(Kind::Held, write, Outcome::Fail);
            continue;
        };
        let outcome = open.write(write.0).await;
        if matches!(outcome, Outcome::Ok { .. }) {
            session = Some(open);
        }
        ledger.end(Kind::Held, write, outcome);
    }
}

async fn fresh(ledger: &Ledger, every: Duration, config: &Config, stop: &AtomicBool) {
    // Whoever's sender is dropped is given up.
    let mut under_way: VecDeque<(oneshot::Sender<()>, JoinHandle<()>)> = VecDeque::new();
    let mut ticks = ticks(every);
    while !stop.load(Ordering::SeqCst) {
        ticks.tick().await;
        under_way.retain(|(_, task)| !task.is_finished());
        if under_way.len() >= AT_ONCE {
            under_way.pop_front();
        }
        let (keep, given_up) = oneshot::channel();
        let (ledger, config) = (ledger.clone(), config.clone());
        let task = tokio::spawn(async move {
            let write = ledger.begin();
            let sent = AtomicBool::new(false);
            let attempt = async {
                let Ok(session) = Session::open(&config).await else { return Outcome::Fail };
                sent.store(true, Ordering::SeqCst);
                session.write(write.0).await
            };
            let outcome = tokio::select! {
                biased;
                outcome = attempt => outcome,
                _ = given_up => if sent.load(Ordering::SeqCst) { Outcome::Unknown } else { Outcome::Fail },
            };
            ledger.end(Kind::Fresh, write, outcome);
        });
        under_way.push_back((keep, task));
    }
    for (_keep, task) in under_way {
        let _ = task.await;
    }
}
