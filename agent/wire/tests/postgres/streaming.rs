//! Streams of WAL.

use crate::{
    backup::restore,
    network::{Fault, Network},
    server::{NAME, Server, each},
};
use pgconvoy_terms::{Lsn, SegmentName, TimelineId};
use pgconvoy_wire::{Client, Config, Event, History, Replication, ReplicationOptions, RestoreOptions, Status, Target};
use std::{fs, path::Path, time::Duration};
use tokio::time::{Instant, sleep, timeout};

const SEGMENT: u64 = 16 << 20;

/// Receives until `end`; asks with so little patience that most calls are dropped half-way.
async fn receive(stream: &mut Replication, from: Lsn, end: Lsn) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut bytes = Vec::new();
    while bytes.len() as u64 <= end.bytes_since(from) {
        assert!(Instant::now() < deadline);
        let Ok(event) = timeout(Duration::from_micros(200), stream.next()).await else { continue };
        if let Event::Wal { start, end, data, .. } = event.unwrap() {
            assert_eq!(start.0, from.0 + bytes.len() as u64, "a gap");
            assert!(end.0 >= start.0 + data.len() as u64);
            bytes.extend_from_slice(&data);
        }
    }
    bytes
}

/// What the server's files hold there.
fn on_disk(data: &Path, timeline: u32, from: Lsn, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let at = Lsn(from.0 + bytes.len() as u64);
        let name = SegmentName::holding(TimelineId(timeline), at, SEGMENT);
        let file = fs::read(data.join("pg_wal").join(name.to_string())).unwrap();
        let skip = usize::try_from(at.bytes_since(name.start(SEGMENT))).unwrap();
        bytes.extend_from_slice(&file[skip..]);
    }
    bytes.truncate(length);
    bytes
}

async fn write_some(server: &Server) -> Lsn {
    let mut sql = server.sql().await;
    let table = "CREATE TABLE IF NOT EXISTS w (text text)";
    let rows = "INSERT INTO w SELECT repeat(md5(i::text), 10) FROM generate_series(1, 70000) i";
    sql.simple_query(&format!("{table}; {rows}")).await.unwrap();
    server.value("SELECT pg_current_wal_flush_lsn()").await.parse().unwrap()
}

#[test]
fn the_stream_is_what_lies_in_pg_wal() {
    each("the_stream_is_what_lies_in_pg_wal", async |pg| {
        let server = Server::start(pg).await;
        let mut client = Client::connect(&server.local()).await.unwrap();
        client.create_physical_slot("archive", true, false).await.unwrap();
        let start = client.read_slot("archive").await.unwrap().unwrap().restart_lsn.unwrap();
        let options = ReplicationOptions {
            slot: Some("archive".into()),
            timeline: Some(TimelineId(1)),
            ..ReplicationOptions::new(start)
        };
        let mut stream = client.start_replication(&options).await.unwrap();
        let end = write_some(&server).await;
        assert!(end.bytes_since(start) > SEGMENT, "more than one segment");
        let bytes = receive(&mut stream, start, Lsn(end.0 - 1)).await;
        assert_eq!(bytes, on_disk(&server.data, 1, start, bytes.len()));

        // What we confirm arrives, each position for itself.
        let received = Lsn(start.0 + bytes.len() as u64);
        let status = Status { write: received, flush: Lsn(received.0 - 1), apply: Lsn(received.0 - 2) };
        stream.send_status(status).await.unwrap();
        assert_eq!(stream.status(), status);
        server
            .wait_for(&format!(
                "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'pgconvoy'
                 AND write_lsn = '{}' AND flush_lsn = '{}' AND replay_lsn = '{}'",
                status.write, status.flush, status.apply
            ))
            .await;
        let slot = format!("SELECT restart_lsn = '{}' FROM pg_replication_slots", status.flush);
        server.wait_for(&slot).await;

        // In use for everybody else, and free again after a polite end.
        let second = Client::connect(&server.local()).await.unwrap();
        let error = second.start_replication(&options).await.unwrap_err();
        assert_eq!(error.code(), Some("55006"), "{error}");
        let mut client = stream.stop().await.unwrap();
        client.drop_slot("archive").await.unwrap();
    });
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    each("what_cannot_be_streamed_is_refused", async |pg| {
        let server = Server::start(pg).await;
        let start = ReplicationOptions::new(Lsn(0x100_0000));
        for (options, code) in [
            (ReplicationOptions { slot: Some("unknown".into()), ..start.clone() }, "42704"),
            (ReplicationOptions { start: Lsn(1 << 40), ..start.clone() }, "XX000"),
            (ReplicationOptions { timeline: Some(TimelineId(7)), ..start.clone() }, "XX000"),
        ] {
            let client = Client::connect(&server.local()).await.unwrap();
            let error = match client.start_replication(&options).await {
                Ok(mut stream) => stream.next().await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.code(), Some(code), "{error}");
        }
    });
}

#[test]
fn an_idle_stream_stays_alive() {
    each("an_idle_stream_stays_alive", async |pg| {
        let server = Server::start(pg).await;
        let parameters = vec![("wal_sender_timeout".to_owned(), "600ms".to_owned())];
        let mut client = Client::connect(&Config { parameters, ..server.local() }).await.unwrap();
        assert_eq!(client.show("wal_sender_timeout").await.unwrap(), "600ms");
        let start = client.identify_system().await.unwrap().position;
        let mut stream = client.start_replication(&ReplicationOptions::new(start)).await.unwrap();
        let (end, mut asked) = (Instant::now() + Duration::from_secs(2), 0);
        while let Ok(event) = tokio::time::timeout_at(end, stream.next()).await {
            asked += u32::from(matches!(event.unwrap(), Event::Keepalive { reply_requested: true, .. }));
        }
        assert!(asked >= 2, "the server asked {asked} times in three of its time-outs");
        stream.stop().await.unwrap().identify_system().await.unwrap();
    });
}

#[test]
fn a_silent_server_is_given_up() {
    each("a_silent_server_is_given_up", async |pg| {
        let server = Server::start(pg).await;
        let start = Client::connect(&server.local()).await.unwrap().identify_system().await.unwrap().position;
        // It takes what is sent and says nothing more; the greeting fits into 2 kB.
        let network = Network::to(server.address(), Fault::StandStillAfter(2000)).await;
        let target = Target::Tcp { addr: network.address, server_name: NAME.into() };
        let client = Client::connect(&Config { target, ..server.plain() }).await.unwrap();
        let idle_timeout = Duration::from_millis(600);
        let options = ReplicationOptions { idle_timeout, ..ReplicationOptions::new(start) };
        let mut stream = client.start_replication(&options).await.unwrap();
        server.sql().await.simple_query("SELECT pg_switch_wal()").await.unwrap();
        let before = Instant::now();
        let error = loop {
            match stream.next().await {
                Ok(_) => assert!(before.elapsed() < Duration::from_secs(5)),
                Err(error) => break error,
            }
        };
        assert!(network.has_happened());
        assert_eq!(error.reason(), "Timeout", "{error}");
        // A server that is alive but has nothing to say is asked, and answers.
        let client = Client::connect(&server.plain()).await.unwrap();
        let options = ReplicationOptions { start: client_position(&server).await, ..options };
        let mut stream = client.start_replication(&options).await.unwrap();
        let end = Instant::now() + Duration::from_secs(2);
        while let Ok(event) = tokio::time::timeout_at(end, stream.next()).await {
            event.unwrap();
        }
    });
}

async fn client_position(server: &Server) -> Lsn {
    Client::connect(&server.local()).await.unwrap().identify_system().await.unwrap().position
}

#[test]
fn a_stopping_server_sends_all_it_has() {
    each("a_stopping_server_sends_all_it_has", async |pg| {
        let server = Server::start(pg).await;
        let mut client = Client::connect(&server.local()).await.unwrap();
        let start = client.identify_system().await.unwrap().position;
        let mut stream = client.start_replication(&ReplicationOptions::new(start)).await.unwrap();
        write_some(&server).await;
        let mut received = start;
        let read = async {
            loop {
                match stream.next().await.unwrap() {
                    Event::Wal { start, data, .. } => {
                        received = Lsn(start.0 + data.len() as u64);
                        // Its shutdown waits for this.
                        stream.send_status(Status::all(received)).await.unwrap();
                    }
                    Event::Keepalive { .. } => {}
                    Event::ServerStopped => break,
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::join!(read, server.stop());
        assert!(stream.next().await.is_err());
        let control = pg.run("pg_controldata", &[server.data.to_str().unwrap()]);
        let last = control.lines().find_map(|l| l.strip_prefix("Latest checkpoint location:")).unwrap().trim();
        assert!(received > last.parse().unwrap(), "the shutdown checkpoint at {last} was sent, received {received}");
        server.start_again().await;
    });
}

#[test]
fn a_timeline_ends_and_the_next_begins() {
    each("a_timeline_ends_and_the_next_begins", async |pg| {
        let primary = Server::start(pg).await;
        let mut client = Client::connect(&primary.local()).await.unwrap();
        client.create_physical_slot("follower", true, false).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        restore(&primary.local(), &dir.path().join("data"), &RestoreOptions::default()).await;
        let standby = Server::standby(&primary, dir, "follower").await;
        primary.wait_for("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'").await;

        // From the standby, which is promoted under way. 2 to 4 are burnt, as the agent burns them.
        let mut client = Client::connect(&standby.local()).await.unwrap();
        assert_eq!(client.timeline_history(TimelineId(2)).await.unwrap_err().code(), Some("58P01"));
        let start = client.identify_system().await.unwrap().position;
        let mut stream = client.start_replication(&ReplicationOptions::new(start)).await.unwrap();
        for burnt in 2..=4 {
            let path = standby.data.join(format!("pg_wal/{burnt:08X}.history"));
            fs::write(&path, "# pgconvoy: no timeline\n").unwrap();
            crate::server::give(&path);
        }
        let promote = async {
            sleep(Duration::from_millis(100)).await;
            standby.value("SELECT pg_promote()").await
        };
        let mut end = start;
        let read = async {
            loop {
                match timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap() {
                    Event::Wal { start, data, .. } => end = Lsn(start.0 + data.len() as u64),
                    Event::Keepalive { .. } => {}
                    Event::EndOfTimeline { next, start } => return (next, start),
                    Event::ServerStopped => panic!("stopped"),
                }
            }
        };
        let ((next, fork), promoted) = tokio::join!(read, promote);
        assert_eq!((promoted.as_str(), next), ("t", TimelineId(5)));
        assert!(end <= fork, "{end} {fork}");
        assert!(stream.next().await.is_err());

        // The same connection goes on with the history and the next timeline.
        let mut client = stream.into_client();
        let file = client.timeline_history(next).await.unwrap();
        assert_eq!(file.name, "00000005.history");
        assert_eq!(file.content, fs::read(standby.data.join("pg_wal/00000005.history")).unwrap());
        assert_eq!(file.history.parent(), Some((TimelineId(1), fork)));
        let stub = client.timeline_history(TimelineId(3)).await.unwrap();
        assert_eq!(stub.history, History::first(TimelineId(3)));
        let options = ReplicationOptions { timeline: Some(next), ..ReplicationOptions::new(fork) };
        let mut stream = client.start_replication(&options).await.unwrap();
        let now = write_some(&standby).await;
        let bytes = receive(&mut stream, fork, Lsn(now.0 - 1)).await;
        assert_eq!(bytes, on_disk(&standby.data, 5, fork, bytes.len()));

        // Asked for the very end of the old timeline, it tells the next one at once.
        let client = Client::connect(&standby.local()).await.unwrap();
        let options = ReplicationOptions { timeline: Some(TimelineId(1)), ..ReplicationOptions::new(fork) };
        let mut stream = client.start_replication(&options).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), Event::EndOfTimeline { next, start: fork });
        stream.into_client().identify_system().await.unwrap();
    });
}
