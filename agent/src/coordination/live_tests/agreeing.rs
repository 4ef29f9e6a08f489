//! PgTerm and Lease.

use super::*;

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn the_term_is_changed_by_compare_and_swap_alone() {
    let place = Place::new("term").await;
    let client = |n| TermClient::new(place.clients.coordination.clone(), &place.member(n), place.events(n));
    let (one, two) = (client(1), client(2));
    let (registers, mut seen) = mpsc::channel(4);
    let task = one.watch(registers, Metrics::default());
    let first = tokio::time::timeout(SECOND * 5, seen.recv()).await.unwrap().unwrap();
    assert_eq!(first.term, None);
    let (read, asked) = two.read().await.unwrap();
    assert_eq!(read, first);
    assert!(crate::clock::now().since(asked) < 2_000);

    let start = Instant::now();
    let opened = won(one.swap(&first.version, &term(1)).await);
    assert_eq!(opened.term, Some(term(1)));
    assert_eq!(two.swap(&first.version, &term(1)).await, SwapOutcome::Lost, "based on what is no more");
    assert_eq!(tokio::time::timeout(SECOND, seen.recv()).await.unwrap(), Some(opened.clone()));
    println!("writing a change and seeing it in the watch took {:?}", start.elapsed());

    // Two based on the same version: one wins.
    let mut other = term(2);
    other.epoch.id = ChangeId::from_random(99);
    other.chain[1] = other.epoch.id.clone();
    let (t1, t2) = (term(2), other);
    let both = tokio::join!(one.swap(&opened.version, &t1), two.swap(&opened.version, &t2));
    let winners = [&both.0, &both.1].into_iter().filter(|o| matches!(o, SwapOutcome::Won(_))).count();
    assert_eq!(winners, 1, "{both:?}");
    let now = two.read().await.unwrap().0;

    // The server itself refuses epochs that go back, with its sentence.
    match two.swap(&now.version, &term(1)).await {
        SwapOutcome::Refused(why) => assert!(why.contains("epochs only grow"), "{why}"),
        other => panic!("{other:?}"),
    }
    let object = place.api::<PgTerm>().get("orders").await.unwrap();
    assert_eq!(object.metadata.labels.unwrap()["pgconvoy.dev/set"], "orders", "labels stay");
    assert_eq!(object.metadata.owner_references.unwrap().len(), 1, "owners stay");

    // Somebody deletes it.
    place.api::<PgTerm>().delete("orders", &DeleteParams::default()).await.unwrap();
    let warned = place.event("TermMissing").await;
    assert_eq!(warned.involved_object.kind.as_deref(), Some("PgReplicaSet"));
    assert!(matches!(two.read().await, Err(ApiError::Missing { .. })));
    assert!(matches!(two.swap(&now.version, &term(3)).await, SwapOutcome::Refused(_)));
    // Made anew for another set of the name: not obeyed.
    let _: PgTerm = place
        .create(json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgTerm", "metadata": { "name": "orders" },
            "spec": { "setUid": "another", "epoch": { "number": 0 } },
        }))
        .await;
    place.event("TermUnreadable").await;
    assert!(matches!(two.read().await, Err(ApiError::Unreadable { .. })));
    while let Ok(register) = seen.try_recv() {
        assert!(register.term.is_some(), "the other set's term was passed on");
    }
    assert!(!task.is_finished());
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn the_lease_goes_from_hand_to_hand() {
    let place = Place::new("lease").await;
    let candidate = |n, stepped| {
        let (want, wanted) = watch::channel(LeaseWish::default());
        let (say, held) = watch::channel(false);
        let client = place.clients.coordination.clone();
        let task = keep_lease(client, &place.member(n), wanted, say, stepped, Metrics::default());
        (want, held, task)
    };
    // An agent that stands still takes nothing.
    let still = candidate(3, Arc::default());
    still.0.send(WANTED).unwrap();
    let (mut one, mut two) = (candidate(1, awake()), candidate(2, awake()));
    tokio::time::sleep(SECOND).await;
    assert!(!*still.1.borrow());
    let start = Instant::now();
    one.0.send(WANTED).unwrap();
    until(&mut one.1, SECOND, |h| *h).await;
    println!("a free Lease was taken in {:?}", start.elapsed());
    two.0.send(WANTED).unwrap();
    tokio::time::sleep(SECOND * 7).await;
    assert!(*one.1.borrow() && !*two.1.borrow());
    let lease = place.api::<Lease>().get("orders").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some("orders-1/pod-1"));
    assert!(lease.renew_time.unwrap().0 > lease.acquire_time.unwrap().0, "it was renewed");

    let start = Instant::now();
    one.0.send(LeaseWish::default()).unwrap();
    until(&mut two.1, SECOND * 3, |h| *h).await;
    println!("a released Lease was taken in {:?}", start.elapsed());
    assert!(!*one.1.borrow());

    // The holder's process ends without a word; a restarted one of the same pod has it back at once.
    two.2.abort();
    let mut again = candidate(2, awake());
    again.0.send(WANTED).unwrap();
    until(&mut again.1, SECOND * 2, |h| *h).await;

    again.2.abort();
    one.0.send(WANTED).unwrap();
    let start = Instant::now();
    until(&mut one.1, SECOND * 20, |h| *h).await;
    println!("the Lease of a silent holder was taken in {:?}", start.elapsed());
    assert!(start.elapsed() > SECOND * 9, "{:?}", start.elapsed());

    // A holder whose pod is not there (none of these has one) is not waited for where the Lease does no more than order.
    one.2.abort();
    let mut next = candidate(2, awake());
    next.0.send(LeaseWish { orders: true, ..WANTED }).unwrap();
    let start = Instant::now();
    until(&mut next.1, SECOND * 3, |h| *h).await;
    println!("the Lease of a holder whose pod is gone was taken in {:?}", start.elapsed());
    next.0.send(LeaseWish::default()).unwrap();
    let mut one = candidate(1, awake());
    one.0.send(WANTED).unwrap();
    until(&mut one.1, SECOND * 5, |h| *h).await;

    // Deleted: no longer held; made again: held again.
    place.api::<Lease>().delete("orders", &DeleteParams::default()).await.unwrap();
    until(&mut one.1, SECOND * 7, |h| !*h).await;
    let _: Lease = place.create(json!({ "metadata": { "name": "orders" } })).await;
    until(&mut one.1, SECOND * 5, |h| *h).await;
    place.end().await;
}
