//! The promise of docs/archive-format.md: a shell, zstd and PostgreSQL are enough. The script is the page's own.

use crate::{
    bench::{ALL_ROWS, Bench, write},
    restored::Restored,
    server::{Server, each, give, say},
};
use pgconvoy_archive::snapshot::{Options, take};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// A script of the page.
fn script(name: &str) -> String {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/archive-format.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("<!-- test: {name} -->\n```bash\n")).expect("the page has its script");
    rest.split_once("\n```").unwrap().0.to_owned() + "\n"
}

/// Runs a script of the page; it must succeed.
pub(crate) fn run(name: &str, args: &[&Path]) {
    let done = Command::new("bash").arg("-c").arg(script(name)).arg(name).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn every_row_is_restored_with_stock_tools() {
    each("every_row_is_restored_with_stock_tools", async |pg| {
        if Command::new("zstd").arg("--version").output().is_err() {
            return say("SKIPPED every_row_is_restored_with_stock_tools: there is no zstd program");
        }
        let server = Server::start(pg).await;
        let bench = Bench::new().await;
        let mut shipper = bench.ship(&server, 1).await;
        let dir = shipper.options.dir.clone();
        let start = shipper.options.claim.start;
        write(&server, 30_000).await;
        let options = Options { part_size: 6 << 20, parallel: 2, time: "t".into(), pace: Arc::default() };
        let id = "before".parse().unwrap();
        let store = Arc::new(bench.store.clone());
        take(store, &dir, &id, &server.data, &server.local(), &options).await.unwrap();
        // More than two segments, and then what only pieces hold.
        write(&server, 100_000).await;
        let mut last = write(&server, 3).await;
        shipper.archived(last).await;
        for _ in 0..3 {
            last = write(&server, 1).await;
            shipper.archived(last).await;
        }
        let rows = server.value(ALL_ROWS).await;
        bench.compare(&dir, start, last, &server.data);
        // The cluster is lost: server, agent, volumes.
        drop((shipper, server));

        let home = tempfile::Builder::new().prefix("pgs-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (data, wal) = (home.path().join("data"), home.path().join("wal"));
        fs::create_dir(&data).unwrap();
        let archive = bench.s3.bucket_dir().join("ns/orders").join(dir.system.to_string());
        run("data", &[&archive, "before".as_ref(), &data]);
        run("unpack", &[&archive, &wal]);
        give(home.path());
        let said = pg.run("pg_verifybackup", &["-n", data.to_str().unwrap()]);
        assert!(said.contains("successfully verified"), "{said}");
        let restored = Restored::of(pg, home);
        restored.recover(&[
            format!("restore_command = 'cp {}/%f %p'", wal.display()),
            "recovery_target_timeline = '1'".to_owned(),
        ]);
        assert_eq!(restored.value(ALL_ROWS).await, rows);
    });
}
