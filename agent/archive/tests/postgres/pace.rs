//! A snapshot reads no faster than it may, and gives way.

use crate::{
    bench::Bench,
    server::{Server, each},
};
use pgconvoy_archive::snapshot::{Manifest, Options, Pace, take};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn bytes(manifest: &Manifest) -> f64 {
    manifest.parts.iter().map(|part| part.unpacked).sum::<u64>() as f64
}

#[test]
fn a_snapshot_reads_no_faster_than_it_may_and_gives_way() {
    each("a_snapshot_reads_no_faster_than_it_may_and_gives_way", async |pg| {
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let dir = bench.dir(&server).await;
        let take_at = async |name: &str, pace: Arc<Pace>| {
            let options = Options { part_size: 6 << 20, parallel: 3, time: "2026-01-01T00:00:00Z".into(), pace };
            let (store, local) = (Arc::new(bench.store.clone()), server.local());
            let begun = Instant::now();
            let id = name.parse().unwrap();
            let taken = take(store, &dir, &id, &server.data, &local, &options).await.unwrap();
            (taken, begun.elapsed())
        };
        const MIB: f64 = (1 << 20) as f64;
        let (taken, lasted) = take_at("slow", Arc::new(Pace::new(Some(16 << 20)))).await;
        assert!(bytes(&taken) > 16.0 * MIB, "{} bytes are read too soon to tell", bytes(&taken));
        // But for the burst that it may begin with.
        let least = bytes(&taken) / (16.0 * MIB) - 0.3;
        assert!(lasted.as_secs_f64() >= least, "{lasted:?} for {} bytes", bytes(&taken));

        // As fast as it goes, but for the first two seconds, in which 8 MiB are read and not all of it.
        let pace = Arc::new(Pace::new(None));
        pace.press(true);
        let relief = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            pace.press(false);
        };
        let ((_, lasted), ()) = tokio::join!(take_at("pressed", pace.clone()), relief);
        assert!(lasted >= Duration::from_secs(2), "{lasted:?}");
    });
}
