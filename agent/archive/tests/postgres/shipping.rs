//! What gets into the archive, when, and under which faults.

use crate::{
    bench::{Bench, flushed, rest, write},
    server::{Server, each},
};
use pgconvoy_archive::ship::End;
use pgconvoy_e2e_s3::{Fault, Operation};
use pgconvoy_terms::Lsn;
use std::time::{Duration, Instant};

#[test]
fn a_commit_is_durable_in_the_store_within_about_a_second() {
    each("a_commit_is_durable_in_the_store_within_about_a_second", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        write(&server, 1).await;
        let mut worst = Duration::ZERO;
        for _ in 0..4 {
            rest(100).await;
            let end = write(&server, 1).await;
            worst = worst.max(shipper.archived(end).await);
        }
        assert!(worst < Duration::from_millis(2500), "commit to durable took {worst:?}");
        println!("commit to durable in the store: {worst:?} at most");
    });
}

#[test]
fn an_idle_server_costs_no_request() {
    each("an_idle_server_costs_no_request", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let end = write(&server, 1).await;
        shipper.archived(end).await;
        // Hint bits and the like of what was just written come to rest.
        server.sql().await.simple_query("CHECKPOINT").await.unwrap();
        let end = write(&server, 1).await;
        shipper.archived(end).await;
        rest(1500).await;
        let (writes, lists) = (bench.s3.faults().writes(), bench.s3.faults().count(Operation::List));
        for _ in 0..3 {
            server.sql().await.simple_query("CHECKPOINT").await.unwrap();
            rest(700).await;
        }
        assert!(flushed(&server).await > shipper.progress.borrow().archived, "the checkpoints wait");
        assert_eq!(bench.s3.faults().writes(), writes);
        assert_eq!(bench.s3.faults().count(Operation::List), lists);
        // But not for ever.
        let mut shipper = {
            drop(shipper);
            bench.ship_with(&server, 1, |o| o.idle_delay = Duration::from_millis(500)).await.unwrap()
        };
        shipper.archived(flushed(&server).await).await;
    });
}

#[test]
fn a_killed_agent_leaves_no_gap() {
    each("a_killed_agent_leaves_no_gap", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let (mut start, mut dir) = (None, None);
        // Slow enough that agents die with objects on their way.
        bench.s3.faults().set_latency(Duration::from_millis(30));
        for (round, wait) in [0, 150, 900, 40, 1300, 300].into_iter().enumerate() {
            let shipper = bench
                .ship_with(&server, 1, |o| {
                    o.max_delay = Duration::from_millis(100);
                    o.piece_size = 256 << 10;
                })
                .await
                .unwrap();
            start.get_or_insert(shipper.options.claim.start);
            dir.get_or_insert_with(|| shipper.options.dir.clone());
            write(&server, if round % 2 == 0 { 30_000 } else { 40 }).await;
            rest(wait).await;
        }
        let mut shipper = bench.ship(&server, 1).await;
        let end = write(&server, 1).await;
        shipper.archived(end).await;
        bench.compare(&dir.unwrap(), start.unwrap(), end, &server.data);
    });
}

#[test]
fn a_store_that_fails_is_caught_up_with() {
    each("a_store_that_fails_is_caught_up_with", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship_with(&server, 1, |o| o.memory = 4 << 20).await.unwrap();
        let (dir, start) = (shipper.options.dir.clone(), shipper.options.claim.start);
        let end = write(&server, 1).await;
        shipper.archived(end).await;
        bench.s3.faults().order(Operation::Put, "", Fault::SlowDown, 100_000);
        let mut end = end;
        for _ in 0..6 {
            end = write(&server, 20_000).await;
        }
        shipper.progress.wait_for(|p| p.trouble.is_some()).await.unwrap();
        rest(1000).await;
        let progress = shipper.progress.borrow().clone();
        assert_eq!(progress.trouble.as_ref().unwrap().reason, "Busy", "{progress:?}");
        assert!(progress.oldest.is_some_and(|t| t.elapsed() > Duration::from_secs(1)), "{progress:?}");
        // One segment and the frames on their way beside the bound.
        assert!(progress.memory < 24 << 20, "{progress:?}");
        // Back, but every answer is lost, and then it is slow.
        bench.s3.faults().clear();
        bench.s3.faults().order(Operation::Put, "", Fault::DoneButAnswered500, 4);
        bench.s3.faults().set_rate(Some(40 << 20));
        shipper.archived(end).await;
        assert_eq!(shipper.progress.borrow().trouble, None);
        bench.compare(&dir, start, end, &server.data);
    });
}

#[test]
fn nothing_is_shipped_that_the_quorum_does_not_have() {
    each("nothing_is_shipped_that_the_quorum_does_not_have", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship_with(&server, 1, |o| o.max_delay = Duration::from_millis(50)).await.unwrap();
        let (dir, start) = (shipper.options.dir.clone(), shipper.options.claim.start);
        let safe = write(&server, 1).await;
        shipper.archived(safe).await;
        let safe = shipper.progress.borrow().archived;
        shipper.safe.send(safe).unwrap();
        rest(100).await;
        let later = write(&server, 20_000).await;
        rest(1500).await;
        let progress = shipper.progress.borrow().clone();
        assert_eq!(progress.archived, safe, "{progress:?}");
        assert!(progress.received > safe, "it is read already");
        let middle = Lsn(safe.0 + later.bytes_since(safe) / 2);
        shipper.safe.send(middle).unwrap();
        shipper.archived(middle).await;
        rest(500).await;
        assert_eq!(shipper.progress.borrow().archived, middle);
        shipper.safe.send(Lsn(u64::MAX)).unwrap();
        shipper.archived(later).await;
        bench.compare(&dir, start, later, &server.data);
    });
}

#[test]
fn a_stopping_server_waits_for_nothing_and_its_last_wal_is_archived() {
    each("a_stopping_server_waits_for_nothing_and_its_last_wal_is_archived", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let (dir, start) = (shipper.options.dir.clone(), shipper.options.claim.start);
        let end = write(&server, 1).await;
        shipper.archived(end).await;
        bench.s3.faults().set_latency(Duration::from_secs(2));
        write(&server, 1000).await;
        let before = Instant::now();
        server.stop().await;
        let stopped = before.elapsed();
        let End::ServerStopped { at } = shipper.ended().await.unwrap() else { panic!("no timeline ended") };
        assert!(stopped < Duration::from_secs(2), "the stop took {stopped:?}");
        let control = pg.run("pg_controldata", &[server.data.to_str().unwrap()]);
        let last = control.lines().find_map(|l| l.strip_prefix("Latest checkpoint location:")).unwrap().trim();
        assert!(at > last.parse().unwrap(), "the last checkpoint is at {last}, archived up to {at}");
        bench.compare(&dir, start, at, &server.data);
        bench.s3.faults().set_latency(Duration::ZERO);

        // Started again it goes on where it was.
        server.start_again().await;
        let mut shipper = bench.ship(&server, 1).await;
        let end = write(&server, 1).await;
        shipper.archived(end).await;
        bench.compare(&dir, start, end, &server.data);
    });
}
