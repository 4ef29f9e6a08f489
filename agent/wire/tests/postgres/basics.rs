//! Connecting, questions and slots.

use crate::{
    certificates::Certificates,
    server::{Server, each, each_with_tls},
};
use pgconvoy_terms::{Lsn, SystemId, TimelineId};
use pgconvoy_wire::{Client, Config, Error, Password, Target, tls_config};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[test]
fn the_system_is_identified() {
    each("the_system_is_identified", async |pg| {
        let server = Server::start(pg).await;
        let mut client = Client::connect(&server.local()).await.unwrap();
        let system = client.identify_system().await.unwrap();
        let control = pg.run("pg_controldata", &[server.data.to_str().unwrap()]);
        let id = control.lines().find_map(|l| l.strip_prefix("Database system identifier:")).unwrap().trim();
        assert_eq!(system.system_id, id.parse::<SystemId>().unwrap());
        assert_eq!((system.timeline, system.dbname), (TimelineId(1), None));
        let now: Lsn = server.value("SELECT pg_current_wal_flush_lsn()").await.parse().unwrap();
        assert!(system.position <= now && system.position > Lsn(0x100_0000), "{}", system.position);
        assert!(client.server_version().starts_with(&pg.version));
        assert_eq!(client.server_major(), pg.major());
        assert!(client.process_id() > 0);
        assert_eq!(server.sql().await.identify_system().await.unwrap().dbname.as_deref(), Some("postgres"));
        assert_eq!(client.show("wal_segment_size").await.unwrap(), "16MB");
        // An error leaves the connection usable.
        let error = client.show("no_such_setting").await.unwrap_err();
        assert_eq!(error.code(), Some("42704"), "{error}");
        assert!(client.show("x; DROP").await.is_err());
        assert_eq!(client.show("wal_level").await.unwrap(), "replica");
        client.close().await.unwrap();
    });
}

#[test]
fn slots_come_and_go() {
    each("slots_come_and_go", async |pg| {
        let server = Server::start(pg).await;
        let mut client = Client::connect(&server.local()).await.unwrap();
        assert_eq!(client.create_physical_slot("keep", true, false).await.unwrap().name, "keep");
        let slot = client.read_slot("keep").await.unwrap().unwrap();
        assert!(slot.restart_lsn.is_some_and(|lsn| lsn > Lsn(0)));
        assert_eq!(slot.restart_timeline, Some(TimelineId(1)));
        let error = client.create_physical_slot("keep", true, false).await.unwrap_err();
        assert_eq!(error.code(), Some("42710"));
        assert!(error.to_string().contains("already exists"), "{error}");
        client.create_physical_slot("later", false, false).await.unwrap();
        assert_eq!(client.read_slot("later").await.unwrap().unwrap().restart_lsn, None);
        client.create_physical_slot("mine", true, true).await.unwrap();
        let gone = "SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'mine'";
        assert_eq!(server.value(gone).await, "f");
        client.drop_slot("keep").await.unwrap();
        assert_eq!(client.read_slot("keep").await.unwrap(), None);
        assert_eq!(client.drop_slot("keep").await.unwrap_err().code(), Some("42704"));
        assert_eq!(client.drop_slot("No").await.unwrap_err().reason(), "Invalid");
        client.close().await.unwrap();
        server.wait_for(gone).await;
    });
}

#[test]
fn a_command_that_is_given_up_blocks_the_connection() {
    each("a_command_that_is_given_up_blocks_the_connection", async |pg| {
        let server = Server::start(pg).await;
        let mut client = server.sql().await;
        let slow = client.simple_query("SELECT pg_sleep(2)");
        assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
        assert_eq!(client.identify_system().await.unwrap_err().reason(), "Abandoned");
        let mut config = server.local();
        config.command_timeout = Duration::from_millis(200);
        (config.mode, config.database) = (pgconvoy_wire::Mode::Database, Some("postgres".into()));
        let mut client = Client::connect(&config).await.unwrap();
        let error = client.simple_query("SELECT pg_sleep(2)").await.unwrap_err();
        assert_eq!(error.reason(), "Timeout", "{error}");
        assert_eq!(client.show("wal_level").await.unwrap_err().reason(), "Abandoned");
    });
}

#[test]
fn tls_needs_the_right_name_and_both_certificates() {
    each_with_tls("tls_needs_the_right_name_and_both_certificates", async |pg| {
        let server = Server::start(pg).await;
        let mut client = Client::connect(&server.secure()).await.unwrap();
        assert_eq!(client.identify_system().await.unwrap().timeline, TimelineId(1));
        let ssl = format!("SELECT ssl FROM pg_stat_ssl WHERE pid = {}", client.process_id());
        assert_eq!(server.value(&ssl).await, "t");

        let wrong = Target::Tcp { addr: server.address(), server_name: "orders-2".into() };
        let error = Client::connect(&Config { target: wrong, ..server.secure() }).await.unwrap_err();
        assert_eq!(error.reason(), "Tls");
        assert!(error.to_string().contains("orders-2"), "{error}");

        let foreign = Certificates::new();
        let (certificate, key) = server.certificates.issue("replicator");
        let distrust = tls_config(foreign.authority().as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap();
        let error = Client::connect(&Config { tls: Some(Arc::new(distrust)), ..server.secure() }).await.unwrap_err();
        assert_eq!(error.reason(), "Tls", "a server of a foreign authority: {error}");

        let (certificate, key) = foreign.issue("replicator");
        let forged =
            tls_config(server.certificates.authority().as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap();
        let error = Client::connect(&Config { tls: Some(Arc::new(forged)), ..server.secure() }).await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. } | Error::Cut { .. }), "a client of a foreign authority: {error}");

        let other = Some(Arc::new(server.certificates.client("somebody")));
        let error = Client::connect(&Config { tls: other, ..server.secure() }).await.unwrap_err();
        assert_eq!(error.code(), Some("28000"), "another role's certificate: {error}");

        let error = Client::connect(&Config { tls: Some(without(&server)), ..server.secure() }).await.unwrap_err();
        assert_eq!(error.code(), Some("28000"), "no certificate: {error}");
        assert!(error.to_string().contains("valid client certificate"), "{error}");

        let error = Client::connect(&Config { tls: None, ..server.secure() }).await.unwrap_err();
        assert_eq!(error.code(), Some("28000"), "no TLS: {error}");
        let local = Config { tls: server.secure().tls, ..server.local() };
        assert_eq!(Client::connect(&local).await.unwrap_err().reason(), "Invalid");
    });
}

/// A client that shows no certificate.
fn without(server: &Server) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.certificates.authority().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn a_server_without_tls_gets_nothing() {
    each("a_server_without_tls_gets_nothing", async |pg| {
        let server = Server::start_with(pg, if pg.has_tls() { &["ssl=off"] } else { &[] }).await;
        let error = Client::connect(&server.secure()).await.unwrap_err();
        assert_eq!(error.reason(), "TlsUnavailable", "{error}");
    });
}

#[test]
fn passwords_are_proven_not_sent() {
    each("passwords_are_proven_not_sent", async |pg| {
        let server = Server::start(pg).await;
        let with = |password: Option<&str>| Config { password: password.map(Password::new), ..server.tcp("secret") };
        Client::connect(&with(Some("right"))).await.unwrap().identify_system().await.unwrap();
        let error = Client::connect(&with(Some("wrong"))).await.unwrap_err();
        assert_eq!(error.code(), Some("28P01"));
        assert!(error.to_string().contains("password authentication failed"), "{error}");
        let error = Client::connect(&with(None)).await.unwrap_err();
        assert!(error.to_string().contains("wants a password and we have none"), "{error}");
        // A role that the server would let in with a password in clear text.
        let old = Config { password: Some(Password::new("right")), ..server.tcp("old") };
        let error = Client::connect(&old).await.unwrap_err();
        assert!(error.to_string().contains("clear text"), "{error}");
    });
}

#[test]
fn a_server_that_stands_still_is_noticed() {
    each("a_server_that_stands_still_is_noticed", async |pg| {
        let server = Server::start(pg).await;
        let config = Config { connect_timeout: Duration::from_millis(300), ..server.plain() };
        server.signal(nix::sys::signal::Signal::SIGSTOP);
        let before = Instant::now();
        let error = Client::connect(&config).await.unwrap_err();
        server.signal(nix::sys::signal::Signal::SIGCONT);
        assert_eq!(error.reason(), "Timeout", "{error}");
        assert!(before.elapsed() < Duration::from_secs(2));
    });
}
