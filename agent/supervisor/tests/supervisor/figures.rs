//! A real PostgreSQL at the end of its permission: what clients were told, and when.

use crate::{
    container::{Container, Lateness, SUPERVISOR, figure, until},
    database::{Session, binaries, initdb, up},
    static_binary,
};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{Event, Exit, Permit, Request, Response, Signal},
};
use std::{
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// After T + this much PostgreSQL is gone and has acknowledged its last commit.
const OVERRUN: u64 = 50;
const WRITERS: u64 = 4;

/// What one run showed.
struct Run {
    /// Commits that were acknowledged.
    commits: u64,
    /// When the last one was, from T, in ms.
    last: i64,
    /// When the last client lost its connection, from T, in ms.
    closed: i64,
    /// When nothing was left, from T, in ms.
    gone: i64,
    /// What this machine could be held to, from T, in ms.
    allowed: i64,
}

fn since(at: Boottime, t: Boottime) -> i64 {
    at.0 as i64 - t.0 as i64
}

/// Writes until the connection breaks: the number of commits, the moment of the last one, the moment of the break.
fn write(mut session: Session, writer: u64) -> (u64, Boottime, Boottime) {
    let (mut commits, mut last) = (0, Boottime(0));
    while session.query(&format!("INSERT INTO told VALUES ({writer}, {commits})")).is_ok() {
        last = Boottime::now();
        commits += 1;
    }
    (commits, last, Boottime::now())
}

fn expire(container: &Container, bin: &Path, round: u32) -> Run {
    let (mut client, mut watcher) = (container.client(), container.client());
    watcher.watch();
    let epoch = format!("{round}.a");
    let mut session = up(container, &mut client, bin, &epoch, Permit::Forever);
    session.query("DROP TABLE IF EXISTS told; CREATE TABLE told (w int, n int); CHECKPOINT").unwrap();
    let (send, receive) = mpsc::channel();
    for writer in 0..WRITERS {
        let (send, session) = (send.clone(), Session::open(container).unwrap());
        thread::spawn(move || send.send(write(session, writer)));
    }
    drop(send);
    let lateness = Lateness::watch();
    let permit = until(600);
    let Permit::Until(t) = permit else { panic!() };
    assert_eq!(client.ask(&Request::Permit { epoch, until: permit }), Response::Permit);
    let Event::Fenced { at } = watcher.event() else { panic!() };
    assert_eq!(watcher.event(), Event::Exit { exit: Exit::Fenced });
    let told: Vec<_> = receive.iter().collect();
    let allowed = lateness.allow(OVERRUN) as i64;
    let commits = told.iter().map(|(commits, _, _)| commits).sum();

    // The other half of the truth: what was acknowledged is there.
    let mut session = up(container, &mut client, bin, &format!("{round}.b"), Permit::Forever);
    let rows: u64 = session.query("SELECT count(*) FROM told").unwrap().unwrap().parse().unwrap();
    assert!((commits..=commits + WRITERS).contains(&rows), "{commits} acknowledged, {rows} rows");
    assert_eq!(client.ask(&Request::Signal { signal: Signal::Int }), Response::Signal);
    assert_eq!(watcher.event(), Event::Exit { exit: Exit::Code(0) });
    Run {
        commits,
        last: told.iter().map(|(_, last, _)| since(*last, t)).max().unwrap(),
        closed: told.iter().map(|(_, _, end)| since(*end, t)).max().unwrap(),
        gone: since(at, t),
        allowed,
    }
}

/// Runs `rounds` rounds and prints what they showed.
fn measure(supervisor: &Path, what: &str, rounds: u32) {
    let Some(bin) = binaries() else { return };
    let Some(container) = Container::alone(supervisor) else { return };
    initdb(&container, &mut container.client(), &bin);
    let runs: Vec<Run> = (0..rounds).map(|round| expire(&container, &bin, round)).collect();
    let list = |value: fn(&Run) -> i64| {
        let mut values: Vec<i64> = runs.iter().map(value).collect();
        values.sort_unstable();
        format!("median {} ms, worst {} ms", values[values.len() / 2], values[values.len() - 1])
    };
    let log = container.log();
    let late = log.split("\"late_ms\":\"").skip(1).filter_map(|l| l.split('"').next()?.parse::<i64>().ok());
    let mut late: Vec<i64> = late.collect();
    late.sort_unstable();
    assert_eq!(late.len(), runs.len());
    let commits: u64 = runs.iter().map(|r| r.commits).sum();
    figure(&format!(
        "{what}: {rounds} permissions ran out under {WRITERS} writers ({commits} commits). From T: killed median \
         {} ms, worst {} ms; last \
         acknowledgement {}; connections closed {}; nothing left {}; held to {}",
        late[late.len() / 2],
        late[late.len() - 1],
        list(|r| r.last),
        list(|r| r.closed),
        list(|r| r.gone),
        list(|r| r.allowed)
    ));
    for run in &runs {
        assert!(run.commits > 0);
        assert!(run.last <= run.allowed, "a commit was acknowledged at T + {} ms", run.last);
        assert!((0..=run.allowed).contains(&run.gone), "PostgreSQL was gone at T + {} ms", run.gone);
    }
}

#[test]
fn no_commit_is_acknowledged_after_the_permission() {
    measure(Path::new(SUPERVISOR), "debug build", 5);
}

/// `cargo test -p pgconvoy-supervisor -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: takes half a minute"]
fn measure_what_ships() {
    measure(&static_binary::build().unwrap(), "static build", 20);
}

#[test]
fn postgres_runs_as_under_any_other_parent() {
    let Some(bin) = binaries() else { return };
    let Some(mut container) = Container::start() else { return };
    let mut client = container.client();
    client.watch();
    initdb(&container, &mut client, &bin);
    let done = client.run(crate::container::program(&[
        bin.join("pg_controldata").to_str().unwrap(),
        container.path("data").to_str().unwrap(),
    ]));
    assert!(done.out.text().contains("Database cluster state:               shut down"), "{}", done.out.text());

    let mut session = up(&container, &mut client, &bin, "1.a", Permit::Forever);
    let before = session.query("SHOW work_mem").unwrap();
    session.query("ALTER SYSTEM SET work_mem = '7MB'").unwrap();
    assert_eq!(client.ask(&Request::Signal { signal: Signal::Hup }), Response::Signal);
    crate::container::wait_for("the reload", || session.query("SHOW work_mem").unwrap() != before);

    // Killing the postmaster alone lets its backends go on; here they end with it.
    let begun = Instant::now();
    client.ask(&Request::Signal { signal: Signal::Kill });
    assert_eq!(client.event(), Event::Exit { exit: Exit::Signal(9) });
    assert!(session.query("SELECT 1").is_err());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    // And asked to stop, without an agent that answers, it stops fast and clean.
    drop(up(&container, &mut client, &bin, "2.a", Permit::Forever));
    container.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(client.event(), Event::Term);
    assert_eq!(client.event(), Event::Exit { exit: Exit::Code(0) });
    assert_eq!(container.wait(Duration::from_secs(5)).and_then(|s| s.code()), Some(0));
}
