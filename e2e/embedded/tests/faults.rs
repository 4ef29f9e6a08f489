//! What can be made to go wrong, and what a client sees of it.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

mod local;
mod serving;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{PostParams, WatchEvent, WatchParams};
use local::Local;
use pgconvoy_embedded::http::{Fault, Rule};
use std::time::{Duration, Instant};

fn rule(user: &str, method: &str, fault: Fault) -> Rule {
    Rule { user: user.into(), method: method.into(), path: String::new(), skip: 0, times: None, fault }
}

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

#[test]
fn requests_are_slow_refused_or_lost() {
    let local = Local::start();
    local.run(async {
        let maps = |user: &str| -> Api<ConfigMap> { Api::namespaced(local.client(user), "default") };
        let (anna, bert) = (maps("anna"), maps("bert"));
        let now = PostParams::default();

        local.server.set_faults(vec![Rule { skip: 1, times: Some(1), ..rule("anna", "write", Fault::LoseAnswer) }]);
        anna.create(&now, &map("one")).await.unwrap();
        assert_eq!(code(&anna.create(&now, &map("two")).await.unwrap_err()), 0, "there is no answer");
        assert!(bert.get_opt("two").await.unwrap().is_some(), "and yet it was done");
        anna.create(&now, &map("three")).await.unwrap();

        local.server.set_faults(vec![rule("anna", "", Fault::Lose)]);
        assert!(anna.create(&now, &map("four")).await.is_err(), "cut off");
        assert!(anna.get("one").await.is_err());
        assert!(bert.get_opt("four").await.unwrap().is_none(), "nobody else is");

        local.server.set_faults(vec![Rule { times: Some(1), ..rule("", "PUT", Fault::Refuse(409)) }]);
        let there = anna.get("one").await.unwrap();
        assert_eq!(code(&anna.replace("one", &now, &there).await.unwrap_err()), 409);
        anna.replace("one", &now, &there).await.unwrap();

        local.server.set_faults(vec![rule("", "GET", Fault::Delay(300))]);
        let begun = Instant::now();
        bert.get("one").await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(300));
    });
}

#[test]
fn watches_break_off_and_what_was_is_forgotten() {
    let local = Local::start();
    local.run(async {
        use futures::StreamExt as _;
        let maps: Api<ConfigMap> = Api::namespaced(local.client("anna"), "default");
        let first = maps.create(&PostParams::default(), &map("one")).await.unwrap();
        let revision = first.metadata.resource_version.unwrap();
        let mut stream = maps.watch(&WatchParams::default(), &revision).await.unwrap().boxed();
        maps.create(&PostParams::default(), &map("two")).await.unwrap();
        assert!(
            matches!(stream.next().await, Some(Ok(WatchEvent::Added(m))) if m.metadata.name.as_deref() == Some("two"))
        );
        local.server.cut_watches();
        assert!(tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().is_none());
        local.server.with(|a| a.compact());
        let mut stream = maps.watch(&WatchParams::default(), &revision).await.unwrap().boxed();
        assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Error(status))) if status.code == 410));
    });
}
