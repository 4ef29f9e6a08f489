//! A replica set of real PostgreSQLs, without a cluster: up, written to, a follower lost and back, and nothing left.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

#[allow(dead_code, reason = "shared with other tests")]
mod bed;
#[path = "bed/readme.rs"]
mod readme;

use bed::Bed;
use bed::tour::Tour;
use nix::sys::signal::Signal;
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
    // Its directory goes soon after it.
    for _ in 0..200 {
        if !directory.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!directory.exists(), "{} stays behind", directory.display());
    let Some(next) = Bed::up(&["--no-operator"]) else { return };
    let own = next.directory();
    drop(next);
    assert!(!own.exists(), "{} stays behind after an orderly end", own.display());
}

/// What the README shows is what one sees.
#[test]
fn the_tour_shows_a_set_that_loses_a_follower_and_its_leader() {
    // Somebody has PostgreSQL's port at every address: a PostgreSQL of the machine, say. If somebody really has, so be it.
    let _taken = std::net::TcpListener::bind("0.0.0.0:5432");
    let begun = std::time::Instant::now();
    let Some(mut tour) = Tour::start(&["--once"]) else { return };
    tour.until("Ready 3/3 after");
    tour.something_is_there();
    tour.until("came back by itself, with its data");
    tour.until("Writes: ");
    let (status, complaint) = tour.end();
    println!("measured: the quick start's tour takes {:.1} s", begun.elapsed().as_secs_f64());
    let said = &tour.said;
    assert!(status.success(), "{status}: {complaint}\n{said}");
    for line in [
        "image: docker.io/library/postgres:17",
        "$ psql service=rw -c \"insert into visits values (1, 'hello from the leader')\"",
        "hello from the leader | t",
        "cannot execute INSERT in a read-only transaction",
        "$ kill -9 ",
        // Another one, unless the one that was killed is back first.
        "leads epoch 2 ",
        "No pod was made anew for it.",
        " in the bucket, complete after ",
        "s after that commit its log lay in the bucket: default/quickstart/",
        "Ready 1/1 after",
        "3 | written after the snapshot",
        "$ export KUBECONFIG=",
        "Gone: its processes, its addresses and /",
    ] {
        assert!(said.contains(line), "{line:?} is missing:\n{said}");
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let missing = readme::missing(&root, said);
    assert_eq!(
        missing, None,
        "the README shows what the tour does not say; record it again (docs/quickstart.md):\n{said}"
    );
    let shipped = said.lines().find(|l| l.contains("its log lay in the bucket")).unwrap();
    println!("measured: {}", shipped.trim());
    // On a terminal only.
    assert!(!said.contains('\u{1b}'), "{said}");
    let writes = said.lines().find(|l| l.contains("Writes: ")).unwrap();
    let numbers: Vec<u32> = writes.split(' ').filter_map(|w| w.trim_end_matches(',').parse().ok()).collect();
    let [acknowledged, _, there] = numbers[..] else { panic!("{writes}: {numbers:?}") };
    assert!(acknowledged > 5 && acknowledged == there, "{writes}");
    println!("measured: {}", writes.trim());
    tour.nothing_is_left(Duration::ZERO);
}

#[test]
fn a_tour_that_is_broken_off_leaves_nothing() {
    for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        let Some(mut tour) = Tour::start(&[]) else { return };
        // Always said, whatever state of a member comes and goes between two looks.
        tour.until("members are attached; waiting for");
        tour.something_is_there();
        tour.signal(signal);
        let (status, complaint) = tour.end();
        assert_eq!(status.code(), code, "{signal}: {complaint}");
        // Who is killed cannot wait for the others.
        tour.nothing_is_left(if code.is_some() { Duration::ZERO } else { Duration::from_secs(10) });
    }
}

#[test]
fn what_is_in_a_tours_way_is_said_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, sentence) in [
        (["--port", &port], "name another port"),
        (["--postgres", "/nowhere"], "/nowhere has no program postgres; 15 to 18 are what it takes"),
        (["--root", "/proc/self"], "run this in a clone of pgconvoy"),
    ] {
        let Some(mut tour) = Tour::start(&arguments) else { return };
        let (status, complaint) = tour.end();
        assert!(!status.success() && complaint.contains(sentence), "{complaint}\n{}", tour.said);
        assert!(complaint.trim().starts_with("./quickstart: "), "{complaint}");
        tour.nothing_is_left(Duration::ZERO);
    }
}
