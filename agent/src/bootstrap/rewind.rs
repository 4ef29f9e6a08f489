//! Going back to where this member's log left the leader's, by `pg_rewind` over mutual TLS.
//!
//! The data keeps its name: up to the fork it is what it was, and what lay beyond was never acknowledged under a quorum.

use super::wal;
use crate::postgres::{Error, FILES, Marker, Postgres, making};
use pgconvoy_crds::pod;
use pgconvoy_ha::Data;
use pgconvoy_terms::MemberName;
use pgconvoy_wire::{Client, Mode};
use std::{ffi::OsString, net::IpAddr, path::Path, time::Duration};

/// For finding out what would be done.
const LOOKING: Duration = Duration::from_secs(120);
/// For doing it: what differs is copied.
const DOING: Duration = Duration::from_secs(3600);

/// What `pg_rewind` says when no other try can end otherwise: the log that it needs is not here, or nothing is common to both. The
/// first also where this member was promoted and has made no checkpoint since: up to 16 `pg_rewind` goes by the timeline of the last one.
const NEVER: [&str; 2] = ["could not find previous WAL record", "could not find common ancestor"];

/// Whether a rewind that failed so will always fail.
pub(crate) fn never_rewinds(error: &Error) -> bool {
    matches!(error, Error::Program { program: "pg_rewind", said, .. } if NEVER.iter().any(|n| said.contains(n)))
}

/// Rewinds this member's data to the log of `leader`. Nothing runs afterwards.
pub(crate) async fn rewind(postgres: &Postgres, leader: &MemberName) -> Result<(), Error> {
    let Data::Good { incarnation, system } = postgres.facts.known().data else {
        return Err(Error::Unfit("a rewind needs whole data; what is here is to be copied anew".into()));
    };
    let Some(address) = postgres.addresses.borrow().get(leader).copied() else {
        return Err(Error::NotYet(format!("the address of {leader} is not known yet")));
    };
    // An old leader is killed and started as a standby first: pg_rewind wants data that was shut down, and cannot recover
    // a standby's by itself. What that replays is all there was, so nothing that is to be discarded gets lost before.
    postgres.detach().await?;
    checkpointed(postgres, leader, address).await?;
    postgres.stop().await?;
    postgres.facts.forget_server();
    let paths = postgres.paths().clone();
    let source = source(&paths.tls, leader, &address.to_string(), postgres.config.identity.postgres_port);
    let arguments = |dry: bool| -> Vec<OsString> {
        let mut list: Vec<OsString> = vec!["--target-pgdata".into(), paths.pgdata.clone().into()];
        list.extend(["--source-server".into(), source.clone().into(), "--no-sync".into()]);
        if dry {
            list.push("--dry-run".into());
        }
        list
    };
    // What can fail without harm fails here: the connection, missing log, a wrong source.
    let said = postgres.programs.output("pg_rewind", arguments(true), LOOKING).await?;
    tracing::info!(%leader, said = said.trim(), "rewinding");
    // From the first changed block on, the data is neither what it was nor what it is to be.
    let begin = {
        let paths = paths.clone();
        move || making::begin_in_place(&paths)
    };
    let _alone = postgres.disk.run("marking the data as being rewound", FILES, begin).await?;
    postgres.facts.set(|k| {
        k.data = Data::HalfMade;
        k.problem = None;
    });
    let before = wal::end_of(postgres, leader, address).await?;
    postgres.programs.output("pg_rewind", arguments(false), DOING).await?;
    wal::complete(postgres, leader, address, before).await?;
    // The leader's own mark came along with its other files.
    let marker = Marker { set_uid: postgres.config.identity.set_uid.clone(), incarnation, fresh: false };
    let volume = paths.volume.clone();
    let sync = move || making::sync_filesystem(&volume);
    postgres.disk.run("writing the rewound data to disk", DOING, sync).await?;
    let finish = move || making::finish(&paths, &marker);
    postgres.disk.run("marking the data as rewound", FILES, finish).await?;
    postgres.look_at_volume_again().await?;
    match postgres.facts.known().data {
        Data::Good { system: now, .. } if now == system => Ok(()),
        other => Err(Error::Unfit(format!("after the rewind the data is not what it was: {other:?}"))),
    }
}

/// Waits until the leader's control file shows the timeline that it writes. Before its first checkpoint there the
/// pg_rewind of PostgreSQL 15 says "no rewind required" of logs that differ.
async fn checkpointed(postgres: &Postgres, leader: &MemberName, address: IpAddr) -> Result<(), Error> {
    let mut config = postgres.replication(leader, address).await?;
    config.mode = Mode::Database;
    config.database = Some("postgres".to_owned());
    let mut client = Client::connect(&config).await?;
    let writes = client.identify_system().await?.timeline.to_string();
    let rows = client.simple_query("SELECT timeline_id FROM pg_control_checkpoint()").await?;
    drop(client.close().await);
    let shows = rows.first().and_then(|r| r.first()).cloned().flatten().unwrap_or_default();
    if shows == writes {
        return Ok(());
    }
    Err(Error::NotYet(format!("waiting for the first checkpoint of {leader} on timeline {writes}, to rewind to it")))
}

/// How `pg_rewind`, which runs in PostgreSQL's container, connects: by name and certificate, never by address alone.
fn source(tls: &Path, leader: &MemberName, address: &str, port: u16) -> String {
    let file = |name: &str| tls.join(name).display().to_string();
    format!(
        "host={leader} hostaddr={address} port={port} user={} dbname=postgres sslmode=verify-full sslrootcert={} \
         sslcert={} sslkey={} connect_timeout=5 application_name=pgconvoy_rewind",
        pod::REPLICATION_ROLE,
        file(pod::tls::CA),
        file(pod::tls::REPLICATION_CERT),
        file(pod::tls::REPLICATION_KEY),
    )
}
