//! The end of the tour: a stock kubectl at work, and what to try next.

use super::sql::Sql;
use super::steps::{SET, title};
use super::{Context, machine};
use crate::postgres::{LIBRARY_PATH, libraries};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// For kubectl, which is not ours.
const LIMIT: Duration = Duration::from_secs(20);

/// Shows what a stock kubectl says of the cluster, if there is one.
pub(super) async fn kubectl(context: &Context) {
    title("7. Any kubectl works on it");
    println!("  $ export KUBECONFIG={}", context.kubeconfig.display());
    let Some(program) = machine::which("kubectl") else {
        println!("  There is none on this machine; what you saw above, the tour asked of the API by itself.");
        return;
    };
    println!("  $ kubectl get pgrs,pgsnap,pods");
    let mut command = Command::new(program);
    command.args(["get", "pgrs,pgsnap,pods", "--request-timeout=10s"]).env("KUBECONFIG", &context.kubeconfig);
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(Ok(done)) => {
            let text = if done.status.success() { done.stdout } else { done.stderr };
            String::from_utf8_lossy(&text).lines().for_each(|l| println!("  {l}"));
        }
        other => println!("  kubectl did not answer: {other:?}"),
    }
}

/// What whoever looks on can do now.
pub(super) fn say(context: &Context, sql: &Sql) {
    let addresses = context.addresses.borrow();
    let at = |s: &str| addresses.get(&format!("default/{SET}-{s}")).copied();
    let bin = &context.postgres.bin;
    let libraries = libraries(bin).map(|l| format!("{LIBRARY_PATH}={l} ")).unwrap_or_default();
    let psql = match machine::which("psql") {
        Some(_) => "psql".to_owned(),
        None => format!("{libraries}{}", bin.join("psql").display()),
    };
    print!(
        "{}",
        text(
            &context.kubeconfig.display().to_string(),
            &sql.file.display().to_string(),
            &psql,
            at("rw"),
            machine::which("kubectl").is_some()
        )
    );
}

fn text(kubeconfig: &str, services: &str, psql: &str, rw: Option<SocketAddr>, kubectl: bool) -> String {
    let at = rw.map(|a| format!("     # {a}; ro and r are the followers and all")).unwrap_or_default();
    let without = if kubectl { "" } else { "\n  (There is no kubectl on this machine; any version's will do.)" };
    format!(
        "The cluster is yours until Ctrl-C. In another terminal:{without}

  export KUBECONFIG={kubeconfig} PGSERVICEFILE={services}
  {psql} service=rw{at}
  kubectl get pgrs,pgterms,pods
  kubectl describe pgrs {SET}
  kubectl logs -f {SET}-1 -c postgres
  kubectl scale pgrs/{SET} --replicas=5
  kubectl delete pod $(kubectl get pgrs {SET} -o jsonpath='{{.status.leader}}')     # a planned change of leader
  kubectl apply -f examples/two-members.yaml     # another set

"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn what_is_said_has_the_lines_to_paste() {
        let text = text("/d/kubeconfig", "/d/s.conf", "psql", "127.96.0.11:5432".parse().ok(), false);
        assert!(text.contains("export KUBECONFIG=/d/kubeconfig PGSERVICEFILE=/d/s.conf\n"), "{text}");
        assert!(text.contains("psql service=rw     # 127.96.0.11:5432;"), "{text}");
        assert!(text.contains("no kubectl on this machine"), "{text}");
        assert!(!super::text("k", "s", "psql", None, true).contains("no kubectl"));
    }
}
