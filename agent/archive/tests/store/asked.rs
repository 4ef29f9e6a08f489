//! What is asked for beside an object goes with every request that creates one, and a store that refuses it is understood.

use crate::embedded::{config, server};
use bytes::Bytes;
use pgconvoy_archive::store::{Config, Encryption, Put, Reason, S3, Store, read};
use pgconvoy_e2e_s3::{Fault, Operation};

const SEGMENT: &str = "7/00000001-abcdefghijkl2/wal/000000010000000000000001.zst";
const PIECE: &str = "7/00000001-abcdefghijkl2/wal/live/00000001-0000000001000000.zst";
const PART: &str = "7/snapshots/first/part/00000000.tar.zst";

#[tokio::test]
async fn encryption_class_and_tags_go_with_every_request_that_creates_an_object() {
    let server = server().await;
    let sse = |s: &str| Some(("x-amz-server-side-encryption", s.to_owned()));
    let key = |s: &str| Some(("x-amz-server-side-encryption-aws-kms-key-id", s.to_owned()));
    let cases = [
        (Encryption::BucketDefault, [None, None]),
        (Encryption::S3, [sse("AES256"), None]),
        (Encryption::Kms(None), [sse("aws:kms"), None]),
        (Encryption::Kms(Some("alias/backups".into())), [sse("aws:kms"), key("alias/backups")]),
    ];
    for (n, (encryption, wanted)) in cases.into_iter().enumerate() {
        let tags = [("team".to_owned(), "shop & co".to_owned()), ("cost".to_owned(), "42".to_owned())];
        let asking = Config {
            prefix: format!("case-{n}"),
            encryption,
            storage_class: Some("STANDARD_IA".into()),
            tags: tags.into(),
            ..config(&server)
        };
        let store = S3::new(asking).await.unwrap();
        for key in [SEGMENT, PIECE, "owner-00000000.json"] {
            assert_eq!(store.put_new(key, Bytes::from_static(b"x")).await.unwrap(), Put::Stored);
        }
        let upload = store.begin_upload(PART).await.unwrap();
        let part = store.upload_part(PART, &upload, 1, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(store.finish_upload(PART, &upload, vec![part]).await.unwrap(), Put::Stored);

        let asked: Vec<_> =
            server.faults().asked().into_iter().filter(|a| a.key.starts_with(&format!("case-{n}/"))).collect();
        let made: Vec<_> = asked.iter().map(|a| a.operation).collect();
        assert_eq!(made, [Operation::Put, Operation::Put, Operation::Put, Operation::CreateUpload]);
        for one in &asked {
            let lasting = one.key.ends_with(SEGMENT) || one.key.ends_with(PART);
            let class = lasting.then(|| ("x-amz-storage-class", "STANDARD_IA".to_owned()));
            let tagging = Some(("x-amz-tagging", "cost=42&team=shop%20%26%20co".to_owned()));
            let mut expected: Vec<_> = wanted.iter().cloned().chain([class, tagging]).flatten().collect();
            expected.sort();
            let words = ["encryption", "storage-class", "tagging"];
            let found: Vec<_> = one.headers.iter().filter(|(name, _)| words.iter().any(|w| name.contains(w))).collect();
            let found: Vec<_> = found.into_iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            assert_eq!(found, expected, "{}", one.key);
        }
    }
    // And nothing is asked for that is not in the configuration.
    let store = S3::new(config(&server)).await.unwrap();
    let _ = store.put_new(SEGMENT, Bytes::new()).await.unwrap();
    let last = server.faults().asked().pop().unwrap();
    assert!(!last.headers.keys().any(|h| ["encryption", "class", "tagging"].iter().any(|w| h.contains(w))), "{last:?}");
}

#[tokio::test]
async fn a_store_that_refuses_what_is_asked_for_says_what_to_grant_or_to_correct() {
    let server = server().await;
    let asking = Config {
        encryption: Encryption::Kms(Some("alias/backups".into())),
        storage_class: Some("COLD".into()),
        tags: [("team".to_owned(), "shop".to_owned())].into(),
        ..config(&server)
    };
    let store = S3::new(asking).await.unwrap();
    let not_allowed = "User: u is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:r:1:key/k";
    let cases = [
        (Fault::AccessDenied, Reason::Denied, "s3:PutObject, s3:PutObjectTagging, kms:GenerateDataKey and kms:Decrypt"),
        (
            Fault::Refused(403, "AccessDenied", not_allowed),
            Reason::Denied,
            "grant kms:GenerateDataKey and kms:Decrypt on the key alias/backups (",
        ),
        (
            Fault::Refused(400, "KMS.NotFoundException", "Alias arn:aws:kms:r:1:alias/backups is not found."),
            Reason::Refused,
            "the key alias/backups cannot be used; it must be there, enabled, and in the bucket's region",
        ),
        (
            Fault::Refused(501, "NotImplemented", "Server side encryption specified but KMS is not configured"),
            Reason::Unsupported,
            "does not encrypt as serverSideEncryption asks",
        ),
        (
            Fault::Refused(400, "InvalidStorageClass", "The storage class you specified is not valid"),
            Reason::Refused,
            "it does not know the class COLD; correct storageClass",
        ),
        (Fault::Refused(400, "InvalidTag", "The tag is not valid"), Reason::Refused, "correct tags"),
    ];
    for (fault, reason, part) in cases {
        for operation in [Operation::Put, Operation::CreateUpload] {
            server.faults().clear();
            server.faults().order(operation, "", fault, 100);
            let error = match operation {
                Operation::Put => store.put_new(SEGMENT, Bytes::new()).await.unwrap_err(),
                _ => store.begin_upload(PART).await.unwrap_err(),
            };
            let text = error.to_string();
            assert_eq!(error.reason(), reason, "{text}");
            assert!(text.contains(part) && text.contains(error.call().name()), "{operation:?}: {text}");
        }
    }
    server.faults().clear();
    assert_eq!(store.put_new(SEGMENT, Bytes::new()).await.unwrap(), Put::Stored);
    server.faults().order(Operation::Get, "", Fault::AccessDenied, 100);
    let text = read(&store, SEGMENT).await.unwrap_err().to_string();
    assert!(text.contains("grant s3:GetObject, kms:Decrypt on the key alias/backups"), "{text}");
}
