//! A bench: an archive, and shippers that work on it.

use crate::server::Server;
use pgconvoy_archive::{
    layout::{self, Claim, EpochDir},
    ship::{End, Error, Options, Postgres, Progress, begin, ship},
    store::{Config, Credentials, Keys, Limits, S3},
};
use pgconvoy_e2e_s3 as s3;
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, Lsn, MemberId, MemberName, SegmentName, TimelineId};
use pgconvoy_wire::{Client, Config as Wire};
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

pub(crate) const SEGMENT: u64 = 16 << 20;

/// An archive in an embedded store.
pub(crate) struct Bench {
    pub(crate) s3: s3::Server,
    pub(crate) store: S3,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let s3 = s3::Server::start(s3::Options::default()).await.unwrap();
        let options = s3.options();
        let keys = Keys::new(&options.access_key, &options.secret_key, None);
        let limits = Limits {
            attempt: Duration::from_secs(10),
            attempts: 2,
            first_pause: Duration::from_millis(10),
            ..Limits::default()
        };
        let config = Config {
            endpoint: Some(s3.endpoint()),
            path_style: true,
            prefix: "ns/orders".into(),
            limits,
            ..Config::new(&options.bucket, "us-east-1", Credentials::keys(keys))
        };
        Self { store: S3::new(config).await.unwrap(), s3 }
    }

    /// The epoch of a server that leads now.
    pub(crate) async fn dir(&self, server: &Server) -> EpochDir {
        let system = Client::connect(&server.local()).await.unwrap().identify_system().await.unwrap();
        let number = system.timeline.0;
        EpochDir { system: system.system_id, epoch: Epoch { number, id: ChangeId::from_random(number.into()) } }
    }

    /// The folder of an epoch, as files.
    pub(crate) fn folder(&self, dir: &EpochDir) -> std::path::PathBuf {
        self.s3.bucket_dir().join("ns/orders").join(dir.to_string())
    }

    /// Claims the epoch for a member and ships from now on.
    pub(crate) async fn ship(&self, server: &Server, ordinal: u32) -> Shipper {
        self.ship_with(server, ordinal, |_| {}).await.unwrap()
    }

    pub(crate) async fn ship_with(
        &self,
        server: &Server,
        ordinal: u32,
        change: impl FnOnce(&mut Options),
    ) -> Result<Shipper, layout::Error> {
        let mut client = Client::connect(&server.local()).await.unwrap();
        let dir = self.dir(server).await;
        let timeline = dir.timeline();
        let history =
            if timeline > TimelineId(1) { Some(client.timeline_history(timeline).await.unwrap()) } else { None };
        let fork = history.as_ref().and_then(|h| h.history.parent());
        let position = fork.map_or(client.identify_system().await.unwrap().position, |(_, fork)| fork);
        let parent = fork.map(|(parent, fork)| {
            let id = ChangeId::from_random(parent.0.into());
            (Epoch { number: parent.0, id }, fork)
        });
        let ours = Claim {
            member: MemberId {
                name: MemberName::new("orders", ordinal),
                incarnation: Incarnation::from_random(ordinal.into()),
            },
            parent,
            start: Lsn(position.0 - position.0 % SEGMENT),
            segment_size: SEGMENT,
            time: "2026-01-01T00:00:00Z".into(),
        };
        let claim = begin(&self.store, &dir, &ours, history.map(|h| h.content)).await?;
        let mut options = Options::new(dir, claim);
        change(&mut options);
        Ok(Shipper::start(self.store.clone(), server.local(), options))
    }

    /// The WAL of a segment as the archive has it, from its pieces if it is not there whole.
    pub(crate) fn segment(&self, dir: &EpochDir, segment: SegmentName) -> Vec<u8> {
        let wal = self.folder(dir).join("wal");
        if let Ok(whole) = fs::read(wal.join(format!("{segment}.zst"))) {
            let (header, bytes) = layout::decompress("segment", &whole).unwrap();
            assert_eq!(header.start, segment.start(SEGMENT));
            assert_eq!(bytes.len() as u64, SEGMENT);
            return bytes.to_vec();
        }
        let mut pieces: Vec<_> =
            fs::read_dir(wal.join("live")).into_iter().flatten().map(|e| e.unwrap().path()).collect();
        pieces.sort();
        let mut bytes = Vec::new();
        for piece in pieces {
            let (header, wal) = layout::decompress("piece", &fs::read(piece).unwrap()).unwrap();
            let start = segment.start(SEGMENT).0;
            if header.start.0 == start + bytes.len() as u64 && header.start.0 < start + SEGMENT {
                bytes.extend_from_slice(&wal);
            }
        }
        bytes
    }

    /// Compares what is archived of a timeline with the server's files, up to `end`.
    pub(crate) fn compare(&self, dir: &EpochDir, start: Lsn, end: Lsn, data: &Path) {
        let mut at = Lsn(start.0 - start.0 % SEGMENT);
        while at < end {
            let name = SegmentName::holding(dir.timeline(), at, SEGMENT);
            let length = usize::try_from(end.bytes_since(at).min(SEGMENT)).unwrap();
            let archived = self.segment(dir, name);
            let file = fs::read(data.join("pg_wal").join(name.to_string())).unwrap();
            assert!(archived.len() >= length, "{name}: {} bytes of {length}", archived.len());
            assert!(archived[..length] == file[..length], "{name} differs");
            at = Lsn(at.0 + SEGMENT);
        }
    }
}

/// A shipper at work. Dropping it ends it as a killed agent ends.
pub(crate) struct Shipper {
    pub(crate) options: Options,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) safe: watch::Sender<Lsn>,
    task: JoinHandle<Result<End, Error>>,
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shipper {
    pub(crate) fn start(store: S3, mut config: Wire, options: Options) -> Self {
        let (safe, limit) = watch::channel(Lsn(u64::MAX));
        let (told, progress) = watch::channel(Progress::default());
        config.application_name = "pgconvoy_archive".into();
        config.parameters = vec![("wal_sender_timeout".into(), "30s".into())];
        let mut source =
            Postgres { config, timeline: options.dir.timeline(), slot: None, idle_timeout: Duration::from_secs(30) };
        let ours = options.clone();
        let task = tokio::spawn(async move { ship(&mut source, Arc::new(store), &ours, limit, &told).await });
        Self { options, progress, safe, task }
    }

    /// Waits until everything up to there is archived; says how long it took.
    pub(crate) async fn archived(&mut self, end: Lsn) -> Duration {
        let before = Instant::now();
        let arrived = async { self.progress.wait_for(|p| p.archived >= end).await.is_ok() };
        match tokio::time::timeout(Duration::from_secs(40), arrived).await {
            Ok(true) => before.elapsed(),
            Ok(false) => panic!("it ended: {:?}", (&mut self.task).await),
            Err(_) => panic!("not archived up to {end}: {:?}", *self.progress.borrow()),
        }
    }

    /// How it ended by itself.
    pub(crate) async fn ended(mut self) -> Result<End, Error> {
        let task = std::mem::replace(&mut self.task, tokio::spawn(std::future::pending()));
        tokio::time::timeout(Duration::from_secs(30), task).await.expect("it goes on").unwrap()
    }
}

pub(crate) async fn flushed(server: &Server) -> Lsn {
    server.value("SELECT pg_current_wal_flush_lsn()").await.parse().unwrap()
}

/// Some rows in a transaction of their own.
pub(crate) async fn write(server: &Server, rows: u32) -> Lsn {
    let mut sql = server.sql().await;
    let table = "CREATE TABLE IF NOT EXISTS rows (n serial, text text)";
    let insert = format!("INSERT INTO rows (text) SELECT repeat(md5(i::text), 10) FROM generate_series(1, {rows}) i");
    sql.simple_query(&format!("{table}; {insert}")).await.unwrap();
    flushed(server).await
}

/// Every row, as one text.
pub(crate) const ALL_ROWS: &str = "SELECT count(*) || ' ' || md5(string_agg(n || text, ',' ORDER BY n)) FROM rows";

/// Nothing for a while.
pub(crate) async fn rest(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}
