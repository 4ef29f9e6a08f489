//! A store that is away for so long that WAL fills the volume: what is told, and that the volume never is full.

use crate::{
    archive::{Archive, ROWS, come, follow, lead},
    archiving::{SOON, archiving, system},
    member::{Member, Set, SmallVolume, say},
};
use nix::sys::statvfs::statvfs;
use pgconvoy_agent::settings::PostgresSettings;
use pgconvoy_archive::{
    layout::gaps,
    retain::{Inventory, verify},
};
use std::time::{Duration, Instant};

fn free(member: &Member) -> u64 {
    let volume = statvfs(&member.config.identity.paths.volume).unwrap();
    (volume.blocks_available() * volume.fragment_size()) >> 20
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_fills_while_the_store_is_away_costs_a_gap_and_no_write_and_a_snapshot_begins_anew() {
    let Some(set) = Set::new() else { return };
    if !nix::unistd::Uid::effective().is_root() {
        return say("SKIPPED a volume that fills while the store is away: only root can make a small one");
    }
    const VOLUME: u32 = 300;
    let archive = Archive::new().await;
    let small = |s: &mut PostgresSettings| {
        for (name, value) in [("wal_keep_size", "0"), ("min_wal_size", "32MB"), ("max_wal_size", "64MB")] {
            s.parameters.insert(name.into(), value.into());
        }
    };
    let mut one = archive.member_on(&set, 1, |at| Some(SmallVolume::mount(at, VOLUME)), small).await;
    let incarnation = one.incarnation.clone();
    one.reach(pgconvoy_ha::WantKind::Found { incarnation }).await;
    lead(&mut one, 1, &[]).await;
    let mut archiving = archiving(&one).await;
    archiving.says("Archiving").await;
    one.value("CREATE TABLE t AS SELECT x, md5(x::text) AS y FROM generate_series(1, 1000) x").await;

    // From now on it refuses everything; more is written than the volume could hold.
    archive.s3.faults().set_requests_per_second(Some(0));
    let (mut written, mut least) = (0, u64::MAX);
    let begun = Instant::now();
    while written < VOLUME * 5 / 4 || archiving.event("ArchiveGivenUp").is_none() {
        assert!(begun.elapsed() < SOON, "{written} MiB, {} free: {:?}", free(&one), archiving.said.lock().unwrap());
        // Log and next to no data.
        one.value(
            "SELECT pg_logical_emit_message(false, '', repeat(md5(n::text), 32768)) FROM generate_series(1, 4) n",
        )
        .await;
        one.value(&format!("INSERT INTO t VALUES (-{written}, 'while it was away')")).await;
        written += 4;
        least = least.min(free(&one));
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    say(&format!("archiving: {written} MiB in {:.1} s, {least} MiB were free at least", begun.elapsed().as_secs_f64()));
    assert!(least > 16, "{least} MiB were free");
    archiving.says("StoreBusy").await;
    let all = archiving.said.lock().unwrap().clone();
    let by = |reason: &str, words: &str| all.iter().find(|(r, m)| r == reason && m.contains(words)).map(|(_, m)| m);
    let waits = by("StoreBusy", "of WAL wait for the archive").unwrap();
    assert!(waits.contains("SlowDown") && waits.contains("at the present pace in about"), "{waits}");
    let given_up = by("StoreBusy", "was given up, because only").unwrap();
    assert!(given_up.contains("A new snapshot is taken once"), "{given_up}");
    // A status costs everybody who watches: it changes when something happened, not with each object that fails.
    assert!(all.len() < 12, "{all:?}");
    assert!(archiving.event("ArchiveBacklog").unwrap().contains("bring the store back, or enlarge the volume"));

    // It is back: what is missing is told and noted, and a snapshot begins behind it.
    archive.s3.faults().set_requests_per_second(None);
    let gone = archiving.says("ArchiveGap").await;
    assert!(gone.contains("was not archived and is gone"), "{gone}");
    archiving.says("Archiving").await;
    assert!(archiving.event("ArchiveBeganAnew").unwrap().contains("can be restored again"));
    let system = system(&one).await;
    let noted = gaps(&archive.store, system).await.unwrap();
    assert!(
        !noted.is_empty() && noted.iter().all(|g| g.dir.epoch == crate::member::epoch(1) && g.from < g.to),
        "{noted:?}"
    );
    one.value("INSERT INTO t VALUES (0, 'last')").await;
    let end: pgconvoy_terms::Lsn = one.value("SELECT pg_current_wal_flush_lsn()").await.parse().unwrap();
    let begun = Instant::now();
    loop {
        let inventory = Inventory::look(&archive.store, system).await.unwrap();
        let [only] = inventory.good.as_slice() else { panic!("{:?}", inventory.good) };
        assert!(only.id.to_string().starts_with("after-gap-") && only.start >= noted.last().unwrap().to, "{only:?}");
        let found = verify(&archive.store, &inventory, only, true).await.unwrap();
        assert_eq!(found.wrong, [""; 0]);
        if found.reach.unwrap().end >= end {
            break;
        }
        assert!(begun.elapsed() < SOON, "up to {end}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // An agent that starts anew finds the gap and the snapshot, and has nothing to complain of.
    drop(archiving);
    let mut archiving = self::archiving(&one).await;
    archiving.says("Archiving").await;
    let mut three = archive.member(&set, 3).await;
    let ways = come(&mut three, &one, 1, false).await;
    assert!(ways.len() == 1 && ways[0].starts_with("restoring snapshot after-gap-"), "{ways:?}");
    follow(&mut three, &one, 1).await;
    let wanted = one.value(ROWS).await;
    three.wait_value(ROWS, &wanted).await;
    assert_eq!(archiving.said.lock().unwrap().iter().filter(|(r, _)| r != "Archiving").count(), 0);
}
