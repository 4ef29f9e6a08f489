//! EndpointSlices, status, Events, and the two watches of what others want.

use super::*;

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn the_services_lead_where_the_latest_epoch_says() {
    let place = Place::new("endpoints").await;
    let pods: Pods = (1..=3)
        .map(|n| {
            (
                name(n),
                Pod {
                    ips: vec![format!("10.1.1.{n}").parse().unwrap()],
                    uid: Some(format!("u{n}")),
                    node: Some("n1".into()),
                },
            )
        })
        .collect();
    let publisher = |n, pods: Pods| {
        let (say, publication) = watch::channel(None);
        let (keep, pods) = watch::channel(pods);
        let task = publish(place.client(), &place.member(n), publication, pods, place.events(n), Metrics::default());
        (say, keep, task)
    };
    let (one, two) = (publisher(1, pods.clone()), publisher(2, pods));
    let led_by = |leader: u32, number| Publication {
        epoch: epoch(number),
        leader: Some(name(leader)),
        followers: (1..=3).filter(|n| *n != leader).map(name).collect(),
    };
    let slice = async |service: &str| place.api::<EndpointSlice>().get(&format!("orders-{service}")).await.unwrap();
    let targets = |s: &EndpointSlice| -> BTreeSet<String> {
        s.endpoints.iter().map(|e| e.target_ref.clone().unwrap().name.unwrap()).collect()
    };
    let leads_to = async |service: &str, wanted: &[u32]| {
        let wanted: BTreeSet<String> = wanted.iter().map(|n| name(*n).to_string()).collect();
        eventually(&format!("{service} to {wanted:?}"), async || {
            let s = slice(service).await;
            (targets(&s) == wanted).then_some(s)
        })
        .await
    };
    let start = Instant::now();
    one.0.send(Some(led_by(1, 4))).unwrap();
    let rw = leads_to("rw", &[1]).await;
    println!("the Service led to the leader after {:?}", start.elapsed());
    leads_to("ro", &[2, 3]).await;
    leads_to("r", &[1, 2, 3]).await;
    assert_eq!(rw.metadata.labels.unwrap()["kubernetes.io/service-name"], "orders-rw");
    assert_eq!(rw.metadata.annotations.unwrap()[ANNOTATION_EPOCH], epoch(4).to_string());
    two.0.send(Some(led_by(2, 5))).unwrap();
    leads_to("rw", &[2]).await;
    // The old leader learns late, and says its word once more.
    one.0.send(Some(led_by(3, 4))).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(targets(&slice("rw").await), BTreeSet::from(["orders-2".to_owned()]));
    // Nothing is written while nothing changes.
    let version = slice("rw").await.metadata.resource_version;
    two.0.send(Some(led_by(2, 5))).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(slice("rw").await.metadata.resource_version, version);
    two.0.send(Some(Publication { leader: None, ..led_by(2, 5) })).unwrap();
    leads_to("rw", &[]).await;
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn each_member_writes_its_own_entry_and_no_other() {
    let place = Place::new("status").await;
    let reporter = |n| {
        let (say, state) = watch::channel(MemberState::default());
        let metrics = Metrics::default();
        let task = report(place.client(), &place.member(n), state, place.events(n), metrics.clone());
        (say, task, metrics)
    };
    let (one, two) = (reporter(1), reporter(2));
    let leading = MemberState {
        role: Some(MemberRole::Leader),
        state: Some(MemberPhase::Attached),
        epoch: Some(4),
        ..MemberState::default()
    };
    one.0.send(leading.clone()).unwrap();
    two.0.send(MemberState { state: Some(MemberPhase::Cloning), ..MemberState::default() }).unwrap();
    let set = async || place.api::<PgReplicaSet>().get("orders").await.unwrap();
    let entry = async |n: u32, wanted: MemberPhase| {
        eventually(&format!("{wanted:?} of {n}"), async || {
            let states = set().await.status.unwrap_or_default().member_states;
            states.into_iter().find(|s| s.name == name(n).to_string() && s.state == Some(wanted))
        })
        .await
    };
    let first = entry(1, MemberPhase::Attached).await;
    assert_eq!((first.pod_uid.as_deref(), first.node.as_deref(), first.epoch), (Some("pod-1"), Some("n1"), Some(4)));
    let since = first.since.unwrap();
    entry(2, MemberPhase::Cloning).await;
    let version = set().await.metadata.resource_version;
    // The same again, and an agent that restarts: no write.
    one.0.send(leading.clone()).unwrap();
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(one.2.status_writes.get(), 1, "a server would not even show that it was written again");
    one.1.abort();
    let again = reporter(1);
    again.0.send(leading.clone()).unwrap();
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(set().await.metadata.resource_version, version);
    assert_eq!(again.2.status_writes.get(), 0);
    // Another message is no other state; of many changes the last one counts.
    for i in 0..50 {
        again.0.send(MemberState { message: Some(format!("{i} left")), ..leading.clone() }).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("the last message", async || {
        let e = entry(1, MemberPhase::Attached).await;
        (e.message.as_deref() == Some("49 left") && e.since.as_ref() == Some(&since)).then_some(())
    })
    .await;
    again.0.send(MemberState { role: None, state: Some(MemberPhase::Fenced), ..leading }).unwrap();
    let fenced = entry(1, MemberPhase::Fenced).await;
    assert_eq!(fenced.role, None, "what is no longer said is gone");
    assert_ne!(fenced.since, Some(since));
    entry(2, MemberPhase::Cloning).await;
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn spec_and_pods_are_followed() {
    let place = Place::new("watch").await;
    let me = place.member(1);
    let (say, mut watched) = watch::channel(None);
    let _spec = watch_spec(place.client(), &me, say, place.events(1), Metrics::default());
    let (addresses, mut known) = watch::channel(Addresses::new());
    let (pods, all) = watch::channel(Pods::new());
    let _pods = watch_pods(place.client(), &me, addresses, pods, Metrics::default());
    until(&mut watched, SECOND * 5, Option::is_some).await;
    let first = watched.borrow_and_update().clone().unwrap();
    assert!(first.spec.roster.is_empty());
    assert_eq!((first.spec.acknowledgements, first.settings.memory_limit), (1, Some(1 << 30)));
    let api: Api<DynamicObject> = super::watching::untyped::<PgReplicaSet>(place.admin.clone(), &place.namespace);
    let status = json!({ "status": { "roster": ["orders-1", "orders-2"] } });
    api.patch_status("orders", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    until(&mut watched, SECOND * 5, |w| w.as_ref().is_some_and(|w| w.spec.roster.len() == 2)).await;
    // A restart while the API is away: no client ever answers.
    let mut away = kube::Config::new("https://127.0.0.1:1/".parse().unwrap());
    away.accept_invalid_certs = true;
    let (say, mut remembered) = watch::channel(None);
    let away = Clients::with(away).unwrap().general;
    let _away = watch_spec(away, &me, say, place.events(1), Metrics::default());
    until(&mut remembered, SECOND * 8, Option::is_some).await;
    assert_eq!(*remembered.borrow(), *watched.borrow());
    // What others write into the status is nothing new for us.
    watched.borrow_and_update();
    let status = json!({ "status": { "ready": "1/3" } });
    api.patch_status("orders", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(!watched.has_changed().unwrap());

    assert_eq!(known.borrow_and_update().clone(), Addresses::from([(name(1), me.pod_ip)]));
    let _: CorePod = place
        .create(json!({
            "metadata": { "name": "orders-2", "labels": { "pgconvoy.dev/set": "orders" } },
            "spec": { "nodeName": "nowhere", "automountServiceAccountToken": false,
                      "containers": [{ "name": "c", "image": "none" }] },
        }))
        .await;
    let ip = json!({ "status": { "podIP": "10.7.7.2", "podIPs": [{ "ip": "10.7.7.2" }] } });
    place.api::<CorePod>().patch_status("orders-2", &PatchParams::default(), &Patch::Merge(&ip)).await.unwrap();
    until(&mut known, SECOND * 5, |a| a.get(&name(2)) == Some(&"10.7.7.2".parse().unwrap())).await;
    assert_eq!(all.borrow()[&name(2)].node.as_deref(), Some("nowhere"));
    place.api::<CorePod>().delete("orders-2", &DeleteParams::default().grace_period(0)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(known.borrow().contains_key(&name(2)), "the last known address stays");
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn events_reach_the_pod_and_the_set() {
    let place = Place::new("events").await;
    let events = place.events(1);
    events.tell(About::Pod, "CloneStarted", "orders-1 copies the data of orders-2");
    for _ in 0..5 {
        events.warn(About::Set, "NoQuorum", &format!("two of three are gone {}", "é".repeat(2_000)));
    }
    let told = place.event("CloneStarted").await;
    assert_eq!((told.type_.as_deref(), told.involved_object.kind.as_deref()), (Some("Normal"), Some("Pod")));
    assert_eq!(told.involved_object.uid.as_deref(), Some("pod-1"));
    let warned = place.event("NoQuorum").await;
    assert_eq!(warned.type_.as_deref(), Some("Warning"));
    let all = place.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 2, "the same words are said once");
    place.end().await;
}
