//! The program as a person runs it, where no cluster is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(args: &[&str], environment: &[(&str, &str)]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-pgconvoy"));
    // Nothing of the machine's own access to a cluster.
    command.env_clear().env("HOME", "/nonexistent").envs(environment.iter().copied()).args(args);
    let output = command.output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A kubeconfig for `server`; deleted by nobody but the build directory's owner.
fn kubeconfig(name: &str, server: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u, namespace: shop}}}}]\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn without_a_kubeconfig_it_says_so() {
    let said = run(&["status", "orders"], &[]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.starts_with("error: there is no kubeconfig: "), "{}", said.err);
    // A file that is named must be there.
    let said = run(&["status", "--kubeconfig", "/nonexistent/config"], &[]);
    assert!(said.code == Some(2) && said.err.contains("/nonexistent/config"), "{}", said.err);
}

#[test]
fn a_context_that_is_not_there_is_named() {
    let file = kubeconfig("context", "http://127.0.0.1:9");
    let said = run(&["status", "--context", "prod"], &[("KUBECONFIG", file.to_str().unwrap())]);
    assert!(said.code == Some(2) && said.err.contains("prod"), "{}", said.err);
}

#[test]
fn an_api_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let file = kubeconfig("refused", &server);
    // Like kubectl, what a list of files names and is not there is passed over.
    let list = format!("/nonexistent/config:{}", file.display());
    let said = run(&["status", "orders"], &[("KUBECONFIG", &list)]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.starts_with(&format!("error: the API server at {server} cannot be reached: ")), "{}", said.err);
    assert!(said.err.contains("refused"), "{}", said.err);
}

/// An API server that answers every request with `body` and `status`.
fn answering(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![];
            let mut chunk = [0; 1024];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                let n = stream.read(&mut chunk).unwrap();
                request.extend_from_slice(&chunk[..n]);
                if n == 0 {
                    break;
                }
            }
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn a_cluster_without_the_custom_resources_is_told() {
    let file = kubeconfig("bare", &answering("404 Not Found", "404 page not found\n"));
    let said = run(&["status"], &[("KUBECONFIG", file.to_str().unwrap())]);
    assert_eq!(said.code, Some(2));
    let sentence = "error: this cluster does not know replica sets: pgconvoy's custom resources are not installed\n";
    assert_eq!(said.err, sentence);
}

#[test]
fn an_empty_namespace_is_no_error() {
    let body = r#"{"apiVersion":"v1","kind":"List","metadata":{},"items":[]}"#;
    let file = kubeconfig("empty", &answering("200 OK", body));
    let environment = [("KUBECONFIG", file.to_str().unwrap())];
    let said = run(&["status"], &environment);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "There is no PgReplicaSet in namespace shop.\n"));
    let said = run(&["status", "-n", "other", "-o", "json"], &environment);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "{\n  \"sets\": []\n}\n"));
}

#[test]
fn what_cannot_be_understood_is_told() {
    let file = kubeconfig("foreign", &answering("200 OK", r#"{"apiVersion":"v1","kind":"Other","items":7}"#));
    let said = run(&["status", "-A"], &[("KUBECONFIG", file.to_str().unwrap())]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.starts_with("error: PgReplicaSets cannot be understood ("), "{}", said.err);
}
