//! `kubectl pgconvoy` on a real set: what it shows, opens and reads.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Cluster, Namespace};
use serde_json::Value;
use std::path::PathBuf;

const SET: &str = "
apiVersion: pgconvoy.dev/v1alpha1
kind: PgReplicaSet
metadata: { name: shown }
spec:
  image: docker.io/library/postgres:17
  members: 3
  storage: { size: 1Gi }
  bootstrap: { initdb: { database: shop } }
";

/// The plugin as this workspace builds it, beside the tests.
fn folder() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let folder = here.ancestors().nth(2).unwrap().to_path_buf();
    assert!(folder.join("kubectl-pgconvoy").is_file(), "cargo build -p kubectl-pgconvoy comes first");
    folder
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

/// `kubectl pgconvoy <args>`, run by kubectl as it would be for a person.
fn plugin(cluster: &Cluster, namespace: &str, args: &[&str], stdin: &str) -> Said {
    let folder = folder();
    let script = r#"PATH="$0:$PATH"; kubectl pgconvoy "$@"; echo "exit $?" >&2"#;
    let head = ["-c", script, folder.to_str().unwrap()];
    let (own, psql) = args.split_at(args.iter().position(|a| *a == "--").unwrap_or(args.len()));
    let output = cluster.bed().run("sh", &[&head[..], own, &["-n", namespace], psql].concat(), stdin).unwrap();
    let (err, code) = output.stderr.trim_end().rsplit_once("exit ").unwrap();
    Said { code: code.parse().unwrap(), out: output.stdout, err: err.to_owned() }
}

#[test]
#[ignore = "needs a cluster"]
fn a_set_is_shown_opened_and_heard() {
    let cluster = Cluster::from_env().unwrap();
    cluster.install_crds().unwrap();
    let namespace = cluster.namespace("plugin").unwrap();
    let ask = |args: &[&str], stdin: &str| plugin(&cluster, &namespace.name, args, stdin);

    let none = ask(&["status"], "");
    assert_eq!((none.code, none.out), (0, format!("There is no PgReplicaSet in namespace {}.\n", namespace.name)));
    let none = ask(&["psql", "shown"], "");
    assert_eq!(none.code, 2);
    assert!(none.err.contains("there is no PgReplicaSet shown in namespace"), "{}", none.err);

    cluster.install_operator().unwrap();
    namespace.kubectl(&["create", "-f", "-"], SET).unwrap();
    let early = ask(&["status", "shown"], "");
    assert_eq!(early.code, 1, "{}{}", early.out, early.err);
    assert!(early.out.contains("not Ready"), "{}", early.out);
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=110s", "pgrs/shown"], "").unwrap();
    // The agents say so at once, the kubelet a probe later; the plugin wants to hear both.
    let pods = ["wait", "--for=condition=Ready", "--timeout=60s", "pod", "-l", "pgconvoy.dev/set=shown"];
    namespace.kubectl(&pods, "").unwrap();

    shown(&ask);
    opened(&ask);
    heard(&ask);
    kept_when_a_pod_goes(&namespace, &ask);

    namespace.kubectl(&["delete", "pgrs", "shown", "--timeout=60s"], "").unwrap();
}

fn shown(ask: &dyn Fn(&[&str], &str) -> Said) {
    let status = ask(&["status", "shown"], "");
    assert_eq!(status.code, 0, "{}{}", status.out, status.err);
    for part in
        ["Ready\n", "Leader      shown-1\n", "Epoch       1, Active\n", "quorum 1 of 2: shown-2, shown-3\n", " LAG "]
    {
        assert!(status.out.contains(part), "no {part:?} in\n{}", status.out);
    }
    assert!(!status.out.contains("no stream") && !status.out.contains("Note"), "{}", status.out);

    let json: Value = serde_json::from_str(&ask(&["status", "shown", "-o", "json"], "").out).unwrap();
    assert_eq!((&json["ready"], &json["leader"]), (&Value::Bool(true), &Value::from("shown-1")));
    assert_eq!(json["members"][2]["lag"]["state"], "streaming", "{json:#}");

    let line = ask(&["status"], "");
    assert_eq!(line.code, 0, "{}", line.out);
    assert!(
        line.out.lines().nth(1).unwrap().starts_with("shown  yes    shown-1  1      Active  quorum 1 of 2"),
        "{}",
        line.out
    );
}

fn opened(ask: &dyn Fn(&[&str], &str) -> Said) {
    let made = ask(&["psql", "shown"], "create table t (n int); insert into t values (42);\n");
    assert_eq!((made.code, made.out.as_str()), (0, "CREATE TABLE\nINSERT 0 1\n"), "{}", made.err);
    // A follower acknowledged it or will have it at once.
    let query = "select n, current_database(), current_user, pg_is_in_recovery() from t";
    let read = |who: &[&str]| ask(&[&["psql", "shown"], who, &["--", "-XAt", "-c", query]].concat(), "");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    for who in [&["--follower"][..], &["--member", "3"][..]] {
        loop {
            let said = read(who);
            if said.out == "42|shop|postgres|t\n" {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{who:?}: {}{}", said.out, said.err);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    assert_eq!(read(&["--member", "shown-1"]).out, "42|shop|postgres|f\n");
    // Psql's own arguments win, its exit status is told.
    assert_eq!(
        ask(&["psql", "shown", "--", "-XAt", "-d", "postgres", "-c", "select current_database()"], "").out,
        "postgres\n"
    );
    assert_eq!(ask(&["psql", "shown", "--", "-v", "ON_ERROR_STOP=1"], "select 1/0;").code, 3);
    let nobody = ask(&["psql", "shown", "--member", "9"], "");
    assert_eq!(nobody.code, 2);
    assert!(nobody.err.contains("shown has no member 9; its members are shown-1, shown-2, shown-3"), "{}", nobody.err);
}

fn heard(ask: &dyn Fn(&[&str], &str) -> Said) {
    let all = ask(&["logs", "shown"], "");
    assert_eq!(all.code, 0, "{}", all.err);
    for part in [
        "[shown-1] ",
        "[shown-2] ",
        "[shown-3] ",
        " INFO  making a new database",
        "]: database system is ready to accept",
    ] {
        assert!(all.out.contains(part), "no {part:?} in\n{}", all.out);
    }
    assert!(!all.out.contains("{\"timestamp\""), "JSON was left as it is");
    let raw = ask(&["logs", "shown", "--raw"], "").out;
    for line in raw.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|l| l["message"].is_string()), "not as it was: {line}");
    }
    // Merged by time: what the agents say of themselves is in order, whosever it is.
    let agents = ask(&["logs", "shown", "--agent", "--member", "1", "--member", "2"], "").out;
    let times: Vec<&str> = agents.lines().filter_map(|l| l.get(10..33)).filter(|t| t.starts_with("20")).collect();
    assert!(times.len() > 10 && agents.contains("[shown-2]") && !agents.contains("[shown-3]"), "{agents}");
    // Written by the agent, stamped by the node: a few milliseconds may lie between.
    let seconds: Vec<&str> = times.iter().map(|t| &t[..19]).collect();
    let turned = seconds.windows(2).filter(|w| w[0] > w[1]).count();
    assert!(turned <= seconds.len() / 20, "{turned} of {} lines are out of order", seconds.len());
    assert_eq!(ask(&["logs", "shown", "--postgres", "--member", "1", "--tail", "2"], "").out.lines().count(), 2);
}

/// A follower's pod is deleted while its log is followed: status tells it, and the new pod's lines come.
fn kept_when_a_pod_goes(namespace: &Namespace, ask: &(dyn Fn(&[&str], &str) -> Said + Sync)) {
    std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            let folder = folder();
            let cluster = Cluster::from_env().unwrap();
            let script =
                r#"PATH="$0:$PATH"; exec timeout 40 kubectl pgconvoy logs shown -f --tail 1 --member 3 -n "$1""#;
            cluster.bed().run("sh", &["-c", script, folder.to_str().unwrap(), &namespace.name], "").unwrap()
        });
        std::thread::sleep(std::time::Duration::from_secs(5));
        namespace.kubectl(&["delete", "pod", "shown-3", "--wait=false"], "").unwrap();
        let mut seen = false;
        for _ in 0..20 {
            let status = ask(&["status", "shown"], "");
            seen |= status.code == 1 && status.out.contains("shown-3: ");
            std::thread::sleep(std::time::Duration::from_millis(250));
        }
        assert!(seen, "a member without its pod was never told");
        let heard = following.join().unwrap().stdout;
        assert!(heard.contains("looked at the volume"), "the new pod's lines did not come:\n{heard}");
        assert!(!heard.contains("[shown-2]"), "{heard}");
    });
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pgrs/shown"], "").unwrap();
}
