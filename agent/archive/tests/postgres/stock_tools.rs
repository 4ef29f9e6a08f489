//! The promise of docs/archive-format.md: a shell, zstd and PostgreSQL are enough. The script is the page's own.

use crate::{
    bench::{ALL_ROWS, Bench, write},
    restored::Restored,
    server::{Server, each, say},
};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

/// The script of the page.
pub(crate) fn script() -> String {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/archive-format.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("<!-- test: unpack -->\n```bash\n").expect("the page has its script");
    rest.split_once("\n```").unwrap().0.to_owned() + "\n"
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
        write(&server, 100).await;
        let restored = Restored::copy(pg, server.port);
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

        let unpack = restored.dir().join("unpack");
        fs::write(&unpack, script()).unwrap();
        fs::set_permissions(&unpack, fs::Permissions::from_mode(0o755)).unwrap();
        let archive = bench.s3.bucket_dir().join("ns/orders").join(dir.system.to_string());
        let wal = restored.dir().join("wal");
        let done = Command::new(&unpack).arg(archive).arg(&wal).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        restored.recover(&[
            format!("restore_command = 'cp {}/%f %p'", wal.display()),
            "recovery_target_timeline = '1'".to_owned(),
        ]);
        assert_eq!(restored.value(ALL_ROWS).await, rows);
    });
}
