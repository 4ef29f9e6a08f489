//! How long a copy takes, beside pg_basebackup. It prints and judges nothing: an unoptimised build or a busy machine
//! would decide.

use crate::{
    backup::restore,
    server::{Server, each, give, say},
};
use pgconvoy_wire::RestoreOptions;
use std::time::Instant;

#[test]
fn a_large_copy_beside_pg_basebackup() {
    each("a_large_copy_beside_pg_basebackup", async |pg| {
        let server = Server::start(pg).await;
        let (socket, port) = (server.dir().to_str().unwrap().to_owned(), server.port.to_string());
        let scale = std::env::var("PGCONVOY_TEST_SCALE").unwrap_or_else(|_| "10".into());
        pg.run("pgbench", &["-i", "-q", "-s", &scale, "-h", "127.0.0.1", "-p", &port, "-U", "plain", "postgres"]);
        let (mut ours, mut theirs, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            give(dir.path());
            let data = dir.path().join("theirs");
            let before = Instant::now();
            let args =
                ["-h", "127.0.0.1", "-p", &port, "-U", "plain", "--checkpoint=fast", "-D", data.to_str().unwrap()];
            pg.run("pg_basebackup", &args);
            theirs.push(before.elapsed());
            let data = dir.path().join("ours");
            let before = Instant::now();
            bytes = restore(&server.plain(), &data, &RestoreOptions::default()).await.bytes;
            ours.push(before.elapsed());
            give(dir.path());
            pg.run("pg_verifybackup", &[data.to_str().unwrap()]);
        }
        ours.sort();
        theirs.sort();
        let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
        say(&format!(
            "SPEED PostgreSQL {}: {} MB, pg_basebackup {:.2?}, pgconvoy-wire ({build} build) {:.2?}, ratio {:.2} \
             (medians of 3; above 1 is faster than pg_basebackup) [{socket}]",
            pg.version,
            bytes >> 20,
            theirs[1],
            ours[1],
            theirs[1].as_secs_f64() / ours[1].as_secs_f64()
        ));
    });
}
