//! WAL through `restore_command`.

use super::{
    bed::{Bed, arguments, text},
    push,
};
use crate::{
    figure::{Printer, median},
    peers::{Barman, PgBackRest},
    process::{Cost, run as run_program},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use tokio::time::sleep;

const PREFIXES: [&str; 4] = ["", "replay-ours", "replay-pgbackrest", "replay-barman"];

#[derive(Default)]
struct Seen([Vec<f64>; 4], Vec<Cost>);

pub(super) async fn run(bed: &mut Bed, printer: Printer) -> Result<()> {
    bed.filled().await?;
    let bed = &*bed;
    let filled = bed.known().context("no server")?;
    bed.ours(&filled.ship(PREFIXES[1])).await?;
    push::pgbackrest(bed, PREFIXES[2]).await?;
    let by_barman = match &filled.barman {
        Some(barman) => may_be_run(barman)?,
        None => false,
    };
    if by_barman {
        push::barman(bed, PREFIXES[3], usize::MAX).await?;
    }
    let mut seen = Seen::default();
    for n in 0..bed.runs {
        for turn in 0..4 {
            let who = (n + turn) % 4;
            if who < 3 || by_barman {
                one(bed, &mut seen, who).await?;
            }
        }
    }
    for prefix in &PREFIXES[1..] {
        bed.gateway.remove(prefix);
    }
    let Seen([cp, ours, pgbackrest, barman], costs) = seen;
    let some = |values: &[f64]| (!values.is_empty()).then(|| median(values));
    let others = [("cp", some(&cp)), ("pgbackrest", some(&pgbackrest)), ("barman", some(&barman))];
    printer.print("replay.s", &ours, &others);
    let ratios = |values: &[f64]| -> Vec<f64> { values.iter().zip(&cp).map(|(v, cp)| v / cp).collect() };
    let others = [("pgbackrest", some(&ratios(&pgbackrest))), ("barman", some(&ratios(&barman)))];
    printer.print("replay.ratio_to_cp", &ratios(&ours), &others);
    printer.print("replay.rss_mib", &costs.iter().map(|c| c.rss).collect::<Vec<_>>(), &[]);
    Ok(())
}

/// PostgreSQL's user starts it, who may not look into root's directories.
fn may_be_run(barman: &Barman) -> Result<bool> {
    let args = barman.args("barman-cloud-wal-restore", PREFIXES[3], &["--help"]);
    let program = args.first().context("no program")?;
    let mut command = crate::server::as_postgres(Command::new(program))?;
    let runs = run_program(command.arg("--help").current_dir("/"));
    if let Err(e) = &runs {
        eprintln!("without barman-cloud in replay: {e:#}");
    }
    Ok(runs.is_ok())
}

async fn one(bed: &Bed, seen: &mut Seen, who: usize) -> Result<()> {
    let filled = bed.known().context("no server")?;
    let dir = bed.path("replay");
    let data = dir.join("data");
    fs::create_dir(&dir)?;
    crate::server::give(&dir)?;
    run_program(Command::new("cp").arg("-a").arg(&filled.base).arg(&data))?;
    let seconds = match who {
        0 => Some(replay(bed, &dir, &format!("cp {}/%f %p", filled.server.wal().display()), &[]).await?),
        1 => Some(ours(bed, &dir, &mut seen.1).await?),
        2 => match &filled.pgbackrest {
            Some(pgbackrest) => {
                pgbackrest.forget()?;
                Some(replay(bed, &dir, &get(pgbackrest, &data), &[]).await?)
            }
            None => None,
        },
        _ => match &filled.barman {
            Some(barman) => Some(replay(bed, &dir, &restore(barman), barman.env()).await?),
            None => None,
        },
    };
    seen.0[who].extend(seconds);
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn get(pgbackrest: &PgBackRest, data: &Path) -> String {
    let path = format!("--pg1-path={}", data.display());
    let args = pgbackrest.args(PREFIXES[2], &[&path, "archive-get", "%f", "\"%p\""]);
    args.join(" ")
}

fn restore(barman: &Barman) -> String {
    let mut args = barman.args("barman-cloud-wal-restore", PREFIXES[3], &[]);
    args.extend(["%f".to_owned(), "%p".to_owned()]);
    args.join(" ")
}

/// With the agent's part of it beside PostgreSQL.
async fn ours(bed: &Bed, dir: &Path, costs: &mut Vec<Cost>) -> Result<f64> {
    let filled = bed.known().context("no server")?;
    let system = filled.server.value("SELECT system_identifier FROM pg_control_system()").await?;
    let (exchange, ready, stop) = (dir.join("exchange"), dir.join("ready"), dir.join("stop"));
    let args = arguments(
        "fetch",
        &[
            ("prefix", PREFIXES[1].to_owned()),
            ("system", system),
            ("exchange", text(&exchange)),
            ("ready", text(&ready)),
            ("stop", text(&stop)),
        ],
    );
    let replaying = async {
        while !ready.exists() {
            sleep(Duration::from_millis(10)).await;
        }
        let seconds = replay(bed, dir, &pgconvoy_archive::fetch::Exchange::command(&exchange), &[]).await?;
        fs::write(&stop, "")?;
        Ok::<_, anyhow::Error>(seconds)
    };
    let (cost, seconds) = tokio::try_join!(bed.ours(&args), replaying)?;
    costs.push(cost);
    Ok(seconds)
}

/// Starts PostgreSQL on a copy and waits until it has replayed all of it and stopped; the answer is how long that took.
async fn replay(bed: &Bed, dir: &Path, command: &str, env: &[(String, String)]) -> Result<f64> {
    let filled = bed.known().context("no server")?;
    let data = dir.join("data");
    fs::write(data.join("recovery.signal"), "")?;
    crate::server::give(&data)?;
    let log = dir.join("log");
    let out = fs::File::create(&log)?;
    let mut postgres = filled.server.programs.command("postgres")?;
    postgres.envs(env.iter().map(|(k, v)| (k, v))).arg("-D").arg(&data);
    let settings = [
        format!("restore_command={command}"),
        format!("recovery_target_lsn={}", filled.target),
        "recovery_target_timeline=1".to_owned(),
        "recovery_target_action=shutdown".to_owned(),
        "hot_standby=off".to_owned(),
        "archive_mode=off".to_owned(),
        "fsync=off".to_owned(),
        "shared_buffers=256MB".to_owned(),
        "max_wal_size=64GB".to_owned(),
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={}", data.display()),
    ];
    for setting in settings {
        postgres.args(["-c", &setting]);
    }
    let begin = Instant::now();
    let mut child =
        tokio::process::Command::from(postgres).stdout(out.try_clone()?).stderr(out).kill_on_drop(true).spawn()?;
    tokio::time::timeout(Duration::from_secs(900), child.wait()).await.context("replaying does not end")??;
    let seconds = begin.elapsed().as_secs_f64();
    let said = fs::read_to_string(&log)?;
    if !said.contains("recovery stopping") {
        bail!("{command}: it was not replayed to the end: {said}");
    }
    ensure!(seconds > 0.0, "no time has passed");
    Ok(seconds)
}
