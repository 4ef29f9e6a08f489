//! What can go wrong, each a sentence.

use std::fmt::Display;
use std::time::Duration;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("this program cannot start its own machinery: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("the kubeconfig cannot be used: {0}; `kubectl config view` shows what it holds")]
    Kubeconfig(String),
    #[error(
        "there is no kubeconfig: neither --kubeconfig nor KUBECONFIG names a file that exists, and ~/.kube/config does not exist"
    )]
    NoKubeconfig,
    #[error("the API server at {server} cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    #[error("the API server at {server} gave no answer within {} s when it was asked for {what}", .patience.as_secs())]
    NoAnswer { server: String, what: String, patience: Duration },
    #[error("{what} cannot be read: {why}")]
    Refused { what: String, why: String },
    #[error("{what} cannot be understood ({why}): this kubectl-pgconvoy is {}, use the one that came with the operator", env!("CARGO_PKG_VERSION"))]
    Foreign { what: String, why: String },
    #[error("this cluster does not know replica sets: pgconvoy's custom resources are not installed")]
    NotInstalled,
    #[error("there is no PgReplicaSet {set} in namespace {namespace}; {}", others(.there))]
    NoSet { set: String, namespace: String, there: Vec<String> },
    #[error("{set} has no member {member}; {}", members(.there))]
    NoMember { set: String, member: String, there: Vec<String> },
    #[error("{set} has no leader now: {why}; --member NAME reaches a member all the same")]
    NoLeader { set: String, why: String },
    #[error("{set} has no follower that is attached and whose pod runs; --member NAME reaches a member all the same")]
    NoFollower { set: String },
    #[error(
        "{member} has no pod now: there is nothing to connect to; `kubectl pgconvoy status {set}` says what is waited for"
    )]
    NoPod { set: String, member: String },
    #[error("PostgreSQL's container of {member} is not running ({why}): there is nothing to connect to")]
    NotRunning { member: String, why: String },
    #[error("kubectl is not in PATH: psql in a pod is reached through `kubectl exec`")]
    NoKubectl,
    #[error("kubectl cannot be run: {0}")]
    Kubectl(#[source] std::io::Error),
    #[error("{set} has no pods, so there are no logs; `kubectl pgconvoy status {set}` says what is waited for")]
    NoPods { set: String },
    #[error(
        "pgrequest/{name} has not ended within {wait} s ({}); it goes on, and `kubectl get pgrequest {name}` shows it; `kubectl pgconvoy status {set}` says what is waited for",
        if *.taken_up { "it is under way" } else { "no member has taken it up" }
    )]
    NotEnded { name: String, set: String, wait: u64, taken_up: bool },
    #[error("{set} has no archive; name one in spec.archive.ref of the PgReplicaSet")]
    NoArchive { set: String },
    #[error(
        "pgsnapshot/{name} has not ended within {wait} s ({}); it goes on, and `kubectl get pgsnapshot {name}` shows it; `kubectl pgconvoy status {set}` says how the set stands",
        if *.taken_up { "it is under way" } else { "no member has taken it up" }
    )]
    NotTaken { name: String, set: String, wait: u64, taken_up: bool },
    #[error("no log could be read")]
    NoLogs,
    #[error("what was found out cannot be printed: {0}")]
    Print(#[source] std::io::Error),
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
}

fn others(there: &[String]) -> String {
    match there {
        [] => "there is none at all (-n names another namespace)".to_owned(),
        some => format!("there is {}", some.join(", ")),
    }
}

fn members(there: &[String]) -> String {
    match there {
        [] => "it has none yet".to_owned(),
        some => format!("its members are {}", some.join(", ")),
    }
}

impl Problem {
    /// What kube says about a request for `what`, sent to `server`.
    pub(crate) fn of_request(error: &kube::Error, what: impl Display, server: impl Display) -> Self {
        match error {
            // A path that the server does not know is answered by bare text, an object that is not there by a Status.
            kube::Error::Api(status) if status.code == 404 && status.reason != "NotFound" => Self::NotInstalled,
            kube::Error::Api(status) if status.message.is_empty() => Self::Refused {
                what: what.to_string(),
                why: format!("the API server answers with status {}", status.code),
            },
            kube::Error::Api(status) => Self::Refused { what: what.to_string(), why: status.message.clone() },
            kube::Error::SerdeError(why) => Self::Foreign { what: what.to_string(), why: why.to_string() },
            other => Self::Unreachable { server: server.to_string(), why: innermost(other) },
        }
    }
}

/// The last two causes of an error: the outer ones name layers of a library.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut causes = vec![error.to_string()];
    let mut inner = error.source();
    while let Some(cause) = inner {
        causes.push(cause.to_string());
        inner = cause.source();
    }
    // Some repeat what they wrap.
    causes.dedup_by(|inner, outer| {
        outer.ends_with(inner.as_str()) && {
            std::mem::swap(inner, outer);
            true
        }
    });
    let from = causes.len().saturating_sub(2);
    causes.split_off(from).join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn a_cluster_without_the_kinds_is_told_from_a_set_that_is_not_there() {
        let say = |message: &str, reason: &str, code| {
            let status = Status::failure(message, reason).with_code(code);
            Problem::of_request(&kube::Error::Api(status.boxed()), "PgReplicaSet shop/orders", "https://api")
                .to_string()
        };
        insta::assert_snapshot!(
            [
                say("404 page not found", "Failed to parse error data", 404),
                say("pgreplicasets.pgconvoy.dev \"orders\" is forbidden: User \"eve\" cannot get", "Forbidden", 403),
                say("", "", 500),
            ]
            .join("\n")
        );
    }

    #[test]
    fn causes_that_repeat_themselves_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Layer {
            text: String,
            #[source]
            inner: Option<Box<Layer>>,
        }
        let layer = |text: &str, inner| Layer { text: text.to_owned(), inner };
        let refused = layer("Connection refused", None);
        let connect = layer("tcp connect error", Some(Box::new(refused)));
        let service = layer("ServiceError: tcp connect error", Some(Box::new(connect)));
        assert_eq!(innermost(&service), "tcp connect error: Connection refused");
    }
}
