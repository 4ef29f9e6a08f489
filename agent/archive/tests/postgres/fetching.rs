//! Getting it back through `restore_command`.

use crate::{
    bench::{ALL_ROWS, Bench, SEGMENT, flushed, write},
    forks::forked,
    restored::Restored,
    server::{Server, each, give},
};
use pgconvoy_archive::{
    fetch::{Chain, Error, Fetched, Fetcher, Options},
    layout::{EpochDir, Gap},
    store::Store,
};
use pgconvoy_e2e_s3::{Fault, Operation};
use pgconvoy_terms::{Lsn, SegmentName, TimelineId};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

/// Answers a `restore_command` that speaks with it, as the agent does.
pub(crate) struct Answering {
    pub(crate) command: String,
    task: JoinHandle<()>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answering {
    pub(crate) async fn new(fetcher: Arc<Fetcher>, dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut line = String::new();
                BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
                let (name, path) = line.trim_end().split_once(' ').unwrap();
                let status = match fetcher.fetch(name, path.as_ref()).await {
                    Ok(Fetched::Done) => {
                        give(path.as_ref());
                        0
                    }
                    Ok(Fetched::Absent) => 1,
                    Err(e) => {
                        println!("{e}");
                        255
                    }
                };
                stream.write_all(format!("{status}\n").as_bytes()).await.unwrap();
            }
        });
        let ask = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo $1 $PWD/$2 >&3; read -r s <&3; exit $s");
        let script = dir.join("ask");
        fs::write(&script, ask).unwrap();
        Self { command: format!("restore_command = 'bash {} %f %p'", script.display()), task }
    }
}

pub(crate) async fn fetcher(bench: &Bench, dir: &EpochDir, to: PathBuf, patience: u64) -> Arc<Fetcher> {
    let chain = Chain::to(&bench.store, dir.system, &dir.epoch).await.unwrap();
    let options = Options { patience: Duration::from_secs(patience), ..Options::new(to) };
    Arc::new(Fetcher::new(Arc::new(bench.store.clone()), chain, options).unwrap())
}

#[test]
fn every_row_is_restored_over_a_bad_line() {
    each("every_row_is_restored_over_a_bad_line", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let dir = shipper.options.dir.clone();
        write(&server, 100).await;
        let restored = Restored::copy(pg, server.port);
        write(&server, 150_000).await;
        let last = write(&server, 1).await;
        shipper.archived(last).await;
        let rows = server.value(ALL_ROWS).await;
        drop((shipper, server));

        for fault in [Fault::TornBody, Fault::WrongBytes, Fault::SlowDown] {
            bench.s3.faults().order(Operation::Get, "wal/0", fault, 2);
        }
        let fetcher = fetcher(&bench, &dir, restored.dir().join("ahead"), 20).await;
        let answering = Answering::new(fetcher.clone(), restored.dir()).await;
        restored.recover(&[answering.command.clone(), "recovery_target_timeline = '1'".to_owned()]);
        assert_eq!(restored.value(ALL_ROWS).await, rows);
        // What was fetched and not asked for goes.
        drop(answering);
        drop(fetcher);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let left = fs::read_dir(restored.dir().join("ahead")).unwrap().count();
        assert_eq!(left, 0);
    });
}

#[test]
fn a_hole_or_a_flipped_bit_ends_in_an_error_and_never_in_an_early_end() {
    each("a_hole_or_a_flipped_bit_ends_in_an_error_and_never_in_an_early_end", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let (dir, start) = (shipper.options.dir.clone(), shipper.options.claim.start);
        write(&server, 300_000).await;
        let last = write(&server, 1).await;
        shipper.archived(last).await;
        drop(shipper);
        let scratch = tempfile::tempdir().unwrap();
        let to = scratch.path().join("RECOVERYXLOG");
        let fetcher = fetcher(&bench, &dir, scratch.path().join("ahead"), 1).await;
        let name = |n: u64| SegmentName::holding(TimelineId(1), Lsn(start.0 + n * SEGMENT), SEGMENT);
        let object = |n| bench.folder(&dir).join(format!("wal/{}.zst", name(n)));

        assert_eq!(fetcher.fetch(&name(0).to_string(), &to).await.unwrap(), Fetched::Done);
        assert_eq!(fs::read(&to).unwrap(), fs::read(server.data.join("pg_wal").join(name(0).to_string())).unwrap());
        // Let it look ahead first: what it fetched before must not hide the damage.
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(fetcher);
        let fetcher = self::fetcher(&bench, &dir, scratch.path().join("ahead"), 1).await;

        let whole = fs::read(object(1)).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(object(1), &flipped).unwrap();
        let error = fetcher.fetch(&name(1).to_string(), &to).await.unwrap_err();
        assert!(error.to_string().contains(&name(1).to_string()), "{error}");

        fs::remove_file(object(1)).unwrap();
        let error = fetcher.fetch(&name(1).to_string(), &to).await.unwrap_err();
        assert!(matches!(error, Error::Gap { segment, .. } if segment == name(1)), "{error}");
        // With as little behind it as goes side by side, it is where shipping was cut off.
        let behind: Vec<_> = (4..).map(object).take_while(|path| path.exists()).collect();
        assert!(!behind.is_empty());
        behind.iter().for_each(|path| fs::rename(path, path.with_extension("away")).unwrap());
        fs::rename(bench.folder(&dir).join("wal/live"), bench.folder(&dir).join("wal-live-away")).unwrap();
        assert_eq!(fetcher.fetch(&name(1).to_string(), &to).await.unwrap(), Fetched::Absent);
        // Unless it is known to be given up.
        let gap = Gap { dir: dir.clone(), from: name(1).start(SEGMENT), to: name(2).start(SEGMENT) };
        gap.note(&bench.store, "a test", "2026-01-01T00:00:00Z").await.unwrap();
        let error = fetcher.fetch(&name(1).to_string(), &to).await.unwrap_err();
        assert!(matches!(error, Error::Gap { .. }), "{error}");
        bench.store.delete(&[gap.key()]).await.unwrap();
        behind.iter().for_each(|path| fs::rename(path.with_extension("away"), path).unwrap());
        fs::rename(bench.folder(&dir).join("wal-live-away"), bench.folder(&dir).join("wal/live")).unwrap();
        // Another segment under its name is none of it.
        fs::copy(object(0), object(1)).unwrap();
        let error = fetcher.fetch(&name(1).to_string(), &to).await.unwrap_err();
        assert!(error.to_string().contains("does not belong there"), "{error}");
        fs::write(object(1), &whole).unwrap();
        assert_eq!(fetcher.fetch(&name(1).to_string(), &to).await.unwrap(), Fetched::Done);

        // The end of the log is no hole, and what nobody wrote is no error.
        let end = name(last.bytes_since(start) / SEGMENT + 1);
        assert_eq!(fetcher.fetch(&end.to_string(), &to).await.unwrap(), Fetched::Absent);
        for absent in ["00000002.history", "000000010000000000000002.00000028.backup", "000000070000000000000002", "x"]
        {
            assert_eq!(fetcher.fetch(absent, &to).await.unwrap(), Fetched::Absent, "{absent}");
        }
        assert!(matches!(
            Chain::to_timeline(&bench.store, dir.system, TimelineId(9)).await.unwrap_err(),
            Error::Unknown { .. }
        ));
    });
}

#[test]
fn a_cluster_that_is_lost_with_a_segment_on_its_way_comes_back_up_to_there() {
    each("a_cluster_that_is_lost_with_a_segment_on_its_way_comes_back_up_to_there", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let (dir, start) = (shipper.options.dir.clone(), shipper.options.claim.start);
        let first = write(&server, 100).await;
        shipper.archived(first).await;
        let restored = Restored::copy(pg, server.port);
        let name = |n: u64| SegmentName::holding(TimelineId(1), Lsn(start.0 + n * SEGMENT), SEGMENT);
        let object = |n| bench.folder(&dir).join(format!("wal/{}.zst", name(n)));
        let stuck = flushed(&server).await.bytes_since(start) / SEGMENT + 1;
        bench.s3.faults().order(Operation::Put, &format!("{}.zst", name(stuck)), Fault::SlowDown, 100_000);
        write(&server, 400_000).await;
        let end = write(&server, 1).await;
        // Those behind it are stored, but not all of them.
        let beside = Duration::from_secs(20);
        let there = async {
            while !object(stuck + 1).exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(beside, there).await.expect("one object on its way keeps all others back");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let archived = shipper.progress.borrow().archived;
        let there: Vec<u64> = (0..).map_while(|n| (n < 20).then_some(n)).filter(|n| object(*n).exists()).collect();
        assert!(!object(stuck + 5).exists(), "too far ahead of {archived}: {there:?}, {stuck} is missing");
        assert!(archived < end && archived.bytes_since(start) / SEGMENT == stuck, "{archived}");
        drop((shipper, server));

        bench.s3.faults().clear();
        let fetcher = fetcher(&bench, &dir, restored.dir().join("ahead"), 2).await;
        let answering = Answering::new(fetcher, restored.dir()).await;
        restored.recover(&[answering.command.clone(), "recovery_target_timeline = '1'".to_owned()]);
        assert!(restored.value("SELECT count(*) FROM rows").await.parse::<u32>().unwrap() >= 100);
    });
}

#[test]
fn a_forked_archive_gives_the_timeline_that_is_named() {
    each("a_forked_archive_gives_the_timeline_that_is_named", async |pg| {
        let old = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&old, 1).await;
        write(&old, 100).await;
        let restored = Restored::copy(pg, old.port);
        let new = forked(&old).await;
        write(&old, 60_000).await;
        let both = flushed(&old).await;
        new.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{both}'")).await;
        new.value("SELECT pg_promote()").await;
        let stray = write(&old, 60_000).await;
        let mut follower = bench.ship(&new, 2).await;
        let dir = follower.options.dir.clone();
        let (_, fork) = follower.options.claim.parent.clone().unwrap();
        let end = write(&new, 40_000).await;
        shipper.archived(stray).await;
        follower.archived(end).await;
        let rows = new.value(ALL_ROWS).await;
        drop((shipper, follower, old, new));

        let fetcher = fetcher(&bench, &dir, restored.dir().join("ahead"), 20).await;
        let behind = SegmentName::holding(TimelineId(1), Lsn(fork.0 + SEGMENT), SEGMENT);
        let to = restored.dir().join("x");
        assert_eq!(fetcher.fetch(&behind.to_string(), &to).await.unwrap(), Fetched::Absent, "the stray WAL");
        let answering = Answering::new(fetcher, restored.dir()).await;
        restored.recover(&[answering.command.clone(), "recovery_target_timeline = '2'".to_owned()]);
        assert_eq!(restored.value(ALL_ROWS).await, rows);
    });
}
