//! Servers that are none, or behave as no PostgreSQL does.

use crate::server::NAME;
use bytes::{BufMut, BytesMut};
use pgconvoy_terms::Lsn;
use pgconvoy_wire::{Client, Config, Error, Event, Password, ReplicationOptions, Status, Target};
use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut m = BytesMut::new();
    m.put_u8(tag);
    m.put_u32(u32::try_from(body.len()).unwrap() + 4);
    m.put_slice(body);
    m.to_vec()
}

fn authentication(kind: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], rest].concat())
}

/// Connects to a server that answers each thing it hears with the next of `answers`, and says nothing more.
async fn against(answers: Vec<Vec<u8>>) -> Error {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = [0; 4096];
        for answer in answers {
            assert!(stream.read(&mut heard).await.unwrap() > 0);
            stream.write_all(&answer).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let mut config = Config::new(Target::Tcp { addr, server_name: NAME.into() }, "u");
    config.connect_timeout = Duration::from_millis(500);
    config.password = Some(Password::new("x"));
    let error = Client::connect(&config).await.unwrap_err();
    server.abort();
    error
}

#[tokio::test]
async fn silence_is_noticed() {
    let error = against(vec![]).await;
    assert_eq!(error.reason(), "Timeout");
    assert!(error.to_string().contains("did not answer within 500ms"), "{error}");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let error = against(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).await;
    assert_eq!(error.reason(), "Protocol", "{error}");
}

#[tokio::test]
async fn a_message_of_any_length_takes_no_memory() {
    let error = against(vec![b"R\x7f\xff\xff\xff".to_vec()]).await;
    assert!(error.to_string().contains("2147483647 bytes"), "{error}");
    let error = against(vec![b"R\0\0\0\x03".to_vec()]).await;
    assert_eq!(error.reason(), "Protocol", "{error}");
}

#[tokio::test]
async fn an_old_server_is_refused() {
    let hello = [authentication(0, b""), message(b'S', b"server_version\x0014.9 (Debian)\0"), message(b'Z', b"I")];
    let error = against(vec![hello.concat()]).await;
    assert!(error.to_string().ends_with("is version 14.9 (Debian); pgconvoy speaks to 15 and later"), "{error}");
}

#[tokio::test]
async fn weak_methods_are_refused_and_no_password_leaves() {
    for (kind, rest, name) in [(3, &b""[..], "in clear text"), (5, b"salt", "md5"), (7, b"", "GSSAPI")] {
        let error = against(vec![authentication(kind, rest)]).await;
        assert_eq!(error.reason(), "Authentication");
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = against(vec![authentication(10, b"OTHER\0\0")]).await;
    assert!(error.to_string().contains("we speak SCRAM-SHA-256 only"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_refused() {
    // It asks for SCRAM, then lets us in without having known the password.
    let error = against(vec![authentication(10, b"SCRAM-SHA-256\0\0"), authentication(0, b"")]).await;
    assert_eq!(error.reason(), "Protocol", "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let config = Config::new(Target::Unix { dir: "/nonexistent".into(), port: 1 }, "u");
    let error = Client::connect(&config).await.unwrap_err();
    assert_eq!(error.reason(), "Connect");
    assert!(error.to_string().contains("/nonexistent/.s.PGSQL.1"), "{error}");
}

/// A stopping walsender asks for an answer, hears from the status before it that all has arrived, says good-bye and
/// closes: the answer meets a closed connection, and the good-bye behind the question must still be read.
#[tokio::test]
async fn a_good_bye_is_read_although_nobody_takes_the_answer_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join(".s.PGSQL.1")).unwrap();
    let (closed, wait) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = [0; 4096];
        let hello = [authentication(0, b""), message(b'S', b"server_version\x0017.1\0"), message(b'Z', b"I")].concat();
        for answer in [hello, message(b'W', b"\0\0\0")] {
            assert!(stream.read(&mut heard).await.unwrap() > 0);
            stream.write_all(&answer).await.unwrap();
        }
        let question = message(b'd', &[&b"k"[..], &[0; 16], &[1]].concat());
        let good_bye = [&question, &question, &message(b'C', b"COPY 0\0")[..]].concat();
        stream.write_all(&good_bye).await.unwrap();
        drop(stream);
        closed.send(()).unwrap();
    });
    let config = Config::new(Target::Unix { dir: dir.path().to_owned(), port: 1 }, "u");
    let client = Client::connect(&config).await.unwrap();
    let mut stream = client.start_replication(&ReplicationOptions::new(Lsn(0))).await.unwrap();
    wait.await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Event::Keepalive { reply_requested: true, .. }));
    stream.send_status(Status::all(Lsn(1))).await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Event::Keepalive { reply_requested: true, .. }));
    assert_eq!(stream.next().await.unwrap(), Event::ServerStopped);
}
