//! WAL is in an object store within a second, whoever leads; what is there is enough to get every row back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Bucket, Client, Door, Namespace, Set, documented, eventually, with_operator};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);

fn lsn(text: &str) -> u64 {
    let (high, low) = text.trim().split_once('/').unwrap();
    (u64::from_str_radix(high, 16).unwrap() << 32) + u64::from_str_radix(low, 16).unwrap()
}

/// A figure of a member.
fn figure(namespace: &Namespace, member: &str, name: &str) -> anyhow::Result<f64> {
    let path = format!("/api/v1/namespaces/{}/pods/{member}:8080/proxy/metrics", namespace.name);
    let text = namespace.kubectl(&["get", "--raw", &path], "")?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.unwrap_or_else(|| panic!("{member} shows no {name}")).parse()?)
}

/// Waits until everything that is flushed now is archived, and says how long that took.
fn archived(set: &Set<'_>, client: &Client<'_>) -> Duration {
    let end = lsn(&client.sql(Door::Writes, "select pg_current_wal_flush_lsn()").unwrap());
    let begin = Instant::now();
    eventually("the archive to follow", SOON, || {
        let at = figure(set.namespace, &set.leader()?, "archive_archived_lsn_bytes")?;
        Ok((at as u64 >= end).then_some(()))
    })
    .unwrap();
    begin.elapsed()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A stock PostgreSQL in a pod, on the data directory and the WAL that lie in `work`, restored to `timeline`.
fn restored(namespace: &Namespace, work: &Path, timeline: i64, sql: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "stock" },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": { "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999 },
            "containers": [{
                "name": "postgres", "image": "docker.io/library/postgres:17", "imagePullPolicy": "Never",
                "command": ["sleep", "infinity"], "volumeMounts": [{ "name": "r", "mountPath": "/r" }],
            }],
            "volumes": [{ "name": "r", "emptyDir": {} }],
        },
    });
    namespace.kubectl(&["create", "-f", "-"], &pod.to_string()).unwrap();
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/stock"], "").unwrap();
    let pid = namespace.cluster().process(&namespace.name, "stock", None).unwrap();
    let inside = format!("/proc/{pid}/root/r/");
    run("cp", &["-a", work.join("data").to_str().unwrap(), work.join("wal").to_str().unwrap(), &inside]);
    run("chown", &["-R", "999:999", &format!("{inside}data"), &format!("{inside}wal")]);
    let conf = format!(
        "unix_socket_directories = '/r'\nlisten_addresses = ''\nhot_standby = on\nmax_connections = 200\n\
         max_wal_senders = 30\nrestore_command = 'cp /r/wal/%f %p'\nrecovery_target_timeline = '{timeline}'\n\
         recovery_target_action = promote\n"
    );
    let shell = format!(
        "cd /r/data && rm -f standby.signal postmaster.pid && touch recovery.signal && chmod 700 . && \
         printf '{}' > /r/c.conf && echo 'local all all trust' > /r/hba.conf && \
         pg_ctl -D /r/data -w -t 120 -l /r/log -o '-c config_file=/r/c.conf -c hba_file=/r/hba.conf -c data_directory=/r/data' \
         start > /dev/null || {{ cat /r/log >&2; exit 1; }}",
        conf.replace('\n', "\\n").replace('\'', "'\\''").replace('%', "%%")
    );
    namespace.kubectl(&["exec", "stock", "--", "sh", "-c", &shell], "").unwrap();
    let ask = ["exec", "stock", "--", "psql", "-h", "/r", "-U", "postgres", "-d", "app", "-XAtc"];
    eventually("the end of recovery", SOON, || {
        let out = namespace.kubectl(&[&ask[..], &["select not pg_is_in_recovery()"]].concat(), "")?;
        Ok((out.trim() == "t").then_some(()))
    })
    .unwrap();
    namespace.kubectl(&[&ask[..], &[sql]].concat(), "").unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn every_row_older_than_a_second_comes_back_by_stock_tools_also_after_the_leader_was_killed() {
    let namespace = with_operator("archive").unwrap();
    let bucket = Bucket::start(&namespace).unwrap();
    let set = namespace.apply("orders", &json!({ "members": 3, "archive": { "ref": { "name": "s3" } } })).unwrap();
    set.ready(3, LATER).unwrap();
    set.says("Archiving", "True", "Archiving", &[], SOON).unwrap();
    let client = Client::start(&set).unwrap();
    let leader = set.leader().unwrap();

    // A base backup as anybody could take it.
    let take = "pg_basebackup -h /run/pgconvoy -U postgres -D /var/lib/pgconvoy/base -X none -c fast -l test 2>&1";
    namespace.kubectl(&["exec", &leader, "-c", "postgres", "--", "sh", "-c", take], "").unwrap();
    let work = std::env::temp_dir().join(format!("stock-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    let pid = namespace.cluster().process(&namespace.name, &leader, Some("postgres")).unwrap();
    let base = format!("/proc/{pid}/root/var/lib/pgconvoy/base");
    run("cp", &["-a", &base, work.join("data").to_str().unwrap()]);

    client.start_writing().unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        slowest = slowest.max(archived(&set, &client));
    }
    println!("measured: archived, all that was flushed: after {:.1} s at most", slowest.as_secs_f64());
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");

    let epoch = set.epoch().unwrap();
    let kill = "kill -9 $(head -n 1 /var/lib/pgconvoy/pgdata/postmaster.pid)";
    namespace.kubectl(&["exec", &leader, "-c", "postgres", "--", "sh", "-c", kill], "").unwrap();
    eventually("a later epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    let before = client.written().unwrap();
    eventually("writes in it", SOON, || Ok((client.written()? > before + 20).then_some(()))).unwrap();
    set.says("Archiving", "True", "Archiving", &[], SOON).unwrap();
    let tally = client.stop_writing().unwrap();
    assert_eq!(tally.lost, 0, "{tally:?}");
    let wanted = client.sql(Door::Writes, "select count(*), coalesce(sum(n), 0) from writes").unwrap();
    let last = archived(&set, &client);
    println!("measured: {tally:?}; archived after the last write: {:.1} s", last.as_secs_f64());
    // The next leader went on in a folder of its own, and completed the old one's.
    let system = bucket.system("orders").unwrap();
    let claims = std::fs::read_dir(&system).unwrap().count();
    assert!(claims >= 2, "{claims} epochs in {}", system.display());
    documented("unpack", &[&system, &work.join("wal")]).unwrap();
    let newest = set.epoch().unwrap();
    let found = restored(&namespace, &work, newest, "select count(*), coalesce(sum(n), 0) from writes");
    std::fs::remove_dir_all(&work).unwrap();
    assert_eq!(found, wanted, "every acknowledged row, and no other");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn what_is_missing_is_said_an_archive_comes_and_goes_and_a_store_that_is_away_stops_nobody() {
    let namespace = with_operator("archive-away").unwrap();
    let set = namespace.apply("orders", &json!({ "members": 1, "archive": { "ref": { "name": "s3" } } })).unwrap();
    set.says("Archiving", "False", "NoArchive", &["PgArchive s3"], SOON).unwrap();
    set.ready(1, LATER).unwrap();
    let pods = set.pods().unwrap();
    let bucket = Bucket::start(&namespace).unwrap();
    set.says("Archiving", "True", "Archiving", &[], SOON).unwrap();
    let client = Client::start(&set).unwrap();
    archived(&set, &client);

    namespace.kubectl(&["delete", "service", "s3"], "").unwrap();
    namespace.kubectl(&["delete", "pod", "s3", "--force", "--grace-period=0"], "").unwrap();
    client.sql(Door::Writes, "create table t as select * from generate_series(1, 1000) n").unwrap();
    let said = set
        .wait("Archiving=False", SOON, |s| {
            let conditions = s["status"]["conditions"].as_array()?;
            let c = conditions.iter().find(|c| c["type"] == "Archiving" && c["status"] == "False")?;
            Some(format!("{}: {}", c["reason"], c["message"]))
        })
        .unwrap();
    println!("measured: without a store: {said}");
    assert!(said.contains("backups"), "{said}");
    client.sql(Door::Writes, "insert into t select * from generate_series(1, 1000) n").unwrap();

    // Another key of the Secret, by mistake; then none at all.
    bucket
        .archive(
            "s3",
            &json!({ "credentials": {
            "accessKeyId": { "name": "s3", "key": "id" }, "secretAccessKey": { "name": "s3", "key": "sceret" } } }),
        )
        .unwrap();
    set.says("Archiving", "False", "NoArchiveSecret", &["Secret s3", "sceret"], SOON).unwrap();
    set.patch(&json!({ "archive": null })).unwrap();
    eventually("no condition of an archive", SOON, || {
        let set = set.get()?;
        let conditions = set["status"]["conditions"].as_array().into_iter().flatten();
        Ok((!conditions.into_iter().any(|c| c["type"] == "Archiving")).then_some(()))
    })
    .unwrap();
    let leader = set.leader().unwrap();
    let slots = "select count(*) from pg_replication_slots where slot_name = 'pgconvoy_archive'";
    client.gives(Door::Writes, slots, "0", SOON).unwrap();
    assert!(figure(&namespace, &leader, "archive_shipping").unwrap() < 0.5);
    assert_eq!(set.pods().unwrap(), pods, "no pod was made anew for any of it");
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_set_that_is_gone_with_its_volumes_comes_back_out_of_the_archive() {
    let namespace = with_operator("archive-gone").unwrap();
    let _bucket = Bucket::start(&namespace).unwrap();
    let archive = json!({ "ref": { "name": "s3" } });
    let set = namespace.apply("orders", &json!({ "members": 3, "archive": archive })).unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    client.start_writing().unwrap();
    let snapshot = json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshot", "metadata": { "name": "first" }, "spec": { "set": "orders" },
    });
    namespace.kubectl(&["create", "-f", "-"], &snapshot.to_string()).unwrap();
    let taken = eventually("a snapshot", LATER, || {
        let status = namespace.get(&["pgsnap", "first"])?["status"].clone();
        assert_ne!(status["phase"], "Failed", "{status}");
        Ok((status["phase"] == "Completed").then_some(status))
    })
    .unwrap();
    println!("measured: {taken}");
    assert_ne!(taken["member"], set.leader().unwrap().as_str(), "a follower takes it");
    // More, in another epoch: the leader is killed.
    let (epoch, leader) = (set.epoch().unwrap(), set.leader().unwrap());
    let kill = "kill -9 $(head -n 1 /var/lib/pgconvoy/pgdata/postmaster.pid)";
    namespace.kubectl(&["exec", &leader, "-c", "postgres", "--", "sh", "-c", kill], "").unwrap();
    eventually("a later epoch", SOON, || Ok((set.epoch()? > epoch).then_some(()))).unwrap();
    let before = client.written().unwrap();
    eventually("writes in it", SOON, || Ok((client.written()? > before + 20).then_some(()))).unwrap();
    set.says("Archiving", "True", "Archiving", &[], SOON).unwrap();

    // Everything goes while it is written; what was acknowledged more than a second before must come back.
    let outside = client.seen_from_outside().unwrap();
    let mut older = 0;
    for _ in 0..6 {
        older = outside.written().unwrap();
        std::thread::sleep(Duration::from_millis(500));
    }
    let pods: Vec<String> = set.pods().unwrap().into_keys().collect();
    let names: Vec<&str> = pods.iter().map(String::as_str).collect();
    namespace.kubectl(&[&["delete", "pod", "--force", "--grace-period=0"], &names[..]].concat(), "").unwrap();
    namespace.kubectl(&["delete", "pgrs", "orders", "--wait=true", "--timeout=60s"], "").unwrap();
    eventually("no volume", SOON, || Ok(set.claims()?.is_empty().then_some(()))).unwrap();
    println!("measured: {older} rows were acknowledged more than half a second before everything was deleted");

    let from = json!({ "ref": { "name": "s3" }, "prefix": format!("{}/orders", namespace.name) });
    let begin = Instant::now();
    let again = namespace
        .apply("again", &json!({ "members": 3, "archive": archive, "bootstrap": { "fromArchive": from } }))
        .unwrap();
    again.ready(3, LATER).unwrap();
    println!("measured: a new set of three out of the archive is Ready after {:.1} s", begin.elapsed().as_secs_f64());
    let reader = Client::start(&again).unwrap();
    let rows: usize = reader.sql(Door::Writes, "select count(distinct n) from writes").unwrap().parse().unwrap();
    assert!(rows >= older, "{rows} rows of {older} came back");
    assert_eq!(again.epoch().unwrap(), 1);
    // It archives on its own, under its own name, and the old archive is as it was.
    again.says("Archiving", "True", "Archiving", &[], SOON).unwrap();
    reader.sql(Door::Writes, "insert into writes values (-1)").unwrap();
    archived(&again, &reader);
}

/// `kubectl pgconvoy <args>`, run by kubectl as it would be for a person: exit status, what it printed, and what it complained of.
fn plugin(namespace: &Namespace, args: &[&str]) -> (i32, String, String) {
    let here = std::env::current_exe().unwrap();
    let folder = here.ancestors().nth(2).unwrap();
    assert!(folder.join("kubectl-pgconvoy").is_file(), "cargo build -p kubectl-pgconvoy comes first");
    let script = r#"PATH="$0:$PATH"; kubectl pgconvoy "$@"; echo "exit $?" >&2"#;
    let head = ["-c", script, folder.to_str().unwrap()];
    let run = [&head[..], args, &["-n", &namespace.name]].concat();
    let output = namespace.cluster().bed().run("sh", &run, "").unwrap();
    let (complaints, code) = output.stderr.trim_end().rsplit_once("exit ").unwrap();
    println!("measured: kubectl pgconvoy {}\n{}", args.join(" "), output.stdout);
    (code.parse().unwrap(), output.stdout, complaints.to_owned())
}

/// A set of one member out of the archive of `orders`, up to a target.
fn targeted<'a>(namespace: &'a Namespace, name: &str, snapshot: Option<&str>, target: &serde_json::Value) -> Set<'a> {
    let mut from = json!({ "ref": { "name": "s3" }, "prefix": format!("{}/orders", namespace.name), "target": target });
    if let Some(snapshot) = snapshot {
        from["snapshot"] = json!(snapshot);
    }
    namespace.apply(name, &json!({ "members": 1, "bootstrap": { "fromArchive": from } })).unwrap()
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn a_schedule_takes_snapshots_a_set_comes_back_at_any_target_and_retention_removes_what_is_old() {
    let namespace = with_operator("archive-kept").unwrap();
    let _bucket = Bucket::start(&namespace).unwrap();
    let set = namespace.apply("orders", &json!({ "members": 1, "archive": { "ref": { "name": "s3" } } })).unwrap();
    let schedule = |spec: serde_json::Value| {
        let object = json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshotSchedule",
            "metadata": { "name": "minutely" }, "spec": spec });
        namespace.kubectl(&["apply", "-f", "-"], &object.to_string()).unwrap();
    };
    let says = |reason: &str, words: &str| {
        eventually(&format!("the schedule to say {reason}"), SOON, || {
            let c = namespace.get(&["pgsched", "minutely"])?["status"]["conditions"][0].clone();
            Ok((c["reason"] == reason && c["message"].as_str().unwrap_or("").contains(words)).then_some(()))
        })
        .unwrap();
    };
    let refused = |kind: &str, spec: serde_json::Value, words: &str| {
        let object =
            json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": kind, "metadata": { "name": "bad" }, "spec": spec });
        let output = namespace.try_kubectl(&["create", "-f", "-"], &object.to_string()).unwrap();
        assert!(output.stderr.contains(words), "{}", output.stderr);
    };
    refused(
        "PgSnapshotSchedule",
        json!({ "set": "orders", "schedule": "every day" }),
        "schedule is five fields of cron",
    );
    refused(
        "PgSnapshotSchedule",
        json!({ "set": "orders", "schedule": "@daily", "timeZone": "+02:00" }),
        "IANA database",
    );
    let keys = json!({ "accessKeyId": { "name": "a", "key": "b" }, "secretAccessKey": { "name": "a", "key": "b" } });
    let keeping = |retention| json!({ "bucket": "backups", "credentials": keys, "retention": retention });
    refused("PgArchive", keeping(json!({})), "retention says days, snapshots or both");
    refused("PgArchive", keeping(json!({ "snapshots": 0 })), "the newest complete snapshot is never removed");
    schedule(json!({ "set": "nobody", "schedule": "0 2 * * *" }));
    says("NoSet", "there is no PgReplicaSet nobody");
    schedule(json!({ "set": "orders", "schedule": "0 2 * * *", "timeZone": "Mars/Olympus" }));
    says("ScheduleInvalid", "Mars/Olympus");
    schedule(json!({ "set": "orders", "schedule": "* * * * *", "timeZone": "Europe/Berlin" }));
    set.ready(1, LATER).unwrap();
    set.says("Archiving", "True", "Archiving", &[], SOON).unwrap();
    let client = Client::start(&set).unwrap();

    let (code, out, err) = plugin(&namespace, &["backup", "orders", "--wait=120", "--name", "first"]);
    assert!(code == 0 && out.contains("complete: "), "{out}{err}");
    let sql = |sql: &str| client.sql(Door::Writes, sql).unwrap().trim().to_owned();
    let superuser = |pod: &str, sql: &str| {
        let psql = ["exec", pod, "-c", "postgres", "--", "psql", "-h", "/run/pgconvoy", "-U", "postgres", "-d", "app"];
        namespace.kubectl(&[&psql[..], &["-XAtc", sql]].concat(), "").unwrap()
    };
    // Each target is the last thing that its set may know of.
    sql("create table t (n serial, what text)");
    sql("insert into t (what) values ('time')");
    std::thread::sleep(Duration::from_millis(1200));
    let time = sql("select now()");
    std::thread::sleep(Duration::from_millis(1200));
    sql("insert into t (what) values ('lsn')");
    let position = sql("select pg_current_wal_flush_lsn()");
    let xid = sql("insert into t (what) values ('xid') returning pg_current_xact_id()");
    let xid = xid.lines().next().unwrap().to_owned();
    sql("insert into t (what) values ('name')");
    superuser("orders-1", "select pg_create_restore_point('noon')");
    sql("insert into t (what) values ('after')");
    archived(&set, &client);
    let (code, out, err) = plugin(&namespace, &["backup", "orders", "--wait=120", "--name", "second"]);
    assert_eq!(code, 0, "{out}{err}");

    // What cannot be reached is said, with what can.
    let range = "what can be reached begins with snapshot first (0/";
    let bad = [
        ("early", None, json!({ "time": "2020-01-01 00:00:00+00" }), "is earlier than the oldest snapshot"),
        ("late", None, json!({ "time": "2100-01-01 00:00:00+00" }), "is later than anything that is archived"),
        ("low", None, json!({ "lsn": "0/100" }), "lies before the oldest snapshot is consistent"),
        ("high", None, json!({ "lsn": "FF/0" }), "lies behind the end of what is archived"),
        ("never", Some("first"), json!({ "name": "midnight" }), "target.name midnight did not come in the WAL between"),
    ];
    let begin = Instant::now();
    let good = [
        ("by-time", None, json!({ "time": time }), "time"),
        ("by-lsn", None, json!({ "lsn": position }), "time,lsn"),
        ("by-xid", Some("first"), json!({ "xid": xid }), "time,lsn,xid"),
        ("by-name", Some("first"), json!({ "name": "noon" }), "time,lsn,xid,name"),
    ];
    let sets: Vec<Set<'_>> = good.iter().map(|(name, s, target, _)| targeted(&namespace, name, *s, target)).collect();
    let refused: Vec<Set<'_>> = bad.iter().map(|(name, s, target, _)| targeted(&namespace, name, *s, target)).collect();
    for (set, (name, _, _, words)) in refused.iter().zip(&bad) {
        let said = set
            .wait(&format!("{name} to say why not"), LATER, |s| {
                let text = s["status"].to_string();
                text.contains(words).then_some(text)
            })
            .unwrap();
        assert!(said.contains(range), "{name}: {said}");
        namespace.kubectl(&["delete", "pgrs", name, "--wait=false"], "").unwrap();
    }
    for (set, (name, _, _, wanted)) in sets.iter().zip(&good) {
        set.ready(1, LATER).unwrap();
        let found = superuser(&format!("{name}-1"), "select string_agg(what, ',' order by n) from t");
        assert_eq!(found.trim(), *wanted, "{name}");
    }
    println!("measured: four sets at their targets and five refused after {:.1} s", begin.elapsed().as_secs_f64());

    // The schedule has made its own meanwhile, and stops when it is told.
    let made = eventually("a snapshot by the schedule", LATER, || {
        let status = namespace.get(&["pgsched", "minutely"])?["status"].clone();
        Ok(status["lastCompletedTime"].is_string().then_some(status))
    })
    .unwrap();
    let last = made["lastSnapshot"].as_str().unwrap();
    assert!(last.starts_with("minutely-2"), "{made}");
    schedule(json!({ "set": "orders", "schedule": "* * * * *", "timeZone": "Europe/Berlin", "suspend": true }));
    says("Suspended", "spec.suspend is true");

    let (code, out, err) = plugin(&namespace, &["archive", "expire", "orders", "--dry-run", "--snapshots", "1"]);
    assert!(code == 0 && out.starts_with("would go: snapshots first"), "{out}{err}");
    let (code, out, err) = plugin(&namespace, &["archive", "ls", "orders"]);
    assert!(code == 0 && out.contains("first") && out.contains("no retention"), "{out}{err}");
    let secret = "root-secret";
    assert!(!out.contains(secret) && !err.contains(secret));
    let retention = json!({ "spec": { "retention": { "snapshots": 1 } } }).to_string();
    namespace.kubectl(&["patch", "pgarc", "s3", "--type=merge", "-p", &retention], "").unwrap();
    eventually("the first snapshot to be removed", LATER, || {
        let phase = namespace.get(&["pgsnap", "first"])?["status"]["phase"].clone();
        Ok((phase == "Expired").then_some(()))
    })
    .unwrap();
    let entry = eventually("what stays to be told", SOON, || {
        let entry = namespace.get(&["pgarc", "s3"])?["status"]["sets"][0].clone();
        Ok((entry["snapshots"] == 1).then_some(entry))
    })
    .unwrap();
    println!("measured: {entry}");
    assert!(entry["removed"].as_str().unwrap().contains("snapshots first"), "{entry}");
    let (code, out, err) = plugin(&namespace, &["archive", "verify", "orders", "--deep"]);
    assert!(code == 0 && out.contains("good, up to"), "{out}{err}");
    let (code, out, err) = plugin(&namespace, &["archive", "show-range", "orders"]);
    assert!(code == 0 && out.starts_with("from   0/"), "{out}{err}");
    let oldest = out.split_whitespace().nth(4).unwrap();
    assert_eq!(entry["oldest"], oldest, "{out}");
    // What is left is enough, and archiving goes on as before.
    let (_, yaml, _) = plugin(&namespace, &["restore", "orders", "--to", "whole"]);
    namespace.kubectl(&["apply", "-f", "-"], &yaml).unwrap();
    let whole = Set { namespace: &namespace, name: "whole".to_owned() };
    whole.ready(1, LATER).unwrap();
    let reader = Client::start(&whole).unwrap();
    assert_eq!(reader.sql(Door::Writes, "select count(*) from t").unwrap().trim(), "5");
    sql("insert into t (what) values ('more')");
    archived(&set, &client);
}
