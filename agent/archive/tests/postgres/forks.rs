//! Two leaders at once.

use crate::{
    bench::{ALL_ROWS, Bench, SEGMENT, Shipper, flushed, write},
    restored::Restored,
    server::{Server, each, give},
    stock_tools::run,
};
use pgconvoy_archive::{
    layout::{self, Piece, read_claim},
    ship::{End, Error, Options},
};
use pgconvoy_terms::{SegmentName, TimelineId};
use pgconvoy_wire::{BackupOptions, Client, RestoreOptions};

/// A server and its promoted copy, which have gone apart.
pub(crate) async fn forked(server: &Server) -> Server {
    let mut client = Client::connect(&server.local()).await.unwrap();
    client.create_physical_slot("follower", true, false).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut backup = client.base_backup(BackupOptions::new("copy")).await.unwrap();
    backup.restore_into(&dir.path().join("data"), &RestoreOptions::default(), |_| {}).await.unwrap();
    give(dir.path());
    let standby = Server::standby(server, dir, "follower").await;
    server.wait_for("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'walreceiver'").await;
    standby
}

#[test]
fn an_epoch_has_one_writer() {
    each("an_epoch_has_one_writer", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let end = write(&server, 10).await;
        shipper.archived(end).await;
        // Another member, by mistake in the same epoch, is refused by the claim.
        let refused = bench.ship_with(&server, 2, |_| {}).await;
        let Err(error @ layout::Error::Fenced { .. }) = refused else { panic!("two claims") };
        assert!(error.to_string().contains("orders-1/"), "{error}");
    });
}

#[test]
fn a_thawed_copy_of_the_leader_is_fenced_by_what_it_finds() {
    each("a_thawed_copy_of_the_leader_is_fenced_by_what_it_finds", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let (dir, start) = (shipper.options.dir.clone(), shipper.options.claim.start);
        let end = write(&server, 10).await;
        shipper.archived(end).await;
        server.stop().await;
        let _ = shipper.ended().await.unwrap();
        // A virtual machine is brought back from a snapshot: the same member, the same epoch, the same timeline.
        let copy = Server::start(pg).await;
        copy.stop().await;
        std::fs::remove_dir_all(&copy.data).unwrap();
        let done = std::process::Command::new("cp").arg("-a").arg(&server.data).arg(&copy.data).status().unwrap();
        assert!(done.success());
        server.start_again().await;
        copy.start_again().await;

        let (mut a, mut b) = (bench.ship(&server, 1).await, bench.ship(&copy, 1).await);
        write(&server, 11).await;
        write(&copy, 12).await;
        // One of them finds the other's WAL under its own names.
        let race = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            loop {
                tokio::select! {
                    gone = a.progress.changed() => if gone.is_err() { return "a" },
                    gone = b.progress.changed() => if gone.is_err() { return "b" },
                }
            }
        });
        let loser = race.await.expect("nobody was fenced");
        let (mut winner, loser, data) = if loser == "a" { (b, a, &copy) } else { (a, b, &server) };
        let error = loser.ended().await.unwrap_err();
        assert!(matches!(error, Error::Archive(layout::Error::Fenced { .. })), "{error}");
        assert!(error.to_string().contains("other WAL"), "{error}");
        let end = write(data, 20_000).await;
        winner.archived(end).await;
        bench.compare(&dir, start, end, &data.data);
    });
}

#[test]
fn a_new_timeline_is_archived_beside_what_the_old_leader_goes_on_writing() {
    each("a_new_timeline_is_archived_beside_what_the_old_leader_goes_on_writing", async |pg| {
        let old = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&old, 1).await;
        let old_dir = shipper.options.dir.clone();
        write(&old, 100).await;
        let restored = Restored::copy(pg, old.port);
        let new = forked(&old).await;
        write(&old, 50_000).await;
        let both = flushed(&old).await;
        new.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{both}'")).await;
        let rows = new.value(ALL_ROWS).await;
        new.value("SELECT pg_promote()").await;
        // The old leader does not know, and writes and ships on.
        let stray = write(&old, 30_000).await;
        let mut follower = bench.ship(&new, 2).await;
        let (dir, start) = (follower.options.dir.clone(), follower.options.claim.start);
        assert_eq!((dir.timeline(), old_dir.timeline()), (TimelineId(2), TimelineId(1)));
        write(&new, 40_000).await;
        let end = write(&new, 1).await;
        shipper.archived(stray).await;
        follower.archived(end).await;
        bench.compare(&dir, start, end, &new.data);
        let after = new.value(ALL_ROWS).await;
        assert_ne!(rows, after);
        drop((shipper, follower, old, new));

        let archive = bench.s3.bucket_dir().join("ns/orders").join(dir.system.to_string());
        let wal = restored.dir().join("wal");
        run("unpack", &[&archive, &wal]);
        restored.recover(&[
            format!("restore_command = 'cp {}/%f %p'", wal.display()),
            "recovery_target_timeline = '2'".to_owned(),
        ]);
        assert_eq!(restored.value(ALL_ROWS).await, after);
    });
}

#[test]
fn the_end_of_a_timeline_is_the_end_of_its_shipping() {
    each("the_end_of_a_timeline_is_the_end_of_its_shipping", async |pg| {
        let old = Server::start(pg).await;
        let new = forked(&old).await;
        let bench = Bench::new().await;
        // From the follower, which becomes a leader under way.
        let mut shipper = bench.ship(&new, 1).await;
        let (dir, start) = (shipper.options.dir.clone(), shipper.options.claim.start);
        let end = write(&old, 10).await;
        shipper.archived(end).await;
        new.value("SELECT pg_promote()").await;
        let End::EndOfTimeline { at, next } = shipper.ended().await.unwrap() else { panic!("no server stopped") };
        assert_eq!(next, TimelineId(2));
        bench.compare(&dir, start, at, &old.data);
    });
}

#[test]
fn what_the_old_leader_had_not_shipped_is_shipped_by_the_new_one() {
    each("what_the_old_leader_had_not_shipped_is_shipped_by_the_new_one", async |pg| {
        let old = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&old, 1).await;
        let new = forked(&old).await;
        // The archive is further than where the follower's WAL begins.
        let end = write(&old, 10).await;
        shipper.archived(end).await;
        let (claim, old_dir) = (shipper.options.claim.clone(), shipper.options.dir.clone());
        drop(shipper);
        // Two segments and a bit, which only the servers have.
        let end = write(&old, 100_000).await;
        new.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")).await;
        old.stop().await;
        new.value("SELECT pg_promote()").await;

        let found = read_claim(&bench.store, &old_dir).await.unwrap().unwrap();
        assert_eq!(found, claim);
        let shipper = Shipper::start(bench.store.clone(), new.local(), Options::new(old_dir.clone(), found));
        let End::EndOfTimeline { at, next } = shipper.ended().await.unwrap() else { panic!("no server stopped") };
        assert!(at > end && next == TimelineId(2), "{at} {end} {next}");
        bench.compare(&old_dir, claim.start, at, &old.data);
        // Pieces of segments that are there whole are gone.
        let keys = bench.s3.keys();
        for piece in keys.iter().filter_map(|k| Piece::parse(k)) {
            let name = SegmentName::holding(old_dir.timeline(), piece.start, SEGMENT);
            let whole = old_dir.segment(name);
            assert!(!keys.iter().any(|k| k.ends_with(&whole)), "{piece:?} beside {whole}");
        }
        // Its own epoch goes on from there.
        let mut follower = bench.ship(&new, 2).await;
        assert_eq!(follower.options.claim.parent, Some((old_dir.epoch, at)));
        let end = write(&new, 1).await;
        follower.archived(end).await;
    });
}
