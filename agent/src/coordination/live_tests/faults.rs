//! A server that is silent or away.

use super::*;

/// Stands between us and the API server, and can hold back what it says or break every connection.
struct Between {
    address: std::net::SocketAddr,
    state: watch::Sender<Road>,
}

#[derive(Clone, Copy, PartialEq)]
enum Road {
    Open,
    /// What we say arrives, what the server answers does not. Connections stay.
    AnswersHeld,
    /// Connections are closed, new ones too.
    Closed,
}

impl Between {
    async fn new(server: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, roads) = watch::channel(Road::Open);
        tokio::spawn(async move {
            loop {
                let (ours, _) = listener.accept().await.unwrap();
                let (server, mut road) = (server.clone(), roads.clone());
                tokio::spawn(async move {
                    let theirs = tokio::net::TcpStream::connect(server).await.unwrap();
                    let (mut from_us, mut to_us) = ours.into_split();
                    let (mut from_them, mut to_them) = theirs.into_split();
                    let there = tokio::io::copy(&mut from_us, &mut to_them);
                    let mut open = road.clone();
                    let back = async {
                        let mut piece = vec![0; 16_384];
                        loop {
                            let n = tokio::io::AsyncReadExt::read(&mut from_them, &mut piece).await.unwrap_or(0);
                            if n == 0 {
                                return;
                            }
                            open.wait_for(|r| *r == Road::Open).await.unwrap();
                            tokio::io::AsyncWriteExt::write_all(&mut to_us, &piece[..n]).await.unwrap();
                        }
                    };
                    tokio::select! {
                        _ = there => {}
                        () = back => {}
                        _ = road.wait_for(|r| *r == Road::Closed) => {}
                    }
                });
            }
        });
        Self { address, state }
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_server_that_is_silent_or_away_is_noticed_and_found_again() {
    let place = Place::new("faults").await;
    let mut config = kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{}:orders", place.namespace));
    let server = config.cluster_url.authority().unwrap().to_string();
    let between = Between::new(server).await;
    config.cluster_url = format!("https://{}/", between.address).parse().unwrap();
    config.accept_invalid_certs = true;
    let clients = Clients::with(config).unwrap();
    let client = TermClient::new(clients.coordination.clone(), &place.member(1), place.events(1));
    let direct = TermClient::new(place.clients.coordination.clone(), &place.member(2), place.events(2));
    let (registers, mut seen) = mpsc::channel(16);
    let _watch = client.watch(registers, Metrics::default());
    let (want, wanted) = watch::channel(WANTED);
    let (say, mut held) = watch::channel(false);
    let _lease = keep_lease(clients.coordination.clone(), &place.member(1), wanted, say, awake(), Metrics::default());
    until(&mut held, SECOND * 2, |h| *h).await;
    let first = tokio::time::timeout(SECOND * 5, seen.recv()).await.unwrap().unwrap();

    // The write arrives, its answer does not.
    between.state.send(Road::AnswersHeld).unwrap();
    let start = Instant::now();
    assert_eq!(client.swap(&first.version, &term(1)).await, SwapOutcome::Unknown);
    assert!(start.elapsed() < SECOND * 3, "{:?}", start.elapsed());
    assert!(matches!(client.read().await, Err(ApiError::NoAnswer { .. })));
    let opened = direct.read().await.unwrap().0;
    assert_eq!(opened.term, Some(term(1)), "it was done");
    until(&mut held, SECOND * 14, |h| !*h).await;
    println!("a holder without answers gave the Lease up after {:?}", start.elapsed());
    between.state.send(Road::Open).unwrap();
    until(&mut held, SECOND * 5, |h| *h).await;
    assert_eq!(client.swap(&first.version, &term(1)).await, SwapOutcome::Lost, "read again: somebody was there before");

    // Every connection breaks, and the server is away for a while: the watch comes back by itself.
    between.state.send(Road::Closed).unwrap();
    tokio::time::sleep(SECOND * 4).await;
    assert_eq!(client.swap(&opened.version, &term(2)).await, SwapOutcome::Unknown);
    let next = won(direct.swap(&opened.version, &term(2)).await);
    between.state.send(Road::Open).unwrap();
    let start = Instant::now();
    loop {
        let register = tokio::time::timeout(SECOND * 5, seen.recv()).await.unwrap().unwrap();
        if register == next {
            break;
        }
    }
    println!("the watch showed what it had missed {:?} after the server was back", start.elapsed());
    assert!(start.elapsed() < SECOND * 3);
    assert_eq!(client.read().await.unwrap().0, next);
    drop(want);
    place.end().await;
}
