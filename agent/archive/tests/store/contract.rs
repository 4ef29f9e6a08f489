//! What every store must do, whoever made it.

use bytes::Bytes;
use pgconvoy_archive::store::{Conditional, Created, Put, S3, Store, create, probe, read, walk};
use std::sync::Arc;

pub(crate) async fn all(store: &S3) {
    an_object_is_written_once(store).await;
    of_many_writers_one_wins(store).await;
    listings_are_complete_and_in_order(store).await;
    what_is_deleted_is_gone(store).await;
    an_object_in_parts_is_written_once(store).await;
    of_many_uploads_one_wins(store).await;
    the_probe_finds_that_conditions_are_honoured(store).await;
}

async fn an_object_is_written_once(store: &S3) {
    assert_eq!(read(store, "once/none").await.unwrap(), None);
    for (key, bytes) in
        [("once/a", Bytes::from_static(b"first")), ("once/empty", Bytes::new()), ("once/large", large(3))]
    {
        assert_eq!(store.put_new(key, bytes.clone()).await.unwrap(), Put::Stored, "{key}");
        assert_eq!(store.put_new(key, Bytes::from_static(b"second")).await.unwrap(), Put::Exists, "{key}");
        assert_eq!(read(store, key).await.unwrap().unwrap(), bytes, "{key}");
        assert_eq!(create(store, key, bytes.clone()).await.unwrap(), Created::Same, "{key}");
        assert_eq!(create(store, key, Bytes::from_static(b"third")).await.unwrap(), Created::Differs(bytes), "{key}");
    }
    assert_eq!(create(store, "once/b", Bytes::from_static(b"x")).await.unwrap(), Created::New);
}

async fn of_many_writers_one_wins(store: &S3) {
    for round in 0..5 {
        let key: Arc<str> = format!("race/{round}").into();
        let writers = (0..8u8).map(|n| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { (n, store.put_new(&key, Bytes::from(vec![n; 100_000])).await.unwrap()) })
        });
        let mut winners = Vec::new();
        for writer in futures::future::join_all(writers).await {
            let (n, put) = writer.unwrap();
            if put == Put::Stored {
                winners.push(n);
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(read(store, &key).await.unwrap().unwrap(), vec![winners[0]; 100_000]);
    }
}

async fn listings_are_complete_and_in_order(store: &S3) {
    // More than a page; written side by side, or it takes long.
    let keys: Vec<String> = (0..1100).map(|n| format!("list/wal/{n:08X}.zst")).collect();
    for chunk in keys.chunks(50) {
        let puts = chunk.iter().map(|key| store.put_new(key, Bytes::from_static(b"x")));
        futures::future::join_all(puts).await.into_iter().for_each(|p| assert_eq!(p.unwrap(), Put::Stored));
    }
    let _ = store.put_new("list/top", Bytes::from_static(b"12345")).await.unwrap();
    let _ = store.put_new("listed", Bytes::new()).await.unwrap();

    let mut found = Vec::new();
    walk(store, "list/wal/", None, false, |page| {
        found.extend(page.objects.into_iter().map(|o| o.key));
        true
    })
    .await
    .unwrap();
    assert_eq!(found, keys);

    let page = store.list("list/wal/", Some(&keys[1049]), false).await.unwrap();
    assert_eq!(page.next, None);
    assert_eq!(page.objects.iter().map(|o| &o.key).collect::<Vec<_>>(), keys[1050..].iter().collect::<Vec<_>>());

    let page = store.list("list/", None, true).await.unwrap();
    assert_eq!(page.folders, ["list/wal/"]);
    assert_eq!(page.objects.iter().map(|o| (o.key.as_str(), o.size)).collect::<Vec<_>>(), [("list/top", 5)]);
    assert!(store.list("nothing/", None, false).await.unwrap().objects.is_empty());
}

async fn what_is_deleted_is_gone(store: &S3) {
    let mut keys = Vec::new();
    walk(store, "list/wal/", None, false, |page| {
        keys.extend(page.objects.into_iter().map(|o| o.key));
        true
    })
    .await
    .unwrap();
    keys.truncate(1000);
    store.delete(&keys).await.unwrap();
    // Again: what is not there is no error.
    store.delete(&keys[..2]).await.unwrap();
    store.delete(&keys[..1]).await.unwrap();
    assert_eq!(read(store, &keys[0]).await.unwrap(), None);
    assert_eq!(store.list("list/wal/", None, false).await.unwrap().objects.len(), 100);
    assert_eq!(store.put_new(&keys[0], Bytes::new()).await.unwrap(), Put::Stored, "a deleted key is free again");
}

/// Megabytes that do not repeat.
pub(crate) fn large(megabytes: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(megabytes << 20);
    while bytes.len() < megabytes << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.into()
}

async fn an_object_in_parts_is_written_once(store: &S3) {
    let bytes = large(12);
    let key = "parts/a";
    let upload = store.begin_upload(key).await.unwrap();
    let mut parts = Vec::new();
    for (n, chunk) in bytes.chunks(5 << 20).enumerate() {
        let number = u32::try_from(n).unwrap() + 1;
        parts.push(store.upload_part(key, &upload, number, Bytes::copy_from_slice(chunk)).await.unwrap());
    }
    assert_eq!(read(store, key).await.unwrap(), None, "not before it is finished");
    assert_eq!(store.finish_upload(key, &upload, parts).await.unwrap(), Put::Stored);
    assert_eq!(read(store, key).await.unwrap().unwrap(), bytes);

    let upload = store.begin_upload(key).await.unwrap();
    let part = store.upload_part(key, &upload, 1, Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(store.finish_upload(key, &upload, vec![part]).await.unwrap(), Put::Exists);
    assert_eq!(read(store, key).await.unwrap().unwrap(), bytes);
    store.abort_upload(key, &upload).await.unwrap();

    let upload = store.begin_upload("parts/b").await.unwrap();
    let part = store.upload_part("parts/b", &upload, 1, Bytes::from_static(b"other")).await.unwrap();
    store.abort_upload("parts/b", &upload).await.unwrap();
    store.finish_upload("parts/b", &upload, vec![part]).await.unwrap_err();
    assert_eq!(read(store, "parts/b").await.unwrap(), None);
}

async fn of_many_uploads_one_wins(store: &S3) {
    let key = "parts/race";
    let uploads = (0..6u8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let upload = store.begin_upload(key).await.unwrap();
            let part = store.upload_part(key, &upload, 1, Bytes::from(vec![n; 1000])).await.unwrap();
            (n, store.finish_upload(key, &upload, vec![part]).await.unwrap())
        })
    });
    let done: Vec<_> = futures::future::join_all(uploads).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<u8> = done.iter().filter(|(_, put)| *put == Put::Stored).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1, "{done:?}");
    assert_eq!(read(store, key).await.unwrap().unwrap(), vec![winners[0]; 1000]);
}

async fn the_probe_finds_that_conditions_are_honoured(store: &S3) {
    assert_eq!(probe(store, 7).await.unwrap(), Conditional::Honoured);
    assert!(store.list("probe-", None, false).await.unwrap().objects.is_empty(), "it cleans up");
}
