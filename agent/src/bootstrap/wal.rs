//! The log that rewound data needs to be whole, fetched from the leader.
//!
//! `pg_rewind` copies blocks and log files while the leader writes on; the data is consistent only at the end of all that,
//! and what the leader wrote after its log files were copied is missing. A standby that receives from nobody would wait for
//! it for ever.

use crate::postgres::{Error, FILES, Postgres};
use bytes::Bytes;
use pgconvoy_terms::{Lsn, MemberName, SegmentName, TimelineId};
use pgconvoy_wire::{Client, Event, ReplicationOptions};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long fetching it may take: it is what was written during a rewind.
const FETCHING: Duration = Duration::from_secs(600);
/// How much is kept in memory before it is written, in bytes.
const PIECE: usize = 4 << 20;

/// How far the leader's log is: to be asked before the rewind.
pub(super) async fn end_of(postgres: &Postgres, leader: &MemberName, address: IpAddr) -> Result<Lsn, Error> {
    let mut client = Client::connect(&postgres.replication(leader, address).await?).await?;
    let position = client.identify_system().await?.position;
    drop(client.close().await);
    Ok(position)
}

/// Completes the log in the data directory from the segment that holds `from` (the leader's end before its log files were
/// copied) to where the data is consistent.
pub(super) async fn complete(
    postgres: &Postgres,
    leader: &MemberName,
    address: IpAddr,
    from: Lsn,
) -> Result<(), Error> {
    let control = postgres.programs.control_data(&postgres.paths().pgdata).await?;
    let wanted: Lsn = field(&control, "Minimum recovery ending location")?;
    let timeline = TimelineId(field(&control, "Min recovery ending loc's timeline")?);
    let size: u64 = field(&control, "Bytes per WAL segment")?;
    if wanted <= from {
        return Ok(());
    }
    let start = SegmentName::holding(timeline, from, size).start(size);
    let fetched = timeout(FETCHING, Box::pin(fetch(postgres, leader, address, timeline, start, wanted, size))).await;
    fetched.map_err(|_| Error::Timeout { doing: "fetching the log of the leader", after: FETCHING })?
}

async fn fetch(
    postgres: &Postgres,
    leader: &MemberName,
    address: IpAddr,
    timeline: TimelineId,
    start: Lsn,
    wanted: Lsn,
    size: u64,
) -> Result<(), Error> {
    let client = Client::connect(&postgres.replication(leader, address).await?).await?;
    let options = ReplicationOptions { timeline: Some(timeline), ..ReplicationOptions::new(start) };
    let mut stream = client.start_replication(&options).await?;
    let (mut pieces, mut held, mut end) = (Vec::new(), 0, start);
    while end < wanted {
        match stream.next().await? {
            Event::Wal { start, data, .. } => {
                end = Lsn(start.0 + data.len() as u64);
                held += data.len();
                pieces.push((start, data));
            }
            Event::Keepalive { .. } => {}
            Event::EndOfTimeline { .. } | Event::ServerStopped => {
                return Err(Error::NotYet(format!("{leader} stopped sending its log at {end}, before {wanted}")));
            }
        }
        if held >= PIECE || end >= wanted {
            let (pg_wal, now) = (postgres.pg_wal(), std::mem::take(&mut pieces));
            let write = move || put(&pg_wal, timeline, size, now);
            postgres.disk.run("writing the leader's log", FILES, write).await?;
            held = 0;
        }
    }
    tracing::info!(%leader, %start, %end, "fetched the log that was written during the rewind");
    Ok(())
}

/// Writes pieces of the log into their segments; a segment that is not there yet is made whole.
fn put(pg_wal: &Path, timeline: TimelineId, size: u64, pieces: Vec<(Lsn, Bytes)>) -> Result<(), Error> {
    for (start, data) in pieces {
        let mut rest: &[u8] = &data;
        let mut at = start.0;
        while !rest.is_empty() {
            let path = pg_wal.join(SegmentName::holding(timeline, Lsn(at), size).to_string());
            let offset = at % size;
            let room = usize::try_from(size - offset).unwrap_or(rest.len()).min(rest.len());
            let (now, later) = rest.split_at(room);
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            let written = file.and_then(|f| {
                if f.metadata()?.len() < size {
                    f.set_len(size)?;
                }
                f.write_all_at(now, offset)
            });
            written.map_err(Error::disk("write", &path))?;
            at += room as u64;
            rest = later;
        }
    }
    Ok(())
}

fn field<T: std::str::FromStr>(control: &BTreeMap<String, String>, name: &str) -> Result<T, Error> {
    let value = control.get(name).and_then(|v| v.parse().ok());
    value.ok_or_else(|| Error::Answer {
        doing: "reading the control file after the rewind",
        what: format!("{name:?} is {:?}", control.get(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cross_segments() {
        let directory = tempfile::tempdir().unwrap();
        let size = 1 << 20;
        let data = Bytes::from(vec![7_u8; 3000]);
        put(directory.path(), TimelineId(2), size, vec![(Lsn((5 << 20) - 1000), data)]).unwrap();
        let read = |n: u64| {
            let name = SegmentName::holding(TimelineId(2), Lsn(n << 20), size);
            std::fs::read(directory.path().join(name.to_string())).unwrap()
        };
        let (first, second) = (read(4), read(5));
        assert_eq!((first.len(), second.len()), (1 << 20, 1 << 20));
        assert_eq!(first.iter().filter(|b| **b == 7).count(), 1000);
        assert!(second[..2000].iter().all(|b| *b == 7) && second[2000] == 0);
    }
}
