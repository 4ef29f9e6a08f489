//! Keys that are lent for a while: each of the ways, and what is said when nobody lends.
//!
//! The ways are found in the environment, so this program runs itself with another one.

use crate::embedded::limits;
use bytes::Bytes;
use pgconvoy_archive::store::{Config, Credentials, Lender, Put, S3, Store, WebIdentity};
use pgconvoy_e2e_s3::{Lender as Service, Lending, Options, Server};
use std::{
    env,
    path::Path,
    time::{Duration, Instant},
};

const ROLE: &str = "arn:aws:iam::111122223333:role/backups";
const ACCOUNT: &str = "system:serviceaccount:shop:orders";
const WAYS: [&str; 3] = ["web", "pod", "instance"];

/// What a child does: writes objects for so long. Alone it is no test.
#[tokio::test]
async fn as_a_child() {
    let Ok(way) = env::var("PGCONVOY_TEST_WAY") else { return };
    let text = |name: &str| env::var(name).unwrap();
    let lender = match way.as_str() {
        "web" => Lender::WebIdentity(WebIdentity {
            role_arn: ROLE.into(),
            token_file: text("PGCONVOY_TEST_TOKEN").into(),
            account: ACCOUNT.into(),
        }),
        "pod" => Lender::PodIdentity { account: ACCOUNT.into() },
        _ => Lender::InstanceRole,
    };
    let config = Config {
        endpoint: Some(text("PGCONVOY_TEST_STORE")),
        path_style: true,
        prefix: format!("{way}-{}", std::process::id()),
        limits: limits(),
        ..Config::new("backups", "us-east-1", Credentials::Lent(lender))
    };
    let lasts = Duration::from_millis(text("PGCONVOY_TEST_MILLISECONDS").parse().unwrap());
    let (begun, mut written) = (Instant::now(), 0);
    let store = match S3::new(config).await {
        Ok(store) => store,
        Err(error) => return println!("{}: {error}", error.reason().name()),
    };
    loop {
        match store.put_new(&format!("{written}"), Bytes::from_static(b"x")).await {
            Ok(put) => assert_eq!(put, Put::Stored),
            Err(error) => return println!("{} after {written}: {error}", error.reason().name()),
        }
        written += 1;
        if begun.elapsed() >= lasts {
            return println!("written {written}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the child says. `service`: where keys are lent.
async fn child(way: &str, server: &Server, service: &str, token: &Path, lasts: Duration) -> String {
    let output = tokio::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "lent::as_a_child", "--nocapture"])
        .env("PGCONVOY_TEST_WAY", way)
        .env("PGCONVOY_TEST_STORE", server.endpoint())
        .env("PGCONVOY_TEST_TOKEN", token)
        .env("PGCONVOY_TEST_MILLISECONDS", lasts.as_millis().to_string())
        .env("AWS_ENDPOINT_URL_STS", service)
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{service}/lent"))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token)
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", service)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{way}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn written(said: &str) -> u32 {
    let number = said.lines().find_map(|line| line.split("written ").nth(1)?.trim().parse().ok());
    number.unwrap_or_else(|| panic!("{said}"))
}

async fn lending(announced: u64, lives: u64) -> (Server, Service, tempfile::TempDir) {
    let server = Server::start(Options::default()).await.unwrap();
    let seconds = Duration::from_secs;
    let lending = Lending { shown: "pod-token".into(), announced: seconds(announced), lives: seconds(lives) };
    let service = server.lender(lending).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "pod-token").unwrap();
    (server, service, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lent_keys_are_renewed_before_they_expire_and_kept_until_then() {
    let ways = WAYS.map(|way| async move {
        // Said to be good for a minute, and turned away after three seconds: who waits for their end fails.
        let (server, service, dir) = lending(62, 3).await;
        let token = dir.path().join("token");
        let said = child(way, &server, &service.endpoint(), &token, Duration::from_secs(8)).await;
        assert!(written(&said) >= 20, "{way}: {said}");
        assert!(service.lent() >= 3, "{way}: lent {} times", service.lent());

        let (server, service, dir) = lending(3600, 3600).await;
        let token = dir.path().join("token");
        let said = child(way, &server, &service.endpoint(), &token, Duration::from_secs(1)).await;
        assert!(written(&said) >= 3, "{way}: {said}");
        assert_eq!(service.lent(), 1, "{way}: those that are good for an hour are kept");
    });
    futures::future::join_all(ways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_nobody_lends_are_told_with_what_to_do() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let trust = format!("the role {ROLE} is not lent to this pod; its trust policy must allow");
    let cases = [
        ("web", Some((403, "AccessDenied", "Not authorized to perform it")), "NotLent", vec![&trust[..], ACCOUNT]),
        (
            "web",
            Some((400, "InvalidIdentityToken", "No OpenIDConnect provider found")),
            "NotLent",
            vec!["must know this cluster's issuer", "InvalidIdentityToken"],
        ),
        ("web", None, "LenderAway", vec!["no connection to the security token service of us-east-1"]),
        ("pod", Some((400, "", "")), "NotLent", vec!["associate a role with", ACCOUNT, "400"]),
        ("pod", None, "LenderAway", vec!["this pod is given no keys"]),
        ("instance", Some((404, "", "")), "NotLent", vec!["give its instance a role"]),
        ("instance", None, "LenderAway", vec!["cannot be reached from pods", "HttpPutResponseHopLimit"]),
    ];
    let all = cases.into_iter().map(|(way, refuses, reason, words)| {
        let closed = closed.clone();
        async move {
            let (server, service, dir) = lending(3600, 3600).await;
            service.refuse(refuses);
            let at = if refuses.is_some() { service.endpoint() } else { closed };
            let said = child(way, &server, &at, &dir.path().join("token"), Duration::ZERO).await;
            assert!(said.contains(&format!("{reason} after 0: cannot write")), "{way}: {said}");
            assert!(words.iter().all(|w| said.contains(w)), "{way}: {said}");
            assert!(!said.contains("pod-token"), "{way}: {said}");
            assert!(server.keys().is_empty() && service.lent() == 0);
        }
    });
    futures::future::join_all(all).await;

    // A pod that was made before there was a token for it.
    let (server, service, dir) = lending(3600, 3600).await;
    let said = child("web", &server, &service.endpoint(), &dir.path().join("none"), Duration::ZERO).await;
    assert!(said.contains("Configuration: ") && said.contains("a pod that is made anew has it"), "{said}");
}
