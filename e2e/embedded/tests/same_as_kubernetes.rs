//! The same requests to this API server and to Kubernetes' own; the answers are compared.
//!
//! Kubernetes' is the program of the test cluster, with etcd and the controllers that clean up, and nothing else. What
//! differs must be listed in `differences`, with the reason why it may.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

mod compare;
mod serving;

use compare::{differences, requests, sides};

#[test]
#[ignore = "needs Kubernetes' programs, which take ten minutes to build: ./test runs it"]
fn answers_are_those_of_kubernetes() {
    let mut real = sides::Side::kubernetes();
    let mut embedded = sides::Side::embedded();
    let (mut compared, mut found) = (0, vec![]);
    for request in requests::all() {
        let (theirs, ours) = (real.ask(&request), embedded.ask(&request));
        compared += 1;
        found.extend(compare::between(&request.name, &theirs, &ours));
    }
    let mut allowed = differences::LIST.iter().map(|d| (d, false)).collect::<Vec<_>>();
    let mut unknown = vec![];
    for difference in &found {
        let known = allowed.iter_mut().find(|(d, _)| d.covers(difference));
        match known {
            Some((_, seen)) => *seen = true,
            None => unknown.push(difference.to_string()),
        }
    }
    let stale: Vec<_> = allowed.iter().filter(|(_, seen)| !seen).map(|(d, _)| format!("{d:?}")).collect();
    let told = found.len() - unknown.len();
    println!(
        "measured: {compared} answers compared with Kubernetes', {told} differences of {} kinds that may be",
        allowed.len()
    );
    assert!(unknown.is_empty(), "{} differences that are not listed:\n{}", unknown.len(), unknown.join("\n"));
    assert!(stale.is_empty(), "listed, but no longer there:\n{}", stale.join("\n"));
}
