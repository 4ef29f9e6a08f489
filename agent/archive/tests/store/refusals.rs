//! What a store refuses, and what we say about it.

use crate::embedded::{config, server};
use bytes::Bytes;
use pgconvoy_archive::store::{Config, Credentials, Keys, Put, Reason, S3, Store, read};
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
    let (key, body) = ("k", Bytes::from_static(b"body"));
    let two = ["k".to_owned(), "l".to_owned()];
    // What each call says when it alone is denied, after what came before it was not.
    let upload = store.begin_upload(key).await.unwrap();
    let part = store.upload_part(key, &upload, 1, body.clone()).await.unwrap();
    for (operation, permission) in [
        (Operation::Put, "s3:PutObject"),
        (Operation::Get, "s3:GetObject"),
        (Operation::List, "s3:ListBucket"),
        (Operation::Delete, "s3:DeleteObject"),
        (Operation::CreateUpload, "s3:PutObject"),
        (Operation::UploadPart, "s3:PutObject"),
        (Operation::CompleteUpload, "s3:PutObject"),
        (Operation::AbortUpload, "s3:AbortMultipartUpload"),
    ] {
        server.faults().clear();
        server.faults().order(operation, "", Fault::AccessDenied, 100);
        let errors = match operation {
            Operation::Put => vec![store.put_new(key, body.clone()).await.unwrap_err()],
            Operation::Get => vec![read(&store, key).await.unwrap_err()],
            Operation::List => vec![store.list(key, None, false).await.unwrap_err()],
            Operation::Delete => {
                vec![store.delete(&two[..1]).await.unwrap_err(), store.delete(&two).await.unwrap_err()]
            }
            Operation::CreateUpload => vec![store.begin_upload(key).await.unwrap_err()],
            Operation::UploadPart => vec![store.upload_part(key, &upload, 2, body.clone()).await.unwrap_err()],
            Operation::CompleteUpload => {
                vec![store.finish_upload(key, &upload, vec![part.clone()]).await.unwrap_err()]
            }
            _ => vec![store.abort_upload(key, &upload).await.unwrap_err()],
        };
        for error in errors {
            let text = error.to_string();
            assert_eq!(error.reason(), Reason::Denied, "{text}");
            assert!(!error.reason().is_transient(), "{text}");
            let place = format!("ns/orders/k in bucket backups at {}", server.endpoint());
            assert!(text.contains(&place) && text.contains(&format!("grant {permission} ")), "{operation:?}: {text}");
            assert!(text.contains(error.call().name()), "{text}");
        }
    }
    server.faults().clear();
    server.faults().order(Operation::Put, "", Fault::ExpiredToken, 100);
    let error = store.put_new(key, body).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Credentials, "{error}");
    assert!(error.to_string().contains("expiry (PutObject: ExpiredToken"), "{error}");
}

#[tokio::test]
async fn a_bucket_in_another_region_and_a_clock_that_is_off_are_told_with_what_would_be_right() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    server.faults().set_region(Some("eu-central-1"));
    let errors = |store: S3| async move {
        [
            store.put_new("k", Bytes::new()).await.unwrap_err(),
            read(&store, "k").await.unwrap_err(),
            store.list("", None, false).await.unwrap_err(),
        ]
    };
    for error in errors(store.clone()).await {
        assert_eq!(error.reason(), Reason::Region, "{error}");
        let text = error.to_string();
        assert!(text.contains("correct the region") && text.contains("expecting 'eu-central-1'"), "{text}");
    }
    let there = S3::new(Config { region: "eu-central-1".into(), ..config(&server) }).await.unwrap();
    assert_eq!(there.put_new("k", Bytes::new()).await.unwrap(), Put::Stored);
    server.faults().set_region(None);

    // A quarter of an hour is what stores bear; either may be the one that is wrong.
    server.faults().set_clock_offset(800);
    assert_eq!(store.put_new("l", Bytes::new()).await.unwrap(), Put::Stored);
    for offset in [1000, -1000, 86_400] {
        server.faults().set_clock_offset(offset);
        for error in errors(store.clone()).await {
            assert_eq!(error.reason(), Reason::Clock, "{offset}: {error}");
            assert!(error.to_string().contains("set the node's clock"), "{error}");
        }
    }
    server.faults().set_clock_offset(0);
    assert_eq!(store.put_new("m", Bytes::new()).await.unwrap(), Put::Stored);
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
