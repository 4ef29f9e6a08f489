//! From the claim to the end of the timeline.

use super::{
    progress::{Progress, Troubles},
    source::Source,
    survey::survey,
    transfer::{Next, Transfer},
};
use crate::{
    layout::{self, Claim, Claimed, EpochDir, claim, read_claim},
    store::{Created, Store, create},
};
use bytes::Bytes;
use pgconvoy_terms::{Lsn, TimelineId};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// What to ship, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it goes.
    pub dir: EpochDir,
    /// The claim that counts: what [`begin`] returned.
    pub claim: Claim,
    /// Up to where the archive is known to be complete; `0/0`: look at all of the epoch.
    pub from: Lsn,
    /// How long WAL that matters may wait. Too short: more requests, which cost money. Too long: more is lost with the
    /// cluster.
    pub max_delay: Duration,
    /// So many waiting bytes are sent before their time.
    pub piece_size: usize,
    /// How long the records of an idle PostgreSQL may wait.
    pub idle_delay: Duration,
    /// Objects on their way at the same time. Too few: a distant store is never busy. Too many: memory.
    pub uploads: usize,
    /// So many bytes are held in memory at most, and one segment of up to 64 MiB beside it. Too few: a backlog goes
    /// slowly.
    pub memory: usize,
}

impl Options {
    /// 1 s or 1 MiB, 5 minutes when idle, 4 uploads, 32 MiB.
    pub fn new(dir: EpochDir, claim: Claim) -> Self {
        Self {
            dir,
            claim,
            from: Lsn(0),
            max_delay: Duration::from_secs(1),
            piece_size: 1 << 20,
            idle_delay: Duration::from_secs(300),
            uploads: 4,
            memory: 32 << 20,
        }
    }
}

/// How shipping ended by itself: all WAL that came is in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server stopped.
    ServerStopped {
        /// The end of its WAL, as far as it might be shipped.
        at: Lsn,
    },
    /// The timeline ended.
    EndOfTimeline {
        /// Where.
        at: Lsn,
        /// The one that follows.
        next: TimelineId,
    },
}

/// Why shipping was given up. What passes (an absent store, an absent server) is no error: it is waited for, and
/// [`Progress::trouble`] says it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else's epoch, or something in the archive that is none of ours.
    #[error(transparent)]
    Archive(#[from] layout::Error),
    /// The server has thrown WAL away that is not archived.
    #[error(
        "the archive of timeline {timeline} ends at {archived} and the server has no WAL from there on: {source}; the \
         archive has a gap from here, so take a new snapshot"
    )]
    WalGone {
        /// The timeline.
        timeline: TimelineId,
        /// Up to where it is archived.
        archived: Lsn,
        /// What the server said.
        source: pgconvoy_wire::Error,
    },
    /// WAL could not be compressed.
    #[error("cannot compress WAL: {0}")]
    Compress(std::io::Error),
}

impl Error {
    /// The reason, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Archive(e) => e.reason(),
            Self::WalGone { .. } => "WalGone",
            Self::Compress(_) => "Compress",
        }
    }
}

/// Claims the epoch and stores its history file, if it has one: before the first byte of WAL. The answer is the claim
/// that counts, which may be an older one of the same member.
///
/// # Errors
/// [`layout::Error::Fenced`] when the epoch is somebody else's; as the store's calls.
pub async fn begin(
    store: &dyn Store,
    dir: &EpochDir,
    ours: &Claim,
    history: Option<Bytes>,
) -> Result<Claim, layout::Error> {
    let counts = match claim(store, dir, ours).await? {
        Claimed::Now => ours.clone(),
        Claimed::Before(there) => there,
    };
    if let Some(history) = history
        && let Created::Differs(_) = create(store, &dir.history(), history).await?
    {
        let why = format!("{} is there with another content", dir.history());
        return Err(layout::Error::Fenced { epoch: dir.epoch.clone(), why });
    }
    Ok(counts)
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Ships WAL until the server stops or its timeline ends. Breaks are mended: the store may be away for hours, the server
/// may be restarted. Dropping the future stops shipping at any time; the next call goes on.
///
/// `safe`: WAL behind it is not shipped yet. Under a quorum it is what the quorum has flushed, so that nothing that was
/// archived is ever taken back; otherwise [`Lsn`]`(u64::MAX)`.
///
/// # Errors
/// [`Error`]: shipping this epoch is over, or needs somebody's help.
pub async fn ship<S: Source>(
    source: &mut S,
    store: Arc<dyn Store>,
    options: &Options,
    mut safe: watch::Receiver<Lsn>,
    progress: &watch::Sender<Progress>,
) -> Result<End, Error> {
    let troubles = Troubles::default();
    let mut from = options.from;
    let mut pause = FIRST_PAUSE;
    loop {
        let standing = match survey(&*store, &options.dir, &options.claim, from).await {
            Ok(standing) => standing,
            Err(layout::Error::Store(e)) => {
                troubles.set(e.reason().name(), e.to_string());
                progress.send_modify(|p| p.trouble = troubles.get());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        from = standing.archived;
        progress.send_modify(|p| p.archived = p.archived.max(standing.archived));
        let next = match source.open(standing.segment).await {
            Ok(stream) => {
                let transfer = Transfer::new(stream, store.clone(), options, &standing, &troubles, progress)
                    .map_err(Error::Compress)?;
                transfer.run(&mut safe).await?
            }
            Err(e) => Next::Broken(e),
        };
        from = from.max(progress.borrow().archived);
        match next {
            Next::End(end) => return Ok(end),
            // It had been running, so what broke is new.
            Next::Again => pause = FIRST_PAUSE,
            Next::Broken(source) if source.code() == Some("58P01") => {
                return Err(Error::WalGone { timeline: options.dir.timeline(), archived: from, source });
            }
            Next::Broken(e) => {
                troubles.set(e.reason(), e.to_string());
                progress.send_modify(|p| p.trouble = troubles.get());
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
        // The claim is looked at again: whoever was away for long may have been replaced.
        match read_claim(&*store, &options.dir).await {
            Ok(Some(there)) if there.member != options.claim.member => {
                let why = format!("{} claims it", there.member);
                return Err(layout::Error::Fenced { epoch: options.dir.epoch.clone(), why }.into());
            }
            Ok(_) | Err(layout::Error::Store(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
