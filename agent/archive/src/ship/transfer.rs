//! One stream of WAL, on its way into the store.

use super::{
    cut::{Cutter, Effect, Event, Policy},
    framer::Framer,
    progress::{Ledger, Progress, Troubles},
    records::Scanner,
    run::{End, Error, Options},
    source::Stream,
    superseded::Superseded,
    survey::Standing,
    upload::{Stored, upload},
};
use crate::{
    layout::{EpochDir, Piece, ahead},
    store::Store,
};
use bytes::{Bytes, BytesMut};
use pgconvoy_terms::{Lsn, SegmentName};
use pgconvoy_wire as wire;
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// So much WAL becomes one zstd frame.
const FRAME: usize = 1 << 20;
/// Larger segments are never held in memory whole; pieces of them are all there is.
const WHOLE_LIMIT: u64 = 64 << 20;
const LARGE_PIECE: u64 = 16 << 20;
/// How often the server hears from us, also while nothing is read.
const CONFIRM: Duration = Duration::from_secs(1);

/// How a transfer ended.
#[derive(Debug)]
pub(super) enum Next {
    /// There is no more WAL.
    End(End),
    /// Look again where the archive stands, and go on.
    Again,
    /// The stream broke.
    Broken(wire::Error),
}

/// What is done in this order, one after the other.
enum Job {
    Frame(Bytes),
    /// Up to here it is in the archive already.
    Skip,
    Piece(Piece, Lsn),
    Segment(Lsn),
}

struct Done {
    start: Lsn,
    end: Lsn,
    size: usize,
    piece: Option<Piece>,
    took: Duration,
    stored: Stored,
}

type Framing = JoinHandle<(Framer, io::Result<()>)>;

pub(super) struct Transfer<'a, S> {
    stream: S,
    store: Arc<dyn Store>,
    options: &'a Options,
    troubles: &'a Troubles,
    progress: &'a watch::Sender<Progress>,
    began: Instant,
    cutter: Cutter,
    scanner: Scanner,
    /// WAL that is not in a job yet, and where it begins.
    raw: BytesMut,
    raw_start: Lsn,
    /// Up to where the cutter has been told.
    told: Lsn,
    /// Up to where pieces were stored when it began.
    resume: Lsn,
    received: Lsn,
    server: Lsn,
    jobs: VecDeque<Job>,
    queued: usize,
    framer: Option<Framer>,
    framing: Option<Framing>,
    uploads: JoinSet<Result<Done, crate::layout::Error>>,
    uploading: usize,
    ledger: Ledger,
    next_piece: u32,
    /// Pieces of the segment under way, and those that may go.
    pieces: Vec<Piece>,
    superseded: Superseded,
    /// Whole segments on their way.
    segments: BTreeSet<Lsn>,
    end: Option<End>,
    whole: bool,
}

impl<'a, S: Stream> Transfer<'a, S> {
    pub(super) fn new(
        stream: S,
        store: Arc<dyn Store>,
        options: &'a Options,
        standing: &Standing,
        troubles: &'a Troubles,
        progress: &'a watch::Sender<Progress>,
    ) -> io::Result<Self> {
        let size = options.claim.segment_size;
        let whole = size <= WHOLE_LIMIT;
        let policy = Policy {
            segment_size: size,
            max_delay: options.max_delay,
            piece_size: options.piece_size as u64,
            idle_delay: options.idle_delay,
            whole_segments: whole,
            large_piece: LARGE_PIECE,
        };
        let segment = standing.segment;
        Ok(Self {
            stream,
            store,
            options,
            troubles,
            progress,
            began: Instant::now(),
            cutter: Cutter::new(policy, segment, standing.archived, Duration::ZERO),
            scanner: Scanner::new(segment, size),
            raw: BytesMut::new(),
            raw_start: segment,
            told: segment,
            resume: standing.archived,
            received: segment,
            server: segment,
            jobs: VecDeque::new(),
            queued: 0,
            framer: Some(Framer::new(segment, whole)?),
            framing: None,
            uploads: JoinSet::new(),
            uploading: 0,
            ledger: Ledger::new(standing.archived),
            next_piece: standing.next_piece,
            pieces: standing.pieces.clone(),
            superseded: Superseded::new(standing.superseded.clone()),
            segments: BTreeSet::new(),
            end: None,
            whole,
        })
    }

    pub(super) async fn run(mut self, safe: &mut watch::Receiver<Lsn>) -> Result<Next, Error> {
        let mut confirm = tokio::time::interval(CONFIRM);
        confirm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut limit = *safe.borrow_and_update();
        let mut safe_alive = true;
        loop {
            self.pump();
            self.publish();
            if let Some(end) = self.end
                && self.is_drained()
            {
                let newest = self.next_piece.saturating_sub(1);
                self.superseded.remove(&self.store, &self.options.dir, newest, true).await;
                return Ok(Next::End(end));
            }
            let wake = self.cutter.wake().map(|at| tokio::time::Instant::from_std(self.began + at));
            let reading = self.end.is_none() && self.may_read();
            tokio::select! {
                event = self.stream.next(), if reading => match event {
                    Ok(event) => self.receive(event, limit).await?,
                    Err(e) => return Ok(Next::Broken(e)),
                },
                (framer, done) = framed(&mut self.framing), if self.framing.is_some() => {
                    self.framing = None;
                    self.framer = Some(framer);
                    done.map_err(Error::Compress)?;
                }
                Some(done) = self.uploads.join_next(), if !self.uploads.is_empty() => match done {
                    Ok(done) => {
                        let done = done?;
                        if done.stored == Stored::CutElsewhere {
                            return Ok(Next::Again);
                        }
                        self.stored(&done);
                    }
                    // A task that was ended from outside: the runtime stops.
                    Err(_) => return Ok(Next::Again),
                },
                () = sleep_until(wake), if wake.is_some() => self.step(Event::Tick),
                _ = confirm.tick(), if self.end.is_none() => {
                    let newest = self.next_piece.saturating_sub(1);
                    self.superseded.remove(&self.store, &self.options.dir, newest, false).await;
                    if let Err(e) = self.stream.confirm(self.received, self.ledger.archived()).await {
                        return Ok(Next::Broken(e));
                    }
                }
                changed = safe.changed(), if safe_alive => {
                    safe_alive = changed.is_ok();
                    limit = *safe.borrow_and_update();
                    self.take_in(limit);
                }
            }
        }
    }

    fn dir(&self) -> &EpochDir {
        &self.options.dir
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn memory(&self) -> usize {
        self.raw.len() + self.queued + self.uploading + self.framer.as_ref().map_or(0, Framer::held)
    }

    /// Whether there is room. When nothing is under way there always is, or nothing would ever become of what is held;
    /// but not for WAL that may not be sent yet.
    fn may_read(&self) -> bool {
        let working = !self.jobs.is_empty() || self.framing.is_some() || !self.uploads.is_empty();
        self.memory() < self.options.memory || (!working && self.told == self.received)
    }

    fn is_drained(&self) -> bool {
        self.jobs.is_empty() && self.framing.is_none() && self.uploads.is_empty()
    }

    async fn receive(&mut self, event: wire::Event, limit: Lsn) -> Result<(), Error> {
        if self.uploads.is_empty() {
            self.troubles.clear();
        }
        match event {
            wire::Event::Wal { start, end, data, .. } => {
                // What came twice is passed over; a gap cannot be: the server sends byte after byte.
                let known = usize::try_from(self.received.bytes_since(start)).unwrap_or(usize::MAX);
                let new = data.get(known..).unwrap_or_default();
                self.raw.extend_from_slice(new);
                self.received = Lsn(self.received.0 + new.len() as u64);
                self.server = self.server.max(end).max(self.received);
                self.take_in(limit);
            }
            wire::Event::Keepalive { end, reply_requested, .. } => {
                self.server = self.server.max(end);
                if reply_requested {
                    // A server that stops waits for this. That it is gone shows with the next read.
                    let _ = self.stream.confirm(self.received, self.ledger.archived()).await;
                }
            }
            wire::Event::EndOfTimeline { next, start } => {
                // All of the timeline is part of its successor, whatever the quorum had said.
                self.take_in(start);
                self.finish(End::EndOfTimeline { at: start, next });
            }
            wire::Event::ServerStopped => {
                self.take_in(limit);
                self.finish(End::ServerStopped { at: self.told });
            }
        }
        Ok(())
    }

    fn finish(&mut self, end: End) {
        self.step(Event::End);
        self.end = Some(end);
    }

    /// Tells the cutter what may be sent, border by border.
    fn take_in(&mut self, limit: Lsn) {
        loop {
            let mut to = self.received.min(limit).min(self.cutter.segment_end());
            if self.told < self.resume {
                to = to.min(self.resume);
            }
            if to <= self.told {
                return;
            }
            let new = &self.raw[offset(self.raw_start, self.told)..offset(self.raw_start, to)];
            let matters = self.scanner.matters(new);
            self.told = to;
            if matters && to > self.ledger.archived() {
                self.ledger.received(to, Instant::now());
            }
            self.step(Event::Wal { to, matters, server: self.server });
            if to == self.resume {
                self.frames(to, true);
                self.jobs.push_back(Job::Skip);
            }
            self.frames(to, false);
        }
    }

    fn step(&mut self, event: Event) {
        for effect in self.cutter.step(self.now(), event) {
            match effect {
                Effect::Piece { from, to } => {
                    self.frames(to, true);
                    let piece = Piece { number: self.next_piece, start: from };
                    self.next_piece = self.next_piece.saturating_add(1);
                    self.jobs.push_back(Job::Piece(piece, to));
                }
                Effect::Segment(start) => {
                    self.frames(Lsn(start.0 + self.options.claim.segment_size), true);
                    self.segments.insert(start);
                    self.jobs.push_back(Job::Segment(start));
                }
            }
        }
    }

    /// Makes jobs of what has come up to `to`; with `all` also of less than a frame.
    fn frames(&mut self, to: Lsn, all: bool) {
        loop {
            let there = offset(self.raw_start, to);
            let take = if there >= FRAME {
                FRAME
            } else if all {
                there
            } else {
                0
            };
            if take == 0 {
                return;
            }
            let wal = self.raw.split_to(take).freeze();
            self.raw_start = Lsn(self.raw_start.0 + take as u64);
            self.queued += take;
            self.jobs.push_back(Job::Frame(wal));
        }
    }

    /// Does what can be done at once.
    fn pump(&mut self) {
        while self.framing.is_none() {
            // The order matters: a piece is what came since the last one.
            let start = match self.jobs.front() {
                Some(Job::Piece(Piece { start, .. }, _) | Job::Segment(start)) => Some(*start),
                _ => None,
            };
            // One object that does not get through keeps back those behind it.
            let far = |start: Lsn| start.bytes_since(self.ledger.archived()) >= ahead(self.options.claim.segment_size);
            if start.is_some_and(|start| self.uploads.len() >= self.options.uploads.max(1) || far(start)) {
                return;
            }
            let (Some(job), Some(framer)) = (self.jobs.pop_front(), self.framer.as_mut()) else { return };
            match job {
                Job::Frame(wal) => {
                    self.queued -= wal.len();
                    if let Some(mut framer) = self.framer.take() {
                        // zstd needs milliseconds for it, which others on this thread should not wait.
                        self.framing = Some(tokio::task::spawn_blocking(move || {
                            let done = framer.add(&wal);
                            (framer, done)
                        }));
                    }
                }
                Job::Skip => framer.skip_piece(),
                Job::Piece(piece, end) => {
                    let object = framer.piece();
                    if !self.whole && end.0.is_multiple_of(self.options.claim.segment_size) {
                        framer.next_segment();
                    }
                    let key = self.dir().piece(piece);
                    self.send(key, object, piece.start, end, Some(piece));
                }
                Job::Segment(start) => {
                    let object = framer.segment();
                    let size = self.options.claim.segment_size;
                    let name = SegmentName::holding(self.dir().timeline(), start, size);
                    let key = self.dir().segment(name);
                    self.send(key, object, start, Lsn(start.0 + size), None);
                }
            }
        }
    }

    fn send(&mut self, key: String, object: Bytes, start: Lsn, end: Lsn, piece: Option<Piece>) {
        let size = object.len();
        self.uploading += size;
        let (store, epoch, troubles) = (self.store.clone(), self.dir().epoch.clone(), self.troubles.clone());
        self.uploads.spawn(async move {
            let before = Instant::now();
            let stored = upload(&*store, &epoch, &key, object, &troubles).await?;
            Ok(Done { start, end, size, piece, took: before.elapsed(), stored })
        });
    }

    fn stored(&mut self, done: &Done) {
        self.troubles.clear();
        self.uploading -= done.size;
        self.ledger.stored(done.start, done.end);
        self.progress.send_modify(|p| {
            p.last_write = Some(done.took);
            if done.piece.is_some() { p.pieces += 1 } else { p.segments += 1 }
        });
        match done.piece {
            Some(piece) => {
                let segment = Lsn(piece.start.0 - piece.start.0 % self.options.claim.segment_size);
                let under_way = Lsn(self.cutter.segment_end().0 - self.options.claim.segment_size);
                // Its segment may have been quicker.
                let late = self.whole && segment < under_way && !self.segments.contains(&segment);
                if late {
                    self.superseded.add([piece]);
                } else {
                    self.pieces.push(piece);
                }
                self.step(Event::Stored);
            }
            None => {
                self.segments.remove(&done.start);
                let inside = |p: &Piece| done.start <= p.start && p.start < done.end;
                self.superseded.add(self.pieces.extract_if(.., |p| inside(p)));
            }
        }
    }

    fn publish(&self) {
        let now = Progress {
            archived: self.ledger.archived(),
            received: self.received,
            server: self.server,
            oldest: self.ledger.oldest(),
            memory: self.memory(),
            trouble: self.troubles.get(),
            ..Progress::default()
        };
        self.progress.send_if_modified(|p| {
            let changed = (p.archived, p.received, p.server, p.oldest, &p.trouble)
                != (now.archived, now.received, now.server, now.oldest, &now.trouble);
            let (pieces, segments, last_write) = (p.pieces, p.segments, p.last_write);
            *p = Progress { pieces, segments, last_write, ..now };
            changed
        });
    }
}

fn offset(start: Lsn, at: Lsn) -> usize {
    usize::try_from(at.bytes_since(start)).unwrap_or(usize::MAX)
}

async fn framed(framing: &mut Option<Framing>) -> (Framer, io::Result<()>) {
    match framing {
        Some(framing) => match framing.await {
            Ok(done) => done,
            // The runtime stops, and with it this.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
