//! A replica set of real PostgreSQLs, without a cluster: up, written to, a follower lost and back, and nothing left.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

mod bed;

use bed::Bed;
use std::time::Duration;

const READY: Duration = Duration::from_secs(120);

#[test]
fn a_set_comes_up_takes_writes_and_gets_a_follower_back() {
    let Some(bed) = Bed::up(&[]) else { return };
    let begun = std::time::Instant::now();
    bed.apply("examples/quickstart.yaml");
    bed.wait_ready("quickstart", "3/3", READY);
    println!("measured: a set of three on the embedded cluster is Ready after {:.1} s", begun.elapsed().as_secs_f64());

    let write = "create table if not exists t (a int primary key); insert into t values (42) on conflict do nothing";
    bed.wait(READY, "a write", || bed.sql("quickstart", "rw", write).ok());
    let read = bed.wait(READY, "the row on a follower", || {
        bed.sql("quickstart", "ro", "select a, pg_is_in_recovery() from t").ok().filter(|r| r.contains("42"))
    });
    assert_eq!(read, "42|t");
    let refused = bed.sql("quickstart", "ro", "insert into t values (1)").unwrap_err();
    assert!(refused.contains("read-only"), "{refused}");

    let set = bed.get("pgreplicasets", "quickstart").unwrap();
    let members = set["status"]["memberStates"].as_array().unwrap().clone();
    let follower = members.iter().find(|m| m["role"] == "Follower").unwrap()["name"].as_str().unwrap().to_owned();
    let uid = bed.get("pods", &follower).unwrap()["metadata"]["uid"].clone();
    bed.delete("pods", &follower);
    bed.wait(READY, "another pod of that name", || {
        bed.get("pods", &follower).filter(|p| p["metadata"]["uid"] != uid).map(drop)
    });
    bed.wait_ready("quickstart", "3/3", READY);
    // One that gives up is tried again: the machine may have little time for it.
    let rows = bed.wait(READY, "the rows", || bed.sql("quickstart", "rw", "select count(*) from t").ok());
    assert_eq!(rows, "1");

    // The leader's death is a failover, and what was acknowledged is there.
    let leader = bed.get("pgreplicasets", "quickstart").unwrap()["status"]["leader"].as_str().unwrap().to_owned();
    bed.delete("pods", &leader);
    bed.wait(READY, "another leader", || {
        let set = bed.get("pgreplicasets", "quickstart")?;
        (set["status"]["leader"].is_string() && set["status"]["leader"] != *leader).then_some(())
    });
    bed.wait(READY, "the row in the next epoch", || {
        bed.sql("quickstart", "rw", "select a from t").ok().filter(|r| r == "42")
    });

    // Owners take what they own with them; volumes stay, as the spec says.
    bed.delete("pgreplicasets", "quickstart");
    bed.wait(READY, "no pods", || bed.list("pods").is_empty().then_some(()));
    bed.wait(READY, "no terms", || bed.list("pgterms").is_empty().then_some(()));
    bed.nothing_was_asked_in_vain();
}

#[test]
fn nothing_outlives_a_killed_cluster() {
    let Some(bed) = Bed::up(&[]) else { return };
    bed.apply("examples/quickstart.yaml");
    bed.wait(READY, "three running pods", || {
        (bed.list("pods").iter().filter(|p| p["status"]["phase"] == "Running").count() == 3).then_some(())
    });
    let before = bed.processes();
    assert!(before.len() > 10, "{before:?}");
    let (directory, uid) = bed.kill();
    let mut left = vec![];
    for _ in 0..100 {
        left = bed::processes_of(uid);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(left, Vec::<String>::new());
    // Its directory goes when the next one starts.
    let Some(next) = Bed::up(&["--no-operator"]) else { return };
    assert!(!directory.exists(), "{} stays behind", directory.display());
    let own = next.directory();
    drop(next);
    assert!(!own.exists(), "{} stays behind after an orderly end", own.display());
}
