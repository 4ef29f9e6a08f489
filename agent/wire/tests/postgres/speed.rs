//! How long a copy takes, beside pg_basebackup. It prints and judges nothing: an unoptimised build or a busy machine
//! would decide.

use crate::{
    backup::restore,
    server::{NAME, Server, each, give, say},
};
use pgconvoy_wire::{Config, RestoreOptions};
use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

#[test]
fn a_large_copy_beside_pg_basebackup() {
    each("a_large_copy_beside_pg_basebackup", async |pg| {
        let server = Server::start(pg).await;
        let port = server.port.to_string();
        let scale = std::env::var("PGCONVOY_TEST_SCALE").unwrap_or_else(|_| "10".into());
        pg.run("pgbench", &["-i", "-q", "-s", &scale, "-h", "127.0.0.1", "-p", &port, "-U", "plain", "postgres"]);
        let address = format!("host={NAME} hostaddr=127.0.0.1 port={port}");
        compare(&server, "TCP", &server.plain(), &format!("{address} user=plain sslmode=disable")).await;
        if pg.has_tls() {
            let (certificate, key) = server.certificates.issue("replicator");
            let write = |name: &str, content: &str| {
                let path = server.dir().join(name);
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                give(&path);
                path.display().to_string()
            };
            let (certificate, key) = (write("client.crt", &certificate), write("client.key", &key));
            let ca = server.dir().join("ca.crt");
            let theirs = format!(
                "{address} user=replicator sslmode=verify-full sslrootcert={} sslcert={certificate} sslkey={key}",
                ca.display()
            );
            compare(&server, "TLS", &server.secure(), &theirs).await;
        }
    });
}

async fn compare(server: &Server, way: &str, config: &Config, conninfo: &str) {
    let pg = server.installation;
    let (mut ours, mut theirs, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        give(dir.path());
        let data = dir.path().join("theirs");
        let before = Instant::now();
        pg.run("pg_basebackup", &["-d", conninfo, "--checkpoint=fast", "-D", data.to_str().unwrap()]);
        theirs.push(before.elapsed());
        let data = dir.path().join("ours");
        let before = Instant::now();
        bytes = restore(config, &data, &RestoreOptions::default()).await.bytes;
        ours.push(before.elapsed());
        give(dir.path());
        pg.verify(&data);
    }
    ours.sort();
    theirs.sort();
    let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
    say(&format!(
        "SPEED PostgreSQL {} over {way}: {} MB, pg_basebackup {:.2?}, pgconvoy-wire ({build} build) {:.2?}, \
         ratio {:.2} (medians of 3; above 1 is faster than pg_basebackup)",
        pg.version,
        bytes >> 20,
        theirs[1],
        ours[1],
        theirs[1].as_secs_f64() / ours[1].as_secs_f64()
    ));
}
