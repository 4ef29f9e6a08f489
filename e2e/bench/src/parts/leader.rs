//! What archiving costs the server's clients: pgbench at full speed, without and with.

use super::bed::{Bed, SEGMENT, ship_args};
use crate::{
    figure::{Printer, median},
    process::run as run_program,
    server::Server,
};
use anyhow::{Context, Result};
use pgconvoy_terms::Lsn;
use std::fs;

const SECONDS: &str = "15";

pub(super) async fn run(bed: &Bed, printer: Printer) -> Result<()> {
    let server = Server::start(&bed.programs, bed.path("leader"), SEGMENT, &[]).await?;
    let pgbackrest = bed.pgbackrest(&server, "pgbackrest-leader")?;
    pgbench(&server, &["-i", "-q", "-s", "20"])?;
    pgbench(&server, &["-c", "4", "-j", "2", "-T", "5"])?;
    let (mut off, mut on, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..bed.runs {
        for turn in 0..3 {
            match (n + turn) % 3 {
                0 => off.push(tps(&server)?),
                1 => on.push(shipping(bed, &server, n).await?),
                _ => {
                    let Some(pgbackrest) = &pgbackrest else { continue };
                    // What nobody has archived so far is none of its work.
                    server.archive_command("/bin/true").await?;
                    server.value("SELECT pg_switch_wal()").await?;
                    let done = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
                    while server.value(done).await? != "0" {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                    let prefix = format!("leader-pgbackrest-{n}");
                    pgbackrest.create(&prefix)?;
                    let command = pgbackrest.args(&prefix, &["archive-push", "%p"]).join(" ");
                    server.archive_command(&command).await?;
                    peer.push(tps(&server)?);
                    server.archive_command("").await?;
                    bed.gateway.remove(&prefix);
                }
            }
        }
    }
    let ratios = |values: &[f64]| -> Vec<f64> { values.iter().zip(&off).map(|(v, off)| v / off).collect() };
    let some = |values: Vec<f64>| (!values.is_empty()).then(|| median(&values));
    printer.print("leader_throughput.tps", &on, &[("off", some(off.clone())), ("pgbackrest", some(peer.clone()))]);
    printer.print("leader_throughput_ratio", &ratios(&on), &[("pgbackrest", some(ratios(&peer)))]);
    Ok(())
}

fn pgbench(server: &Server, args: &[&str]) -> Result<String> {
    let mut command = server.programs.command("pgbench")?;
    command.args(["-U", "postgres", "-h"]).arg(&server.dir).args(["-p", &server.port.to_string()]);
    run_program(command.args(args).arg("postgres"))
}

fn tps(server: &Server) -> Result<f64> {
    let said = pgbench(server, &["-n", "-c", "4", "-j", "2", "-T", SECONDS])?;
    let line = said.lines().find_map(|l| l.strip_prefix("tps = ")).with_context(|| said.clone())?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}

async fn shipping(bed: &Bed, server: &Server, n: usize) -> Result<f64> {
    let begin = server.lsn("SELECT pg_current_wal_flush_lsn()").await?;
    let (prefix, stop) = (format!("leader-ours-{n}"), bed.path("stop"));
    let _ = fs::remove_file(&stop);
    let mut args = ship_args(server, &prefix, Lsn(begin.0 - begin.0 % SEGMENT), SEGMENT);
    args.extend(["--stop".into(), stop.display().to_string()]);
    let measuring = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let tps = tokio::task::block_in_place(|| tps(server));
        fs::write(&stop, "")?;
        tps
    };
    let (_, tps) = tokio::try_join!(bed.ours(&args), measuring)?;
    bed.gateway.remove(&prefix);
    Ok(tps)
}
