//! Owners and claims.

use crate::embedded::{config, server};
use pgconvoy_archive::{
    layout::{Claim, Claimed, EpochDir, Error, FORMAT, Owner, adopt, claim, epochs, open_archive, read_claim},
    store::S3,
};
use pgconvoy_e2e_s3::{Fault, Operation};
use pgconvoy_terms::{ChangeId, Epoch, Incarnation, Lsn, MemberId, MemberName, SystemId};

fn owner(uid: &str) -> Owner {
    let text = |s: &str| s.to_owned();
    Owner {
        format: FORMAT,
        namespace: text("ns"),
        name: text("orders"),
        uid: text(uid),
        time: text("2026-01-01T00:00:00Z"),
    }
}

fn dir(number: u32) -> EpochDir {
    EpochDir { system: SystemId(7), epoch: Epoch { number, id: ChangeId::from_random(number.into()) } }
}

fn claim_of(ordinal: u32) -> Claim {
    let member =
        MemberId { name: MemberName::new("orders", ordinal), incarnation: Incarnation::from_random(ordinal.into()) };
    Claim { member, parent: None, start: Lsn(0x300_0000), segment_size: 16 << 20, time: "t".into() }
}

#[tokio::test]
async fn an_archive_has_one_owner_until_it_is_adopted() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    open_archive(&store, &owner("a")).await.unwrap();
    // Once more, at another time, and with the first answer lost.
    server.faults().order(Operation::Put, "owner", Fault::DoneButAnswered500, 1);
    open_archive(&store, &Owner { time: "later".into(), ..owner("a") }).await.unwrap();
    let error = open_archive(&store, &owner("b")).await.unwrap_err();
    assert_eq!(error.reason(), "AnotherOwner");
    assert!(error.to_string().contains("ns/orders, uid a") && error.to_string().contains("adopt"), "{error}");
    adopt(&store, &owner("b")).await.unwrap();
    adopt(&store, &owner("b")).await.unwrap();
    open_archive(&store, &owner("b")).await.unwrap();
    open_archive(&store, &owner("a")).await.unwrap_err();
    assert_eq!(server.keys(), ["ns/orders/owner-00000000.json", "ns/orders/owner-00000001.json"]);
}

#[tokio::test]
async fn a_later_format_is_not_touched() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    let path = server.bucket_dir().join("ns/orders/owner-00000003.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, r#"{"format": 2, "who knows": 1}"#).unwrap();
    assert!(matches!(open_archive(&store, &owner("a")).await.unwrap_err(), Error::Newer { found: 2, .. }));
    std::fs::write(&path, "{").unwrap();
    assert!(matches!(open_archive(&store, &owner("a")).await.unwrap_err(), Error::Damaged { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_is_claimed_once() {
    let server = server().await;
    let store = S3::new(config(&server)).await.unwrap();
    let claims = (1..=8).map(|ordinal| {
        let store = store.clone();
        tokio::spawn(async move { (ordinal, claim(&store, &dir(3), &claim_of(ordinal)).await) })
    });
    let mut winners = Vec::new();
    for done in futures::future::join_all(claims).await {
        match done.unwrap() {
            (ordinal, Ok(Claimed::Now)) => winners.push(ordinal),
            (_, Err(Error::Fenced { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let mine = claim_of(winners[0]);
    // The next agent of the same member finds its claim, whatever the clock says.
    let again = Claim { time: "later".into(), ..mine.clone() };
    assert_eq!(claim(&store, &dir(3), &again).await.unwrap(), Claimed::Before(mine.clone()));
    assert_eq!(read_claim(&store, &dir(3)).await.unwrap(), Some(mine.clone()));
    assert_eq!(read_claim(&store, &dir(4)).await.unwrap(), None);
    // The same name with other data is another member.
    let mut other = mine.clone();
    other.member.incarnation = Incarnation::from_random(99);
    let error = claim(&store, &dir(3), &other).await.unwrap_err();
    assert!(error.to_string().contains("nothing more is archived"), "{error}");

    // A child; a repeated number is another epoch.
    let child = Claim { parent: Some((dir(3).epoch, Lsn(0x310_0028))), ..claim_of(2) };
    assert_eq!(claim(&store, &dir(9), &child).await.unwrap(), Claimed::Now);
    assert_eq!(read_claim(&store, &dir(9)).await.unwrap(), Some(child));
    let repeated = EpochDir { epoch: Epoch { number: 9, id: ChangeId::from_random(77) }, ..dir(9) };
    assert_eq!(claim(&store, &repeated, &claim_of(1)).await.unwrap(), Claimed::Now);
    let found: Vec<u32> = epochs(&store, SystemId(7)).await.unwrap().iter().map(|d| d.epoch.number).collect();
    assert_eq!(found, [3, 9, 9]);
}
