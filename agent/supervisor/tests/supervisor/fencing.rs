//! The permission and its end, with programs that only pretend to be PostgreSQL.

use crate::container::{
    Container, Lateness, SUPERVISOR, pretender, run, shell, skipped, start, state, until, wait_for,
};
use nix::{
    errno::Errno,
    sys::{ptrace, wait::WaitPidFlag, wait::waitpid},
    unistd::Pid,
};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{ErrorCode, Event, Exit, Permit, Program, Request, Response, Signal},
};
use std::{fs, path::Path, thread::sleep, time::Duration};

/// After this much nothing may be left. (Measured: 1 to 5 ms.)
const OVERRUN: u64 = 50;

fn moment(permit: Permit) -> u64 {
    match permit {
        Permit::Until(at) => at.0,
        Permit::Forever => panic!(),
    }
}

/// Starts `program` with a permission of half a second, and checks how it ends: at most `overrun` ms later.
fn expires(program: Program, overrun: u64) {
    let Some(container) = Container::alone(Path::new(SUPERVISOR)) else { return };
    let (mut client, mut watcher) = (container.client(), container.client());
    watcher.watch();
    let permit = until(500);
    client.start("1.a", permit, program.clone());
    sleep(Duration::from_millis(300));
    let lateness = Lateness::watch();
    assert!(!container.others().is_empty());
    let Event::Fenced { at } = watcher.event() else { panic!() };
    assert_eq!(container.living(), []);
    let last = moment(permit) + lateness.allow(overrun);
    assert!((moment(permit)..=last).contains(&at.0), "T {permit}, gone at {at}, allowed {last}");
    assert_eq!(watcher.event(), Event::Exit { exit: Exit::Fenced });

    // A fence is not the end: the supervisor serves, and starts the next.
    let status = client.status();
    assert_eq!((status.postgres, status.permit, status.last_exit), (None, None, Some(Exit::Fenced)));
    client.start("2.b", Permit::Forever, program);
    sleep(Duration::from_millis(100));
    assert!(client.status().postgres.is_some(), "the old fence killed the new PostgreSQL");
}

#[test]
fn nothing_outlives_the_permission() {
    expires(pretender(), OVERRUN);
}

#[test]
fn nothing_outlives_the_permission_though_it_forks_without_end() {
    // Many hundreds of processes: each is killed at once, but all of them need their time to exit.
    expires(shell("trap '' TERM INT HUP; while :; do sleep 1 & done"), 5000);
}

#[test]
fn nothing_outlives_the_permission_though_it_is_stopped() {
    expires(shell("setsid sh -c 'kill -STOP $$' & kill -STOP $$"), OVERRUN);
}

#[test]
fn tools_end_with_everything_else() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    client.start("1.a", until(400), pretender());
    let done = client.run(shell("echo working; sleep 1000"));
    assert_eq!((done.exit, done.out.text().as_str()), (Exit::Signal(9), "working\n"));
}

#[test]
fn renewals_keep_it_alive_and_their_end_does_not() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    client.watch();
    client.start("1.a", until(2000), pretender());
    let mut last = 0;
    for _ in 0..30 {
        let permit = until(2000);
        last = moment(permit);
        assert_eq!(client.ask(&Request::Permit { epoch: "1.a".into(), until: permit }), Response::Permit);
        sleep(Duration::from_millis(100));
    }
    assert!(client.status().postgres.is_some());
    let Event::Fenced { at } = client.event() else { panic!() };
    assert!(at.0 >= last, "killed {} ms too early", last - at.0);
}

#[test]
fn a_permission_in_the_past_is_a_fence() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    client.watch();
    client.start("1.a", Permit::Forever, pretender());
    let request = Request::Permit { epoch: "1.a".into(), until: Permit::Until(Boottime::now()) };
    assert_eq!(client.ask(&request), Response::Permit);
    assert!(matches!(client.event(), Event::Fenced { .. }));
    assert_eq!(client.event(), Event::Exit { exit: Exit::Fenced });
    assert_eq!(client.refusal_code(&request), ErrorCode::Stopped);
}

#[test]
fn fence_answers_when_nothing_is_left() {
    let Some(container) = Container::start() else { return };
    let (mut client, mut other) = (container.client(), container.client());
    for round in 0..20 {
        client.start("1.a", Permit::Forever, pretender());
        client.ask(&run("t", 60_000, shell("setsid sleep 1000 & sleep 1000")));
        assert_eq!(other.ask(&Request::Fence), Response::Fence);
        assert_eq!(container.living(), [], "round {round}");
        assert_eq!(client.done().exit, Exit::Signal(9));
    }
    assert_eq!(other.ask(&Request::Fence), Response::Fence, "also when there is nothing to kill");
    wait_for("everything reaped", || container.others().is_empty());
}

#[test]
fn what_a_killed_postmaster_leaves_behind_ends_with_it() {
    let Some(container) = Container::start() else { return };
    let (mut client, mut tools) = (container.client(), container.client());
    client.watch();
    client.start("1.a", until(60_000), pretender());
    assert!(matches!(tools.ask(&run("t", 60_000, shell("sleep 0.7; echo survived"))), Response::Run { .. }));
    sleep(Duration::from_millis(200));
    assert!(container.others().len() >= 4);
    client.ask(&Request::Signal { signal: Signal::Kill });
    assert_eq!(client.event(), Event::Exit { exit: Exit::Signal(9) });
    // The tool and its sleep: nobody else.
    assert!(container.living().len() <= 2, "{:?}", container.living());
    assert_eq!(tools.done().out.text(), "survived\n");
    assert_eq!(client.status().permit, None);
    client.start("1.b", until(60_000), pretender());
}

/// Every thread but the timer's stands still, as if it hung in the kernel or waited for a lock for ever.
#[test]
fn the_timer_needs_no_other_thread() {
    let Some(container) = Container::alone(Path::new(SUPERVISOR)) else { return };
    let mut client = container.client();
    client.watch();
    let permit = until(700);
    let pid = client.start("1.a", permit, pretender());
    assert!(pid > 1);
    let Some(others) = freeze(&container) else { return };
    client.send(b"STATUS\n");
    assert!(!container.living().is_empty());
    let lateness = Lateness::watch();
    sleep(permit_remaining(permit) + Duration::from_millis(OVERRUN));
    // No more than nothing where the machine has CPU to spare.
    sleep(Duration::from_millis(lateness.allow(0)));
    assert_eq!(container.living(), [], "at T + {OVERRUN} ms");
    assert!(others.iter().all(|tid| state(*tid) == Some('t')), "the other threads did not stand still");

    thaw(others);
    assert!(matches!(client.response(), Response::Status(_)));
    assert!(matches!(client.event(), Event::Fenced { .. }));
    assert_eq!(client.event(), Event::Exit { exit: Exit::Fenced });
}

fn permit_remaining(permit: Permit) -> Duration {
    Boottime(moment(permit)).remaining(Boottime::now())
}

/// Stops every thread of the supervisor but the timer's.
fn freeze(container: &Container) -> Option<Vec<i32>> {
    let supervisor = container.pid();
    let tasks = fs::read_dir(format!("/proc/{supervisor}/task")).unwrap();
    let tasks = tasks.map(|t| t.unwrap().file_name().to_str().unwrap().parse::<i32>().unwrap());
    let name = |tid: &i32| fs::read_to_string(format!("/proc/{supervisor}/task/{tid}/comm")).unwrap();
    let (timer, others): (Vec<i32>, Vec<i32>) = tasks.partition(|tid| name(tid).trim() == "dead-man");
    assert_eq!((timer.len(), others.len()), (1, 3), "the timer; the server, its log and PostgreSQL's");
    for tid in others.iter().map(|tid| Pid::from_raw(*tid)) {
        match ptrace::seize(tid, ptrace::Options::empty()) {
            Err(Errno::EPERM) => {
                skipped("threads that stand still", "this user may not trace threads");
                return None;
            }
            result => result.unwrap(),
        }
        ptrace::interrupt(tid).unwrap();
        waitpid(tid, Some(WaitPidFlag::__WALL)).unwrap();
    }
    Some(others)
}

fn thaw(threads: Vec<i32>) {
    for tid in threads {
        ptrace::detach(Pid::from_raw(tid), None).unwrap();
    }
}

#[test]
fn nothing_starts_while_a_fence_is_under_way() {
    let Some(container) = Container::start() else { return };
    let (mut first, mut second, mut third) = (container.client(), container.client(), container.client());
    // Served in this order once all three have come.
    for client in [&mut first, &mut second, &mut third] {
        client.status();
    }
    let Some(threads) = freeze(&container) else { return };
    first.send(b"FENCE\n");
    second.send(run("t", 60_000, shell("sleep 1000")).to_line().unwrap().as_bytes());
    third.send(start("1.a", Permit::Forever, pretender()).to_line().unwrap().as_bytes());
    thaw(threads);
    assert_eq!(first.response(), Response::Fence);
    for client in [&mut second, &mut third] {
        let Response::Error(refusal) = client.response() else { panic!("something was started") };
        assert_eq!(refusal.code, ErrorCode::Fenced);
    }
    assert_eq!(container.living(), []);
    third.start("1.a", Permit::Forever, pretender());
}

#[test]
fn a_start_beside_a_fence_is_before_or_after_it() {
    let Some(container) = Container::start() else { return };
    let (mut client, mut other) = (container.client(), container.client());
    for _ in 0..30 {
        client.start("1.a", Permit::Forever, pretender());
        other.send(b"FENCE\n");
        match client.ask(&start("2.b", Permit::Forever, pretender())) {
            Response::Start { .. } => {}
            Response::Error(refusal) => {
                assert!(matches!(refusal.code, ErrorCode::Fenced | ErrorCode::Running), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(other.response(), Response::Fence);
        assert_eq!(other.ask(&Request::Fence), Response::Fence);
        assert_eq!(client.status().postgres, None);
    }
}
