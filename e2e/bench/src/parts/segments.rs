//! Memory with segments of 1 GiB, which are never held whole.

use super::bed::{Bed, ship_args};
use crate::{figure::Printer, server::Server};
use anyhow::Result;
use pgconvoy_terms::Lsn;
use std::fs;

const SEGMENT: u64 = 1 << 30;

pub(super) async fn run(bed: &Bed, printer: Printer) -> Result<()> {
    let dir = bed.path("segments");
    let settings = ["fsync=off", "autovacuum=off", "min_wal_size=2GB"];
    let server = Server::start(&bed.programs, dir.clone(), SEGMENT, &settings).await?;
    let begin = server.lsn("SELECT pg_current_wal_flush_lsn()").await?;
    let from = Lsn(begin.0 - begin.0 % SEGMENT);
    // While it is written, and once more as a backlog.
    let stop = bed.path("stop");
    let _ = fs::remove_file(&stop);
    let mut args = ship_args(&server, "segments-1", from, SEGMENT);
    args.extend(["--stop".into(), stop.display().to_string()]);
    let writing = async {
        server.fill(1200).await?;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        fs::write(&stop, "")?;
        Ok(())
    };
    let (steady, ()) = tokio::try_join!(bed.ours(&args), writing)?;
    bed.gateway.remove("segments-1");
    let end = server.lsn("SELECT pg_current_wal_flush_lsn()").await?;
    let mut args = ship_args(&server, "segments-2", from, SEGMENT);
    args.extend(["--until".into(), end.to_string()]);
    let backlog = bed.ours(&args).await?;
    bed.gateway.remove("segments-2");
    drop(server);
    let _ = fs::remove_dir_all(dir);
    printer.print("agent_rss_mib.segments_of_1_gib", &[steady.rss], &[]);
    printer.print("agent_rss_mib.segments_of_1_gib_backlog", &[backlog.rss], &[]);
    printer.print("wal_push.mib_per_s.segments_of_1_gib", &[backlog.mib_per_second()], &[]);
    Ok(())
}
