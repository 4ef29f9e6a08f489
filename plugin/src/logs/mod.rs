//! `logs`: what the members' agents and PostgreSQL say, merged by time.

mod line;
mod order;
mod stream;

use crate::access::Access;
use crate::cli::LogsArgs;
use crate::objects;
use crate::problem::Problem;
use crate::status::model::{Report, report};
use crate::words;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use line::Source;
use order::{Choice, Head};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::{End, Key, Line, Outlet, Wanted};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// How often followed logs look for members that are new or back.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Lines of one container that are read ahead.
const AHEAD: usize = 256;

/// Prints them.
pub(crate) async fn run(access: &Access, args: &LogsArgs) -> Result<ExitCode, Problem> {
    let report = report(&objects::one(access, &args.set).await?);
    let wish = Wish { members: chosen(&report, &args.member)?, sources: sources(args) };
    let keys = wish.keys(report.members.iter().filter(|m| m.pod.is_some()).map(|m| m.name.as_str()));
    if keys.is_empty() && !args.follow {
        return Err(Problem::NoPods { set: args.set.clone() });
    }
    let wanted = Wanted { follow: args.follow, previous: args.previous, tail: args.tail, since: args.since };
    let mut merge = Merge::new(Api::namespaced(access.client.clone(), &access.namespace), wanted, args.raw);
    keys.into_iter().for_each(|key| merge.open(key));
    if args.follow { merge.follow(&wish, watch(access, &args.set)).await } else { merge.finish().await }
}

struct Wish {
    /// None: all of them, also those that come later.
    members: Option<BTreeSet<String>>,
    sources: Vec<Source>,
}

impl Wish {
    fn keys<'a>(&self, members: impl Iterator<Item = &'a str>) -> Vec<Key> {
        let wanted = members.filter(|m| self.members.as_ref().is_none_or(|w| w.contains(*m)));
        wanted.flat_map(|m| self.sources.iter().map(|s| Key { member: m.to_owned(), source: *s })).collect()
    }
}

fn chosen(report: &Report, wanted: &[String]) -> Result<Option<BTreeSet<String>>, Problem> {
    let name = |wanted: &String| {
        report.member(wanted).map(|m| m.name.clone()).ok_or_else(|| Problem::NoMember {
            set: report.set.clone(),
            member: wanted.clone(),
            there: report.members.iter().map(|m| m.name.clone()).collect(),
        })
    };
    if wanted.is_empty() { Ok(None) } else { wanted.iter().map(name).collect::<Result<_, _>>().map(Some) }
}

/// Both, unless one is asked for.
fn sources(args: &LogsArgs) -> Vec<Source> {
    let both = args.agent == args.postgres;
    let all = [(Source::Agent, args.agent), (Source::Postgres, args.postgres)];
    all.into_iter().filter(|(_, asked)| both || *asked).map(|(source, _)| source).collect()
}

/// A stream that is open: its lines, and the next of them.
struct Open {
    key: Key,
    lines: mpsc::Receiver<Line>,
    next: Option<Line>,
    active: Instant,
}

struct Merge {
    pods: Api<Pod>,
    wanted: Wanted,
    /// Lines as they are.
    raw: bool,
    open: Vec<Open>,
    readers: JoinSet<End>,
    /// Where logs that were read before ended.
    last: BTreeMap<Key, Timestamp>,
    bell: Arc<Notify>,
    out: std::io::BufWriter<std::io::Stdout>,
    shown: u64,
}

impl Merge {
    fn new(pods: Api<Pod>, wanted: Wanted, raw: bool) -> Self {
        let out = std::io::BufWriter::new(std::io::stdout());
        let bell = Arc::new(Notify::new());
        Self { pods, wanted, raw, open: vec![], readers: JoinSet::new(), last: BTreeMap::new(), bell, out, shown: 0 }
    }

    fn open(&mut self, key: Key) {
        let (sender, lines) = mpsc::channel(AHEAD);
        let outlet = Outlet { lines: sender, bell: self.bell.clone() };
        let last = self.last.get(&key).copied();
        self.readers.spawn(stream::read(self.pods.clone(), key.clone(), self.wanted, last, outlet));
        self.open.push(Open { key, lines, next: None, active: Instant::now() });
    }

    /// Takes what has come, and forgets streams that have ended and are shown to the end.
    fn take(&mut self) {
        self.open.retain_mut(|stream| {
            if stream.next.is_some() {
                return true;
            }
            match stream.lines.try_recv() {
                Ok(line) => {
                    stream.active = line.came;
                    stream.next = Some(line);
                    true
                }
                Err(mpsc::error::TryRecvError::Empty) => true,
                Err(mpsc::error::TryRecvError::Disconnected) => false,
            }
        });
    }

    /// Shows what can be shown; when to look again at the latest.
    #[expect(clippy::disallowed_methods, reason = "it is compared with the times that stand in logs")]
    fn show(&mut self) -> Result<Option<Instant>, Problem> {
        loop {
            self.take();
            let head = |s: &Open| Head { next: s.next.as_ref().map(|l| (l.at, l.came)), active: s.active };
            let heads: Vec<Head> = self.open.iter().map(head).collect();
            match order::choose(&heads, self.wanted.follow, Instant::now(), Timestamp::now()) {
                Choice::Wait(until) => {
                    self.out.flush().map_err(Problem::Print)?;
                    return Ok(until);
                }
                Choice::Show(which) => {
                    let Some(stream) = self.open.get_mut(which) else { continue };
                    let Some(line) = stream.next.take() else { continue };
                    let text = if self.raw { line.text } else { line::readable(&stream.key.member, &line.text) };
                    writeln!(self.out, "{text}").map_err(Problem::Print)?;
                    self.shown += 1;
                }
            }
        }
    }

    /// Waits until something comes, a stream ends, or it is time.
    async fn wait(&mut self, until: Option<Instant>) -> Option<End> {
        let late = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.bell.notified() => None,
            Some(end) = self.readers.join_next() => end.ok(),
            () = late => None,
        }
    }

    /// Reads everything there is.
    async fn finish(mut self) -> Result<ExitCode, Problem> {
        let mut failed = 0;
        let streams = self.open.len();
        loop {
            let until = self.show()?;
            if self.open.is_empty() && self.readers.is_empty() {
                break;
            }
            if let Some(End { key, problem: Some(why), .. }) = self.wait(until).await {
                stream::say(&key, &why);
                failed += 1;
            }
        }
        if failed == streams && self.shown == 0 { Err(Problem::NoLogs) } else { Ok(ExitCode::SUCCESS) }
    }

    /// Goes on until it is interrupted. `members` tells who there is, again and again.
    async fn follow(mut self, wish: &Wish, mut members: mpsc::Receiver<Vec<String>>) -> Result<ExitCode, Problem> {
        loop {
            let until = self.show()?;
            let end = tokio::select! {
                end = self.wait(until) => end,
                Some(names) = members.recv() => {
                    for key in wish.keys(names.iter().map(String::as_str)) {
                        if !self.open.iter().any(|o| o.key == key) {
                            self.open(key);
                        }
                    }
                    None
                }
            };
            if let Some(End { key, last, problem }) = end {
                if let Some(why) = problem {
                    stream::say(&key, &why);
                }
                self.last.extend(last.map(|last| (key, last)));
            }
        }
    }
}

/// Tells the names of the set's pods every [`LOOK_AGAIN`]. A task of its own: an API server that does not answer must
/// not hold up lines that come.
fn watch(access: &Access, set: &str) -> mpsc::Receiver<Vec<String>> {
    let (sender, receiver) = mpsc::channel(1);
    let (access, set) = (access.clone(), set.to_owned());
    tokio::spawn(async move {
        let mut told = false;
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            match objects::pods(&access, &set).await {
                Ok(pods) => {
                    told = false;
                    let names = pods.into_iter().filter_map(|p| p.metadata.name).collect();
                    if sender.send(names).await.is_err() {
                        return;
                    }
                }
                // The streams that are open go on, or ask again by themselves.
                Err(problem) if !told => {
                    told = true;
                    drop(writeln!(std::io::stderr(), "{}", words::clean(&problem.to_string())));
                }
                Err(_) => {}
            }
        }
    });
    receiver
}
