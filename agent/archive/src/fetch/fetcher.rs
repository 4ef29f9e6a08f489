//! Answers `restore_command`, with the next segments at hand.

use super::{
    chain::{Chain, Link},
    error::Error,
    segment::{last_behind, pieces, whole},
};
use crate::{
    layout::{ahead, gaps},
    store::{Store, patiently, read},
};
use pgconvoy_terms::{Lsn, SegmentName, TimelineId};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinHandle,
};

/// How to fetch.
#[derive(Debug, Clone)]
pub struct Options {
    /// A directory of our own, best on the volume of `pg_wal`: there an answer is a rename. What lies in it is removed.
    pub dir: PathBuf,
    /// So many bytes of segments are fetched before they are asked for; at least one segment. Too few: PostgreSQL waits
    /// for the store. Too many: they fill the volume.
    pub ahead: u64,
    /// So many at the same time.
    pub parallel: usize,
    /// How long a store that fails is waited for. Too short: a restore is given up for a short outage. Too long: one
    /// that cannot succeed is noticed late.
    pub patience: Duration,
}

impl Options {
    /// 128 MiB ahead, 4 at the same time, 5 minutes of patience.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ahead: 128 << 20, parallel: 4, patience: Duration::from_secs(300) }
    }
}

/// The answer to `restore_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fetched {
    /// The file is there.
    Done,
    /// There is no such file: the log ends here, or the timeline is not on the way.
    Absent,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    chain: Chain,
    options: Options,
    permits: Semaphore,
}

type Fetching = JoinHandle<Result<bool, Error>>;

/// Fetches files of one [`Chain`]. Dropping it removes what was fetched and not asked for.
#[derive(Debug)]
pub struct Fetcher {
    shared: Arc<Shared>,
    ahead: Mutex<BTreeMap<SegmentName, Fetching>>,
}

/// How long WAL is waited for that may be on its way, behind which there is some already. Too short: a follower replays a little
/// less from the archive. Too long: a restore whose source is no more stands still at its end.
const UNFINISHED: Duration = Duration::from_secs(10);

impl Fetcher {
    /// A fetcher for this way.
    ///
    /// # Errors
    /// [`Error::Disk`]: the directory cannot be made or emptied.
    pub fn new(store: Arc<dyn Store>, chain: Chain, options: Options) -> Result<Self, Error> {
        fs::create_dir_all(&options.dir).map_err(Error::disk("create", &options.dir))?;
        for entry in fs::read_dir(&options.dir).map_err(Error::disk("read", &options.dir))? {
            let path = entry.map_err(Error::disk("read", &options.dir))?.path();
            fs::remove_file(&path).map_err(Error::disk("remove", &path))?;
        }
        let permits = Semaphore::new(options.parallel.max(1));
        Ok(Self { shared: Arc::new(Shared { store, chain, options, permits }), ahead: Mutex::default() })
    }

    /// Puts the file that PostgreSQL calls `name` (`%f`) at `to` (`%p`, absolute).
    ///
    /// # Errors
    /// [`Error`]: recovery must stop, not end.
    pub async fn fetch(&self, name: &str, to: &Path) -> Result<Fetched, Error> {
        if let Some(timeline) = name.strip_suffix(".history") {
            return self.history(timeline, to).await;
        }
        // Backup labels and partial segments are none of ours.
        let Ok(segment) = name.parse::<SegmentName>() else { return Ok(Fetched::Absent) };
        let Some(link) = self.shared.chain.of(segment.timeline) else { return Ok(Fetched::Absent) };
        let start = segment.start(link.claim.segment_size);
        // Behind the fork WAL belongs to nobody. PostgreSQL asks for it only to look.
        if link.until.is_some_and(|until| start >= until) {
            return Ok(Fetched::Absent);
        }
        let waiting = self.ahead.lock().await.remove(&segment);
        if let Some(waiting) = waiting
            && let Ok(Ok(true)) = waiting.await
        {
            let ready = self.shared.ready(segment);
            place(&ready, to)?;
            self.look_ahead(link, segment).await;
            return Ok(Fetched::Done);
        }
        let ask =
            |end| patiently(|e| self.shared.options.patience_with(e), move || self.shared.now(link, segment, to, end));
        let fetched = match ask(false).await {
            Err(e @ Error::Unfinished { .. }) => {
                tracing::warn!("the archive's log ends here: {e}; nothing behind it had been said to be archived");
                ask(true).await?
            }
            done => done?,
        };
        if fetched == Whole::Yes {
            self.look_ahead(link, segment).await;
        }
        Ok(if fetched == Whole::Absent { Fetched::Absent } else { Fetched::Done })
    }

    async fn history(&self, timeline: &str, to: &Path) -> Result<Fetched, Error> {
        let number = u32::from_str_radix(timeline, 16).ok().filter(|_| timeline.len() == 8);
        let Some(link) = number.and_then(|n| self.shared.chain.of(TimelineId(n))) else { return Ok(Fetched::Absent) };
        let key = link.dir.history();
        let get = || async { Ok(read(&*self.shared.store, &key).await?) };
        let Some(content) = patiently(|e: &Error| self.shared.options.patience_with(e), get).await? else {
            return Ok(Fetched::Absent);
        };
        fs::write(to, &content).map_err(Error::disk("write", to))?;
        Ok(Fetched::Done)
    }

    /// Has the segments behind this one fetched.
    async fn look_ahead(&self, link: &Link, segment: SegmentName) {
        let size = link.claim.segment_size;
        let mut held = self.ahead.lock().await;
        let first = segment.start(size).0 + size;
        let count = (self.shared.options.ahead / size).max(1);
        let wanted: Vec<SegmentName> = (0..count)
            .map(|n| Lsn(first.saturating_add(n * size)))
            .filter(|start| link.until.is_none_or(|until| *start < until))
            .map(|start| SegmentName::holding(segment.timeline, start, size))
            .collect();
        // PostgreSQL went elsewhere: what it does not want any more makes room.
        let stale: Vec<SegmentName> = held.keys().filter(|name| !wanted.contains(name)).copied().collect();
        for name in stale {
            if let Some(fetching) = held.remove(&name) {
                fetching.abort();
                let _ = fs::remove_file(self.shared.ready(name));
            }
        }
        for name in wanted {
            let shared = self.shared.clone();
            let link = link.clone();
            held.entry(name).or_insert_with(|| tokio::spawn(async move { shared.before(&link, name).await }));
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        for (name, fetching) in std::mem::take(self.ahead.get_mut()) {
            fetching.abort();
            let _ = fs::remove_file(self.shared.ready(name));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    Partly,
    Absent,
}

impl Shared {
    fn ready(&self, segment: SegmentName) -> PathBuf {
        self.options.dir.join(segment.to_string())
    }

    /// Fetches a whole segment before it is asked for; `false`: it is not there yet.
    async fn before(&self, link: &Link, segment: SegmentName) -> Result<bool, Error> {
        let Ok(_permit) = self.permits.acquire().await else { return Ok(false) };
        let ready = self.ready(segment);
        let half = ready.with_extension("half");
        let there = whole(&*self.store, link, segment, &half).await;
        if let Ok(true) = there {
            fs::rename(&half, &ready).map_err(Error::disk("rename", &half))?;
        } else {
            let _ = fs::remove_file(&half);
        }
        there
    }

    /// Fetches a segment that is asked for. `end`: should it not be there whole, and the way end in this epoch, it is the last.
    async fn now(&self, link: &Link, segment: SegmentName, to: &Path, end: bool) -> Result<Whole, Error> {
        let half = self.ready(segment).with_extension("now");
        let _ = fs::remove_file(&half);
        let size = link.claim.segment_size;
        let mut found = Whole::Absent;
        let mut covered = segment.start(size);
        // Twice: a segment may become whole, and its pieces go, while we look for them.
        for _ in 0..2 {
            if whole(&*self.store, link, segment, &half).await? {
                found = Whole::Yes;
                break;
            }
            if let Some(there) = pieces(&*self.store, link, segment, &half).await? {
                covered = there;
                found = if there.bytes_since(segment.start(size)) == size { Whole::Yes } else { Whole::Partly };
                break;
            }
        }
        if found != Whole::Yes && link.until.is_none_or(|until| covered < until) {
            // It is the end of the log, or there is a hole.
            let far = Lsn(covered.0.saturating_add(ahead(size)));
            if let Some(last) = last_behind(&*self.store, link, segment, far).await? {
                if link.until.is_some() || last >= far || self.given_up(link, covered).await? {
                    return Err(Error::Gap { segment, covered });
                }
                if !end {
                    return Err(Error::Unfinished { segment, covered });
                }
            }
        }
        if found != Whole::Absent {
            place(&half, to)?;
        }
        Ok(found)
    }

    /// Whether WAL of this epoch behind `from` was given up.
    async fn given_up(&self, link: &Link, from: Lsn) -> Result<bool, Error> {
        let noted = gaps(&*self.store, link.dir.system).await?;
        Ok(noted.iter().any(|gap| gap.dir == link.dir && gap.to > from))
    }
}

/// Moves a file to where PostgreSQL wants it: a rename, or a copy to another volume.
fn place(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).map_err(Error::disk("copy to", to))?;
            fs::remove_file(from).map_err(Error::disk("remove", from))
        }
        done => done.map_err(Error::disk("rename to", to)),
    }
}

impl Options {
    fn patience_with(&self, e: &Error) -> Duration {
        match e {
            Error::Unfinished { .. } => self.patience.min(UNFINISHED),
            e if e.is_transient() => self.patience,
            _ => Duration::ZERO,
        }
    }
}
