//! What a store refuses, and what we say about it.

use crate::embedded::{config, server};
use bytes::Bytes;
use pgconvoy_archive::store::{Config, Credentials, Keys, Reason, S3, Store, read};
use pgconvoy_e2e_s3::{Fault, Operation};

#[tokio::test]
async fn each_refusal_has_its_sentence() {
    let server = server().await;
    let good = config(&server);
    let keys = |id: &str, secret: &str| Credentials::keys(Keys::new(id, secret, None));
    let id = &server.options().access_key;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let cases = [
        (Config { credentials: keys("nobody", "x"), ..good.clone() }, Reason::Credentials, "access key"),
        (Config { credentials: keys(id, "wrong"), ..good.clone() }, Reason::Credentials, "SignatureDoesNotMatch"),
        (Config { credentials: keys("", ""), ..good.clone() }, Reason::Credentials, "the access key is empty"),
        (Config { bucket: "other".into(), ..good.clone() }, Reason::NoBucket, "bucket other"),
        (Config { endpoint: Some(closed), ..good.clone() }, Reason::Unreachable, "check the endpoint"),
    ];
    for (config, reason, part) in cases {
        let store = S3::new(config).await.unwrap();
        for error in [
            store.put_new("k", Bytes::new()).await.unwrap_err(),
            read(&store, "k").await.unwrap_err(),
            store.list("", None, false).await.unwrap_err(),
        ] {
            assert_eq!(error.reason(), reason, "{error}");
            let text = error.to_string();
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("wrong") && !text.contains(&server.options().secret_key), "{text}");
        }
    }
}

#[tokio::test]
async fn what_may_not_be_done_names_the_permission() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    for (operation, fault, reason, part) in [
        (Operation::Put, Fault::AccessDenied, Reason::Denied, "grant s3:PutObject"),
        (Operation::Put, Fault::ClockSkew, Reason::Clock, "set the node's clock"),
        (Operation::Put, Fault::ExpiredToken, Reason::Credentials, "expiry"),
    ] {
        server.faults().clear();
        server.faults().order(operation, "", fault, 100);
        let error = store.put_new("k", Bytes::new()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    for operation in [Operation::Get, Operation::List, Operation::Delete] {
        server.faults().order(operation, "", Fault::AccessDenied, 100);
    }
    let error = read(&store, "k").await.unwrap_err();
    assert!(error.to_string().contains("grant s3:GetObject"), "{error}");
    let error = store.list("", None, false).await.unwrap_err();
    assert!(error.to_string().contains("grant s3:ListBucket"), "{error}");
    for keys in [vec!["k".to_owned()], vec!["k".to_owned(), "l".to_owned()]] {
        let error = store.delete(&keys).await.unwrap_err();
        assert!(error.to_string().contains("grant s3:DeleteObject"), "{error}");
    }
}

#[tokio::test]
async fn exchanged_keys_count_from_the_next_request_on() {
    let server = server().await;
    let options = server.options();
    let credentials = Credentials::keys(Keys::new(&options.access_key, "old", None));
    let store = S3::new(Config { credentials: credentials.clone(), ..config(&server) }).await.unwrap();
    assert_eq!(read(&store, "k").await.unwrap_err().reason(), Reason::Credentials);
    credentials.exchange(Keys::new(&options.access_key, &options.secret_key, None));
    assert_eq!(read(&store, "k").await.unwrap(), None);
    assert!(!format!("{credentials:?}").contains(&options.secret_key));
}
