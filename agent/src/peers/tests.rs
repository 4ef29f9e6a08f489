//! Both sides over loopback, with real certificates.

use super::*;
use crate::settings::{Addresses, Identity, Paths};
use pgconvoy_crds::pod::tls as files;
use pgconvoy_ha::{Answer, Ask, Unreachable};
use pgconvoy_terms::{ChangeId, Epoch, MemberName};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

const SECOND: Duration = Duration::from_secs(1);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "orders CA");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Writes a Secret's files: certificate with this common name and DNS name.
    fn write(&self, directory: &Path, common_name: &str, dns: &str) {
        self.write_for(
            directory,
            common_name,
            dns,
            &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        );
    }

    fn write_for(&self, directory: &Path, common_name: &str, dns: &str, usages: &[ExtendedKeyUsagePurpose]) {
        self.write_until(directory, common_name, dns, usages, None);
    }

    /// As [`Authority::write`], with a certificate that ended in this year.
    fn write_expired(&self, directory: &Path, common_name: &str, year: i32) {
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.write_until(directory, common_name, common_name, &both, Some(year));
    }

    fn write_until(
        &self,
        directory: &Path,
        common_name: &str,
        dns: &str,
        usages: &[ExtendedKeyUsagePurpose],
        year: Option<i32>,
    ) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        if let Some(year) = year {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = usages.to_vec();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(directory.join(files::CA), &self.pem).unwrap();
        std::fs::write(directory.join(files::AGENT_CERT), certificate.pem()).unwrap();
        std::fs::write(directory.join(files::AGENT_KEY), key.serialize_pem()).unwrap();
    }
}

fn name(n: u32) -> MemberName {
    MemberName::new("orders", n)
}

fn identity(n: u32, port: u16) -> Identity {
    Identity {
        member: name(n),
        namespace: "shop".into(),
        set_uid: "uid".into(),
        adopt: None,
        pod_uid: format!("pod-{n}"),
        pod_ip: "127.0.0.1".parse().unwrap(),
        node: "n".into(),
        paths: Paths::default(),
        postgres_port: 5432,
        peers_port: port,
        http_port: 8080,
    }
}

/// Member 2, listening, with its own files; and what member 1 needs to ask it.
struct Pair {
    authority: Authority,
    theirs: tempfile::TempDir,
    mine: tempfile::TempDir,
    address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
    metrics: Metrics,
}

impl Pair {
    async fn new() -> Self {
        let (authority, theirs, mine) = (Authority::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        authority.write(theirs.path(), "orders-2", "orders-2");
        authority.write(mine.path(), "orders-1", "orders-1");
        let (sender, asked) = mpsc::channel(8);
        let tls = Tls::load(theirs.path()).unwrap();
        let metrics = Metrics::default();
        let any = "127.0.0.1:0".parse().unwrap();
        let (address, _task) = serve(any, &identity(2, 0), tls, sender, metrics.clone()).await.unwrap();
        Self { authority, theirs, mine, address, asked, metrics }
    }

    fn peers(&self) -> (Peers, Metrics) {
        let metrics = Metrics::default();
        let known = Addresses::from([(name(2), self.address.ip()), (name(3), self.address.ip())]);
        // The sender may go: what is known stays known.
        let (_, addresses) = watch::channel(known);
        let tls = Tls::load(self.mine.path()).unwrap();
        (Peers::new(&identity(1, self.address.port()), tls, addresses, metrics.clone()), metrics)
    }

    /// Answers the next question with the name of who asked.
    async fn answer_one(&mut self) -> (MemberName, Ask) {
        let asked = tokio::time::timeout(SECOND * 10, self.asked.recv()).await.unwrap().unwrap();
        let why = asked.from.to_string();
        asked.answer.send(Answer::Refused { why, head: None, promised: None }).unwrap();
        (asked.from, asked.ask)
    }
}

fn question() -> Ask {
    Ask::Vouch { epoch: Epoch { number: 3, id: ChangeId::from_random(9) }, nonce: 77, quorate: true }
}

fn count(metrics: &Metrics, side: &str, reason: &str) -> u64 {
    let family = if side == "ask" { &metrics.ask_errors } else { &metrics.turned_away };
    let all = [
        "address",
        "connect",
        "handshake",
        "broken",
        "turned_away",
        "message",
        "late",
        "name",
        "path",
        "method",
        "busy",
        "size",
        "body",
        "unanswered",
        "accept",
    ];
    let reason = all.into_iter().find(|r| *r == reason).unwrap();
    family.get_or_create(&super::metrics::Reason { reason }).get()
}

/// Server-side counts may come a moment after the client saw its end of the connection.
async fn eventually(what: impl Fn() -> bool) {
    let end = Instant::now() + 5 * SECOND;
    while !what() {
        assert!(Instant::now() < end, "it did not come to that within 5 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_question_arrives_with_the_askers_name_and_its_answer_comes_back() {
    let mut pair = Pair::new().await;
    let (peers, _) = pair.peers();
    let asking = tokio::spawn(async move { peers.ask(&name(2), &question(), SECOND * 5).await });
    assert_eq!(pair.answer_one().await, (name(1), question()));
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer, Answer::Refused { why: "orders-1".into(), head: None, promised: None });
}

#[tokio::test]
async fn one_connection_serves_many_questions_and_a_waiting_one_holds_up_none() {
    let mut pair = Pair::new().await;
    let (peers, _) = pair.peers();
    for _ in 0..3 {
        let p = peers.clone();
        let asking = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 5).await });
        pair.answer_one().await;
        asking.await.unwrap().unwrap();
        assert_eq!(peers.kept(&name(2)), 1);
    }
    let p = peers.clone();
    let waits = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 5).await });
    let held = pair.asked.recv().await.unwrap();
    let p = peers.clone();
    let quick = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 5).await });
    pair.answer_one().await;
    quick.await.unwrap().unwrap();
    held.answer.send(Answer::NotYet).unwrap();
    assert_eq!(waits.await.unwrap(), Ok(Answer::NotYet));
    assert_eq!(peers.kept(&name(2)), 2);
}

#[tokio::test]
async fn a_peer_of_another_authority_is_trusted_by_neither_side() {
    let pair = Pair::new().await;
    // The asker's certificate and its idea of the authority are another's.
    Authority::new().write(pair.mine.path(), "orders-1", "orders-1");
    let (peers, metrics) = pair.peers();
    assert_eq!(peers.ask(&name(2), &question(), SECOND * 5).await, Err(Unreachable::Silent));
    assert_eq!(count(&metrics, "ask", "handshake"), 1);
    // It trusts the right authority, but is not of it itself.
    std::fs::write(pair.mine.path().join(files::CA), &pair.authority.pem).unwrap();
    let (peers, _) = pair.peers();
    let before = count(&pair.metrics, "server", "handshake");
    assert_eq!(peers.ask(&name(2), &question(), SECOND * 5).await, Err(Unreachable::Silent));
    eventually(|| count(&pair.metrics, "server", "handshake") > before).await;
}

#[tokio::test]
async fn only_members_of_the_set_may_ask() {
    let pair = Pair::new().await;
    for (common_name, turned_away) in [("other-1", "name"), ("pgconvoy_replication", "name"), ("orders-0", "name")] {
        pair.authority.write(pair.mine.path(), common_name, "orders-1");
        let (peers, _) = pair.peers();
        let before = count(&pair.metrics, "server", turned_away);
        assert_eq!(peers.ask(&name(2), &question(), SECOND * 5).await, Err(Unreachable::Silent), "{common_name}");
        eventually(|| count(&pair.metrics, "server", turned_away) > before).await;
    }
    // A certificate for servers only, like PostgreSQL's own.
    pair.authority.write_for(pair.mine.path(), "orders-1", "orders-1", &[ExtendedKeyUsagePurpose::ServerAuth]);
    let (peers, _) = pair.peers();
    assert_eq!(peers.ask(&name(2), &question(), SECOND * 5).await, Err(Unreachable::Silent));
    eventually(|| count(&pair.metrics, "server", "handshake") > 0).await;
}

#[tokio::test]
async fn an_address_that_is_somebody_elses_by_now_is_noticed() {
    let pair = Pair::new().await;
    let (peers, metrics) = pair.peers();
    // What answers at member 3's address is member 2.
    assert_eq!(peers.ask(&name(3), &question(), SECOND * 5).await, Err(Unreachable::Silent));
    assert_eq!(count(&metrics, "ask", "handshake"), 1);
    assert_eq!(peers.ask(&name(4), &question(), SECOND * 5).await, Err(Unreachable::Nobody));
    assert_eq!(count(&metrics, "ask", "address"), 1);
}

/// A TLS client that is no agent: with this certificate or none, it sends this text.
async fn raw(pair: &Pair, with_certificate: bool, text: &[u8]) -> String {
    let loaded = Tls::load(pair.mine.path()).unwrap().current();
    let client = if with_certificate {
        loaded.client
    } else {
        let mut roots = rustls::RootCertStore::empty();
        use rustls_pki_types::pem::PemObject;
        roots.add(rustls_pki_types::CertificateDer::from_pem_slice(pair.authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.into()
    };
    let stream = TcpStream::connect(pair.address).await.unwrap();
    let server = rustls_pki_types::ServerName::try_from("orders-2").unwrap();
    let mut answer = vec![];
    let talk = async {
        let mut stream = tokio_rustls::TlsConnector::from(client).connect(server, stream).await?;
        stream.write_all(text).await?;
        stream.read_to_end(&mut answer).await
    };
    let ended: std::io::Result<usize> = tokio::time::timeout(SECOND * 10, talk).await.unwrap();
    format!("{}{}", String::from_utf8_lossy(&answer), ended.err().map(|e| format!("({e})")).unwrap_or_default())
}

fn post(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /v1/ask HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[tokio::test]
async fn without_a_certificate_nothing_is_answered() {
    let pair = Pair::new().await;
    let answer = raw(&pair, false, &post("{}")).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    eventually(|| count(&pair.metrics, "server", "handshake") == 1).await;
}

#[tokio::test]
async fn what_is_no_question_is_turned_away_with_a_sentence() {
    let pair = Pair::new().await;
    for (request, wanted) in [
        (post("{}"), "400"),
        (post(r#"{"version":1,"setUid":"uid","ask":{"abdicate":{}}}"#), "abdicate"),
        (post(r#"{"version":9,"setUid":"uid"}"#), "version 9"),
        (post(r#"{"version":1,"setUid":"another","ask":{}}"#), "another"),
        (b"GET /v1/ask HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(), "405"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(), "404"),
    ] {
        let answer = raw(&pair, true, &request).await;
        assert!(answer.contains(wanted), "{wanted}: {answer}");
    }
    let huge = raw(&pair, true, &post(&"x".repeat(MESSAGE_LIMIT + 1))).await;
    // The server may close while the rest is still being sent; then there is no answer to read.
    assert!(huge.is_empty() || huge.contains("413") || huge.contains('('), "{huge}");
    assert_eq!(count(&pair.metrics, "server", "size"), 1);
    assert!(pair.asked.is_empty(), "none of it reached the main loop");
}

#[tokio::test]
async fn no_answer_in_time_is_unreachable_and_costs_the_server_two_seconds_at_most() {
    let mut pair = Pair::new().await;
    let (peers, metrics) = pair.peers();
    let start = Instant::now();
    assert_eq!(peers.ask(&name(2), &question(), Duration::from_millis(200)).await, Err(Unreachable::Silent));
    assert!(start.elapsed() < SECOND);
    assert_eq!(count(&metrics, "ask", "late"), 1);
    let _unanswered = pair.asked.recv().await.unwrap();

    let p = peers.clone();
    let start = Instant::now();
    let asking = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 10).await });
    let _kept = pair.asked.recv().await.unwrap();
    assert_eq!(asking.await.unwrap(), Err(Unreachable::Silent));
    assert!((1_900..5_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(count(&metrics, "ask", "turned_away"), 1);

    // Dropped without an answer: said at once.
    let p = peers.clone();
    let start = Instant::now();
    let asking = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 10).await });
    drop(pair.asked.recv().await.unwrap());
    assert_eq!(asking.await.unwrap(), Err(Unreachable::Silent));
    assert!(start.elapsed() < SECOND);
}

#[tokio::test]
async fn a_silent_or_absent_peer_is_given_up_in_a_second() {
    let pair = Pair::new().await;
    // Accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, addresses) = watch::channel(Addresses::from([(name(2), silent.local_addr().unwrap().ip())]));
    let tls = Tls::load(pair.mine.path()).unwrap();
    let port = silent.local_addr().unwrap().port();
    let peers = Peers::new(&identity(1, port), tls, addresses, Metrics::default());
    let start = Instant::now();
    assert_eq!(peers.ask(&name(2), &question(), SECOND * 10).await, Err(Unreachable::Silent));
    assert!(start.elapsed() < SECOND * 3, "{:?}", start.elapsed());
    drop(silent);
    let start = Instant::now();
    assert_eq!(peers.ask(&name(2), &question(), SECOND * 10).await, Err(Unreachable::Nobody));
    assert!(start.elapsed() < SECOND, "refused is known at once");
}

#[tokio::test]
async fn a_restarted_peer_is_reached_again_with_the_next_question() {
    let mut pair = Pair::new().await;
    let (peers, _) = pair.peers();
    let p = peers.clone();
    let asking = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 5).await });
    pair.answer_one().await;
    asking.await.unwrap().unwrap();
    // The old process goes (its receiver with it), a new one listens on the same port.
    let (sender, asked) = mpsc::channel(8);
    drop(std::mem::replace(&mut pair.asked, asked));
    let end = Instant::now() + 5 * SECOND;
    let again = loop {
        let tls = Tls::load(pair.theirs.path()).unwrap();
        match serve(pair.address, &identity(2, 0), tls, sender.clone(), Metrics::default()).await {
            Ok(again) => break again,
            Err(e) => assert!(Instant::now() < end, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let p = peers.clone();
    let asking = tokio::spawn(async move {
        // The kept connection may still lead into the old process.
        for _ in 0..2 {
            if let Ok(answer) = p.ask(&name(2), &question(), SECOND * 5).await {
                return Ok(answer);
            }
        }
        Err(Unreachable::Silent)
    });
    pair.answer_one().await;
    assert!(asking.await.unwrap().is_ok());
    again.1.abort();
}

#[tokio::test]
async fn renewed_certificates_come_into_use_without_a_restart() {
    let mut pair = Pair::new().await;
    let (peers, _) = pair.peers();
    // A new authority on both sides, as when a person renews the CA.
    let renewed = Authority::new();
    renewed.write(pair.theirs.path(), "orders-2", "orders-2");
    renewed.write(pair.mine.path(), "orders-1", "orders-1");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let p = peers.clone();
    let asking = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 5).await });
    pair.answer_one().await;
    asking.await.unwrap().unwrap();
    // Half a renewal changes nothing.
    std::fs::write(pair.mine.path().join(files::AGENT_KEY), "half a ke").unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let p = peers.clone();
    let asking = tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 5).await });
    pair.answer_one().await;
    asking.await.unwrap().unwrap();
}

/// Nobody renewed them: whoever shows one that has expired is not trusted, on either side, and a renewal is enough.
#[tokio::test]
async fn expired_certificates_are_trusted_by_neither_side_until_they_are_renewed() {
    let mut pair = Pair::new().await;
    let (peers, metrics) = pair.peers();
    let ask = |peers: &Peers| {
        let p = peers.clone();
        tokio::spawn(async move { p.ask(&name(2), &question(), SECOND * 5).await })
    };
    let asking = ask(&peers);
    pair.answer_one().await;
    asking.await.unwrap().unwrap();
    assert_eq!(count(&metrics, "ask", "handshake"), 0);

    // Both sides in turn: whoever shows one that has expired is not trusted.
    for (directory, who) in [(pair.theirs.path(), "orders-2"), (pair.mine.path(), "orders-1")] {
        pair.authority.write_expired(directory, who, 2020);
        let tls = Tls::load(directory).unwrap().current();
        assert!(tls.seconds_left().unwrap() < -86_400 * 365, "{who}");
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (anew, metrics) = pair.peers();
    assert_eq!(ask(&anew).await.unwrap(), Err(Unreachable::Silent));
    assert_eq!(count(&metrics, "ask", "handshake"), 1);
    pair.authority.write(pair.theirs.path(), "orders-2", "orders-2");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let before = count(&pair.metrics, "server", "handshake");
    assert_eq!(ask(&anew).await.unwrap(), Err(Unreachable::Silent));
    eventually(|| count(&pair.metrics, "server", "handshake") > before).await;

    pair.authority.write(pair.mine.path(), "orders-1", "orders-1");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for peers in [anew, peers] {
        let asking = ask(&peers);
        pair.answer_one().await;
        asking.await.unwrap().unwrap();
    }
    assert!(Tls::load(pair.mine.path()).unwrap().current().seconds_left().unwrap() > 0);
}

#[test]
fn unusable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let say = || Tls::load(dir.path()).err().unwrap().to_string();
    assert!(say().contains(files::CA));
    Authority::new().write(dir.path(), "orders-1", "orders-1");
    assert!(Tls::load(dir.path()).is_ok());
    std::fs::write(dir.path().join(files::AGENT_CERT), "nothing").unwrap();
    assert!(say().contains(files::AGENT_CERT));
    Authority::new().write(dir.path(), "orders-1", "orders-1");
    let other = tempfile::tempdir().unwrap();
    Authority::new().write(other.path(), "orders-1", "orders-1");
    std::fs::copy(other.path().join(files::AGENT_KEY), dir.path().join(files::AGENT_KEY)).unwrap();
    assert!(say().contains("cannot be used"), "a key of another certificate: {}", say());
}

#[test]
fn counters_are_shown() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.ask_error("late");
    metrics.turn_away("name");
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains(r#"peer_ask_errors_total{reason="late"} 1"#), "{text}");
    assert!(text.contains(r#"peer_turned_away_total{reason="name"} 1"#), "{text}");
}
