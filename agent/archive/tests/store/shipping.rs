//! Shipping from a source that is no PostgreSQL: large segments, lost WAL.

use crate::embedded::{config, server};
use bytes::Bytes;
use pgconvoy_archive::{
    fetch::{self, Chain, Fetched, Fetcher},
    layout::{Claim, EpochDir},
    ship::{End, Error, Options, Progress, Source, Stream, begin, ship},
    store::S3,
};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, Lsn, MemberId, MemberName, SegmentName, SystemId};
use pgconvoy_wire as wire;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

const LARGE: u64 = 128 << 20;
const START: Lsn = Lsn(LARGE);

/// A server that has this WAL, and then stops.
struct Fake {
    wal: Arc<Vec<u8>>,
    confirmed: Arc<Mutex<Lsn>>,
}

struct FakeStream {
    wal: Arc<Vec<u8>>,
    at: usize,
    confirmed: Arc<Mutex<Lsn>>,
}

impl Source for Fake {
    type Stream = FakeStream;

    async fn open(&mut self, start: Lsn) -> Result<FakeStream, wire::Error> {
        let at = usize::try_from(start.bytes_since(START)).unwrap();
        Ok(FakeStream { wal: self.wal.clone(), at, confirmed: self.confirmed.clone() })
    }
}

impl Stream for FakeStream {
    async fn next(&mut self) -> Result<wire::Event, wire::Error> {
        tokio::task::yield_now().await;
        if self.at == self.wal.len() {
            return Ok(wire::Event::ServerStopped);
        }
        let to = self.wal.len().min(self.at + (128 << 10));
        let data = Bytes::copy_from_slice(&self.wal[self.at..to]);
        let (start, end) = (Lsn(START.0 + self.at as u64), Lsn(START.0 + self.wal.len() as u64));
        self.at = to;
        Ok(wire::Event::Wal { start, end, sent: SystemTime::UNIX_EPOCH, data })
    }

    async fn confirm(&mut self, received: Lsn, archived: Lsn) -> Result<(), wire::Error> {
        assert!(archived.bytes_since(START) <= self.wal.len() as u64, "{archived}");
        *self.confirmed.lock().unwrap() = received;
        Ok(())
    }
}

fn dir() -> EpochDir {
    EpochDir { system: SystemId(7), epoch: Epoch { number: 1, id: ChangeId::from_random(1) } }
}

async fn options(store: &S3) -> Options {
    let member = MemberId { name: MemberName::new("orders", 1), incarnation: Incarnation::from_random(1) };
    let claim = Claim { member, parent: None, start: START, segment_size: LARGE, time: "t".into() };
    Options::new(dir(), begin(store, &dir(), &claim, None).await.unwrap())
}

async fn run(store: &S3, wal: Vec<u8>) -> (Result<End, Error>, usize) {
    let mut source = Fake { wal: Arc::new(wal), confirmed: Arc::default() };
    let (told, mut progress) = watch::channel(Progress::default());
    let (_safe, limit) = watch::channel(Lsn(u64::MAX));
    let most = tokio::spawn(async move {
        let mut most = 0;
        while progress.changed().await.is_ok() {
            most = most.max(progress.borrow_and_update().memory);
        }
        most
    });
    let options = options(store).await;
    let end = ship(&mut source, Arc::new(store.clone()), &options, limit, &told).await;
    drop(told);
    (end, most.await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_that_do_not_fit_into_memory_are_kept_as_pieces() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    // What compresses not at all is the most that has to be held.
    let mut wal = crate::contract::large(50).to_vec();
    let (end, most) = run(&store, wal.clone()).await;
    assert_eq!(end.unwrap(), End::ServerStopped { at: Lsn(START.0 + wal.len() as u64) });
    assert!(most < 64 << 20, "{most} bytes were held");
    // The server comes back and goes on into the next segment.
    wal.resize(usize::try_from(LARGE).unwrap() + 5000, 7);
    let (end, _) = run(&store, wal.clone()).await;
    assert_eq!(end.unwrap(), End::ServerStopped { at: Lsn(START.0 + wal.len() as u64) });
    assert!(
        server
            .keys()
            .iter()
            .all(|k| !k.ends_with(&format!("wal/{}.zst", SegmentName::holding(dir().timeline(), START, LARGE))))
    );

    let scratch = tempfile::tempdir().unwrap();
    let chain = Chain::to(&store, dir().system, &dir().epoch).await.unwrap();
    let fetcher = Fetcher::new(Arc::new(store), chain, fetch::Options::new(scratch.path().join("ahead"))).unwrap();
    let to = scratch.path().join("segment");
    for (n, length) in [(0, LARGE), (1, 5000)] {
        let name = SegmentName::holding(dir().timeline(), Lsn(START.0 + n * LARGE), LARGE);
        assert_eq!(fetcher.fetch(&name.to_string(), &to).await.unwrap(), Fetched::Done);
        let (file, from) = (std::fs::read(&to).unwrap(), usize::try_from(n * LARGE).unwrap());
        let length = usize::try_from(length).unwrap();
        assert_eq!(file.len() as u64, LARGE);
        assert!(file[..length] == wal[from..from + length], "segment {n} differs");
        assert!(file[length..].iter().all(|b| *b == 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_megabyte_a_second_is_slow_and_not_broken() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    server.faults().set_rate(Some(1 << 20));
    let wal = crate::contract::large(4).to_vec();
    let end = Lsn(START.0 + wal.len() as u64);
    let mut source = Fake { wal: Arc::new(wal), confirmed: Arc::default() };
    let (told, mut progress) = watch::channel(Progress::default());
    let (_safe, limit) = watch::channel(Lsn(u64::MAX));
    let seen = tokio::spawn(async move {
        let (mut backlog, mut trouble) = (0, None);
        while progress.changed().await.is_ok() {
            let now = progress.borrow_and_update();
            backlog = backlog.max(now.backlog());
            trouble = now.trouble.clone().or(trouble);
        }
        (backlog, trouble)
    });
    let options = options(&store).await;
    let begun = std::time::Instant::now();
    let ended = ship(&mut source, Arc::new(store), &options, limit, &told).await;
    drop(told);
    assert_eq!(ended.unwrap(), End::ServerStopped { at: end });
    assert!(begun.elapsed() > Duration::from_secs(1), "it was slow: {:?}", begun.elapsed());
    let (backlog, trouble) = seen.await.unwrap();
    assert!(backlog > 2 << 20, "that it is behind shows: {backlog}");
    assert_eq!(trouble, None, "slow is no trouble");
}

struct Lost;

impl Source for Lost {
    type Stream = FakeStream;

    async fn open(&mut self, _: Lsn) -> Result<FakeStream, wire::Error> {
        let error = Box::new(wire::ServerError {
            severity: "ERROR".into(),
            code: "58P01".into(),
            message: "requested WAL segment 000000010000000000000001 has already been removed".into(),
            detail: None,
            hint: None,
        });
        Err(wire::Error::Server { peer: "orders-1".into(), doing: "streaming WAL", error })
    }
}

#[tokio::test]
async fn wal_that_is_gone_is_said_at_once() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    let (told, _progress) = watch::channel(Progress::default());
    let (_safe, limit) = watch::channel(Lsn(u64::MAX));
    let options = options(&store).await;
    let mut source = Lost;
    let shipping = ship(&mut source, Arc::new(store), &options, limit, &told);
    let error = tokio::time::timeout(Duration::from_secs(10), shipping).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), "WalGone");
    assert!(error.to_string().contains("take a new snapshot"), "{error}");
}
