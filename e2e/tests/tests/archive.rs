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
