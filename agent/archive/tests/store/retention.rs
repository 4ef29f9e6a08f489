//! Removing from a real store: what goes, what stays, and that what stays is no gap to whoever goes on.

use crate::embedded::{config, server};
use bytes::Bytes;
use pgconvoy_archive::{
    layout::{Claim, Claimed, EpochDir, Gap, Header, Piece, claim, gaps},
    retain::{self, Inventory, Policy, Swept},
    ship::survey,
    store::{S3, Store},
};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, Lsn, MemberId, MemberName, SegmentName, SystemId};

const SEGMENT: u64 = 1 << 20;
const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

fn dir(number: u32) -> EpochDir {
    EpochDir { system: SYSTEM, epoch: Epoch { number, id: ChangeId::from_random(number.into()) } }
}

async fn put(store: &S3, key: &str, bytes: impl Into<Bytes>) {
    let _ = store.put_new(key, bytes.into()).await.unwrap();
}

/// An object of WAL; retention looks at names only, the survey at headers.
fn wal(start: u64, end: u64) -> Bytes {
    let zeros = vec![0; usize::try_from(end - start).unwrap()];
    let header = Header { start: Lsn(start), end: Lsn(end), crc32c: pgconvoy_archive::crc32c(&zeros) };
    let mut object = header.to_bytes().to_vec();
    object.extend(zstd::encode_all(&zeros[..], 1).unwrap());
    object.into()
}

async fn epoch(store: &S3, number: u32, parent: Option<(u32, u64)>, segments: std::ops::Range<u64>) -> Claim {
    let claimed = Claim {
        member: MemberId { name: MemberName::new("orders", 1), incarnation: Incarnation::from_random(1) },
        parent: parent.map(|(n, at)| (dir(n).epoch, Lsn(at))),
        start: Lsn(segments.start * SEGMENT),
        segment_size: SEGMENT,
        time: "2026-01-01T00:00:00Z".into(),
    };
    assert_eq!(claim(store, &dir(number), &claimed).await.unwrap(), Claimed::Now);
    for n in segments {
        let name = SegmentName::holding(dir(number).timeline(), Lsn(n * SEGMENT), SEGMENT);
        put(store, &dir(number).segment(name), wal(n * SEGMENT, (n + 1) * SEGMENT)).await;
    }
    claimed
}

async fn snapshot(store: &S3, id: &str, number: u32, start: u64, time: &str) {
    let folder = format!("{SYSTEM}/snapshots/{id}/");
    put(store, &format!("{folder}part/00000000.tar.zst"), Bytes::from_static(b"part")).await;
    put(store, &format!("{folder}backup_manifest.zst"), Bytes::from_static(b"m")).await;
    let part = format!(r#"{{"number":0,"size":4,"crc32c":{},"unpacked":9}}"#, pgconvoy_archive::crc32c(b"part"));
    let manifest = format!(
        r#"{{"format":1,"epoch":"{}","start":"{}","stop":"{}","postgresql":"17.6","parts":[{part}],"time":"{time}"}}"#,
        dir(number).epoch,
        Lsn(start),
        Lsn(start + 100)
    );
    put(store, &format!("{folder}manifest.json"), manifest).await;
}

async fn swept(store: &S3, snapshots: u32, limit: u64, dry: bool) -> Swept {
    let inventory = Inventory::look(store, SYSTEM).await.unwrap();
    let now = retain::clock(store, 1).await.unwrap().unwrap();
    let plan = retain::plan(&inventory, Policy { days: None, snapshots: Some(snapshots) }, (now, now));
    retain::sweep(store, &inventory, &plan, limit, dry).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_goes_and_what_stays_is_no_gap() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    epoch(&store, 1, None, 1..4).await;
    let second = epoch(&store, 2, Some((1, 3 * SEGMENT + 500)), 3..9).await;
    for (number, start, end) in [(1, 5 * SEGMENT, 5 * SEGMENT + 90), (2, 9 * SEGMENT, 9 * SEGMENT + 50)] {
        put(&store, &dir(2).piece(Piece { number, start: Lsn(start) }), wal(start, end)).await;
    }
    snapshot(&store, "a", 1, SEGMENT + 40, "2026-01-01T00:00:00Z").await;
    snapshot(&store, "b", 2, 4 * SEGMENT + 40, "2026-01-02T00:00:00Z").await;
    snapshot(&store, "c", 2, 7 * SEGMENT + 40, "2026-01-03T00:00:00Z").await;
    let gap = |number, from, to| Gap { dir: dir(number), from: Lsn(from * SEGMENT), to: Lsn(to * SEGMENT) };
    for gap in [gap(1, 1, 2), gap(2, 4, 5), gap(2, 10, 11)] {
        gap.note(&store, "given up", "2026-01-01T00:00:00Z").await.unwrap();
    }
    let before = server.keys();

    let dry = swept(&store, 1, 1000, true).await;
    assert_eq!(server.keys(), before, "it was only looked");
    assert_eq!(dry.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
    // Three segments of epoch 1, four of epoch 2 and a piece.
    assert_eq!((dry.wal, dry.more), (8, false));

    // A few at a time, as if it were interrupted again and again: what is there can always be restored.
    loop {
        let round = swept(&store, 1, 2, false).await;
        let inventory = Inventory::look(&store, SYSTEM).await.unwrap();
        let newest = inventory.good.iter().find(|g| g.id.to_string() == "c").unwrap();
        for good in &inventory.good {
            let found = retain::verify(&store, &inventory, good, true).await.unwrap();
            assert_eq!(found.wrong, [""; 0], "{}", good.id);
        }
        assert_eq!(retain::reach(&store, &inventory, newest).await.unwrap().unwrap().end, Lsn(9 * SEGMENT + 50));
        if !round.more {
            break;
        }
    }
    let left = server.keys();
    assert!(left.iter().all(|k| !k.contains("snapshots/a/") && !k.contains("/00000001-")), "{left:?}");
    let kept = |n: u64| {
        let name = SegmentName::holding(dir(2).timeline(), Lsn(n * SEGMENT), SEGMENT);
        left.contains(&format!("ns/orders/{}", dir(2).segment(name)))
    };
    assert_eq!((3..9).filter(|n| kept(*n)).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(swept(&store, 1, 1000, false).await, Swept::default(), "there is nothing more");
    let missing = gaps(&store, SYSTEM).await.unwrap();
    assert_eq!(missing, [gap(2, 10, 11)], "nothing is left that would come to the others");
    store.delete(&[missing[0].key()]).await.unwrap();

    // The next leader looks at all of this epoch, and must not take for missing what was removed.
    let standing = survey(&store, &dir(2), &second, Lsn(0)).await.unwrap();
    assert_eq!((standing.archived, standing.next_piece), (Lsn(9 * SEGMENT + 50), 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_what_is_noted_as_missing_archiving_goes_on_and_restoring_does_not() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    let first = epoch(&store, 1, None, 1..3).await;
    epoch(&store, 2, Some((1, 3 * SEGMENT)), 3..4).await;
    snapshot(&store, "a", 1, SEGMENT + 40, "2026-01-01T00:00:00Z").await;
    for n in [6, 7] {
        let name = SegmentName::holding(dir(1).timeline(), Lsn(n * SEGMENT), SEGMENT);
        put(&store, &dir(1).segment(name), wal(n * SEGMENT, (n + 1) * SEGMENT)).await;
    }
    let stands = || async { survey(&store, &dir(1), &first, Lsn(0)).await.unwrap().archived };
    assert_eq!(stands().await, Lsn(3 * SEGMENT), "nobody knows that it is gone");
    let gap = Gap { dir: dir(1), from: Lsn(3 * SEGMENT), to: Lsn(6 * SEGMENT) };
    gap.note(&store, "the store was away", "2026-01-01T00:00:00Z").await.unwrap();
    // Again, by another agent at another time; and one of another epoch is none of this one.
    gap.note(&store, "the same", "2026-01-02T00:00:00Z").await.unwrap();
    Gap { dir: dir(2), ..gap.clone() }.note(&store, "", "").await.unwrap();
    assert_eq!(stands().await, Lsn(8 * SEGMENT));
    assert_eq!(gaps(&store, SYSTEM).await.unwrap()[0], gap);
    let text = std::fs::read_to_string(server.bucket_dir().join("ns/orders").join(gap.key())).unwrap();
    assert!(text.contains("the store was away") && text.contains("0/300000"), "{text}");
    let inventory = Inventory::look(&store, SYSTEM).await.unwrap();
    let reach = retain::reach(&store, &inventory, &inventory.good[0]).await.unwrap().unwrap();
    assert_eq!(reach.end, Lsn(4 * SEGMENT), "the next epoch went on from before the gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_or_damaged_is_found() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    epoch(&store, 1, None, 1..6).await;
    snapshot(&store, "a", 1, SEGMENT + 40, "2026-01-01T00:00:00Z").await;
    snapshot(&store, "b", 1, 4 * SEGMENT + 40, "2026-01-02T00:00:00Z").await;
    let key = |n: u64| dir(1).segment(SegmentName::holding(dir(1).timeline(), Lsn(n * SEGMENT), SEGMENT));
    store.delete(&[key(3)]).await.unwrap();
    let part = format!("{SYSTEM}/snapshots/b/part/00000000.tar.zst");
    store.delete(std::slice::from_ref(&part)).await.unwrap();
    put(&store, &part, Bytes::from_static(b"paRt")).await;
    let inventory = Inventory::look(&store, SYSTEM).await.unwrap();
    let wrong = |n: usize, deep| {
        let (store, inventory) = (&store, &inventory);
        async move { retain::verify(store, inventory, &inventory.good[n], deep).await.unwrap().wrong }
    };
    assert_eq!(wrong(0, false).await, ["behind 0/300000 WAL is missing: nothing later can be reached from it"]);
    assert_eq!(wrong(1, false).await, [""; 0], "its size is right");
    assert_eq!(wrong(1, true).await, [format!("the checksum of {part} differs")]);
}
