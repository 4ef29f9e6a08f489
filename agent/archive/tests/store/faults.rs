//! The contract under faults: an error or the truth, never something else.

use crate::embedded::{config, limits, server};
use bytes::Bytes;
use pgconvoy_archive::store::{Conditional, Config, Created, Limits, Put, Reason, S3, Store, create, probe, read};
use pgconvoy_e2e_s3::{Fault, Operation, Server};
use std::time::{Duration, Instant};

async fn with_faults() -> (Server, S3) {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    (server, store)
}

const BODY: Bytes = Bytes::from_static(b"body");

#[tokio::test]
async fn a_short_storm_is_sat_out_and_a_long_one_is_an_error() {
    let (server, store) = with_faults().await;
    server.faults().order(Operation::Put, "", Fault::SlowDown, 2);
    assert_eq!(store.put_new("k", BODY).await.unwrap(), Put::Stored);
    assert_eq!(server.faults().count(Operation::Put), 3);
    server.faults().order(Operation::Put, "", Fault::SlowDown, 1000);
    let error = store.put_new("l", BODY).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Busy, "{error}");
    assert!(error.reason().is_transient());
    assert_eq!(server.faults().count(Operation::Put), 6, "as many attempts as allowed, no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lets_few_requests_in_gets_no_more_and_all_of_them_come_through() {
    let (server, _) = with_faults().await;
    // The call's time is the limit here: who of the writers is let in when is chance.
    let limits = Limits {
        attempts: 100,
        first_pause: Duration::from_millis(200),
        max_pause: Duration::from_secs(1),
        ..limits()
    };
    let store = S3::new(Config { limits, ..config(&server) }).await.unwrap();
    server.faults().set_requests_per_second(Some(10));
    let begun = Instant::now();
    let writes = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { create(&store, &format!("storm/{n}"), BODY).await })
    });
    for done in futures::future::join_all(writes).await {
        assert!(matches!(done.unwrap().unwrap(), Created::New | Created::Same));
    }
    assert!(begun.elapsed() > Duration::from_millis(900), "ten in a second were let in: {:?}", begun.elapsed());
    server.faults().set_requests_per_second(None);
    assert_eq!(store.list("storm/", None, false).await.unwrap().objects.len(), 20);
    // With nobody let in it ends, with what is wrong.
    server.faults().set_requests_per_second(Some(0));
    let few = S3::new(config(&server)).await.unwrap();
    let error = few.put_new("more", BODY).await.unwrap_err();
    assert!(error.to_string().contains("overloaded or ill, also after retries (PutObject: SlowDown"), "{error}");
}

#[tokio::test]
async fn a_long_outage_costs_the_calls_after_it_no_attempts() {
    let (server, _) = with_faults().await;
    let limits = Limits { first_pause: Duration::from_millis(1), max_pause: Duration::from_millis(1), ..limits() };
    let store = S3::new(Config { limits: limits.clone(), ..config(&server) }).await.unwrap();
    server.faults().order(Operation::Put, "", Fault::SlowDown, 1000);
    let mut calls = 0;
    // Until the budget is used up: attempts that were allowed are not made any more.
    let used_up = loop {
        let before = server.faults().count(Operation::Put);
        let _ = store.put_new("k", BODY).await.unwrap_err();
        calls += 1;
        if server.faults().count(Operation::Put) - before < u64::from(limits.attempts) {
            break calls;
        }
        assert!(calls < 200, "there is a bound to the retries of a client");
    };
    assert!(used_up > 40, "and it is no small one: {used_up}");
    server.faults().clear();
    // Another client has a budget of its own, and this one soon has some again, without a success before.
    let other = S3::new(Config { limits, ..config(&server) }).await.unwrap();
    server.faults().order(Operation::Put, "", Fault::SlowDown, 2);
    assert_eq!(other.put_new("other", BODY).await.unwrap(), Put::Stored);
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.faults().order(Operation::Put, "", Fault::SlowDown, 2);
    assert_eq!(store.put_new("k", BODY).await.unwrap(), Put::Stored);
}

#[tokio::test]
async fn a_lost_answer_is_no_second_writer() {
    let (server, store) = with_faults().await;
    for fault in [Fault::DoneButAnswered500, Fault::DoneButCut] {
        server.faults().clear();
        server.faults().order(Operation::Put, "", fault, 1);
        let key = format!("{fault:?}");
        assert_eq!(create(&store, &key, BODY).await.unwrap(), Created::Same);
        assert_eq!(read(&store, &key).await.unwrap().unwrap(), BODY);
        server.faults().order(Operation::CompleteUpload, "", fault, 1);
        let upload = store.begin_upload("in-parts").await.unwrap();
        let part = store.upload_part("in-parts", &upload, 1, BODY).await.unwrap();
        let _ = store.finish_upload("in-parts", &upload, vec![part]).await.unwrap();
        assert_eq!(read(&store, "in-parts").await.unwrap().unwrap(), BODY);
    }
}

#[tokio::test]
async fn damage_on_the_way_is_noticed_and_asked_for_again() {
    let (server, store) = with_faults().await;
    let bytes = crate::contract::large(1);
    let _ = store.put_new("k", bytes.clone()).await.unwrap();
    for fault in [Fault::TornBody, Fault::WrongBytes] {
        server.faults().order(Operation::Get, "", fault, 2);
        assert_eq!(read(&store, "k").await.unwrap().unwrap(), bytes, "{fault:?}");
        server.faults().order(Operation::Get, "", fault, 3);
        let error = read(&store, "k").await.unwrap_err();
        assert_eq!(error.reason(), Reason::Damaged, "{fault:?}: {error}");
        assert!(error.to_string().contains("ns/orders/k"), "{error}");
    }
}

#[tokio::test]
async fn a_store_without_conditions_is_found_out() {
    let (server, store) = with_faults().await;
    server.faults().set_conditional_writes(false);
    assert_eq!(probe(&store, 1).await.unwrap(), Conditional::Overlooked);
    // The next best: a look before each write.
    store.look_before_writing();
    assert_eq!(store.put_new("k", BODY).await.unwrap(), Put::Stored);
    assert_eq!(store.put_new("k", Bytes::new()).await.unwrap(), Put::Exists);
    assert_eq!(read(&store, "k").await.unwrap().unwrap(), BODY);
}

#[tokio::test]
async fn the_probe_survives_a_lost_answer() {
    let (server, store) = with_faults().await;
    server.faults().order(Operation::Put, "probe", Fault::DoneButAnswered500, 1);
    assert_eq!(probe(&store, 1).await.unwrap(), Conditional::Honoured);
}

#[tokio::test]
async fn a_slow_store_is_waited_for_as_long_as_allowed() {
    let (server, _) = with_faults().await;
    let limits = Limits { attempt: Duration::from_millis(400), attempts: 2, ..limits() };
    let store = S3::new(Config { limits, ..config(&server) }).await.unwrap();
    server.faults().set_latency(Duration::from_millis(200));
    assert_eq!(store.put_new("k", BODY).await.unwrap(), Put::Stored);
    server.faults().set_latency(Duration::from_secs(5));
    let before = Instant::now();
    let error = store.put_new("l", BODY).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout, "{error}");
    assert!(before.elapsed() < Duration::from_secs(3), "two attempts of 0.4 s took {:?}", before.elapsed());
}

#[tokio::test]
async fn a_cut_connection_is_tried_again() {
    let (server, store) = with_faults().await;
    server.faults().order(Operation::Put, "", Fault::Cut, 2);
    assert_eq!(create(&store, "k", BODY).await.unwrap(), Created::New);
}
