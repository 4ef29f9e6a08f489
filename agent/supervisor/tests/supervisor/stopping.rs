//! The container is asked to stop.

use crate::container::{Client, Container, pretender, run, shell, start, wait_for};
use nix::sys::signal::Signal::{SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use pgconvoy_supervisor::protocol::{ErrorCode, Event, Exit, Permit, Request, Response, Signal};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(10);

/// A container with a PostgreSQL whose signal handler is set, and a client that watches.
fn serving(stop_timeout_ms: &str) -> Option<(Container, Client)> {
    let container = Container::with(&["--stop-timeout-ms", stop_timeout_ms])?;
    let mut client = container.client();
    client.watch();
    client.start("1.a", Permit::Forever, pretender());
    sleep(Duration::from_millis(200));
    Some((container, client))
}

#[test]
fn without_postgres_it_ends_at_once() {
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let Some(mut container) = Container::start() else { return };
        let mut client = container.client();
        client.watch();
        container.signal(signal);
        assert_eq!(container.wait(Duration::from_secs(1)).and_then(|s| s.code()), Some(0), "{signal}");
        assert!(!container.socket().exists());
    }
}

#[test]
fn without_an_answer_postgres_is_stopped_fast() {
    let Some((mut container, mut client)) = serving("700") else { return };
    let begun = Instant::now();
    container.signal(SIGTERM);
    assert_eq!(client.event(), Event::Term);
    assert!(client.status().stopping);
    assert_eq!(client.refusal_code(&start("2.a", Permit::Forever, pretender())), ErrorCode::Stopping);
    assert_eq!(client.event(), Event::Exit { exit: Exit::Code(7) });
    let took = begun.elapsed();
    assert!((650..2500).contains(&took.as_millis()), "{took:?}");
    assert_eq!(container.wait(LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn an_agent_that_answers_is_in_charge() {
    let Some((mut container, mut client)) = serving("300") else { return };
    assert_eq!(client.refusal_code(&Request::Ack), ErrorCode::Nothing);
    container.signal(SIGTERM);
    assert_eq!(client.event(), Event::Term);
    // On another connection than the one that watches; that one may close.
    let mut other = container.client();
    assert_eq!(other.ask(&Request::Ack), Response::Ack);
    drop(other);
    sleep(Duration::from_millis(1000));
    assert!(client.status().postgres.is_some(), "nobody but the agent may stop it now");
    assert_eq!(client.ask(&Request::Signal { signal: Signal::Int }), Response::Signal);
    assert_eq!(client.event(), Event::Exit { exit: Exit::Code(7) });
    // It may look at what it stopped, and takes its time for it.
    let done = client.run(shell("sleep 0.6; echo looked"));
    assert_eq!(done.out.text(), "looked\n");
    assert_eq!(client.ask(&Request::Exit), Response::Exit);
    assert_eq!(container.wait(Duration::from_millis(250)).and_then(|s| s.code()), Some(0));
}

#[test]
fn an_agent_that_answers_and_forgets_to_say_exit() {
    let Some((mut container, mut client)) = serving("400") else { return };
    container.signal(SIGTERM);
    assert_eq!(client.event(), Event::Term);
    assert_eq!(client.ask(&Request::Ack), Response::Ack);
    client.ask(&Request::Signal { signal: Signal::Int });
    assert_eq!(client.event(), Event::Exit { exit: Exit::Code(7) });
    let begun = Instant::now();
    assert_eq!(container.wait(LIMIT).and_then(|s| s.code()), Some(0));
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn an_agent_that_answers_and_dies() {
    let Some((mut container, mut client)) = serving("60000") else { return };
    container.signal(SIGTERM);
    assert_eq!(client.event(), Event::Term);
    assert_eq!(client.ask(&Request::Ack), Response::Ack);
    drop(client);
    assert_eq!(container.wait(LIMIT).and_then(|s| s.code()), Some(0));
    assert!(container.log().contains("\"why\":\"the agent has gone\""), "{}", container.log());
}

#[test]
fn an_agent_that_comes_late_is_told() {
    let Some(mut container) = Container::with(&["--stop-timeout-ms", "1500"]) else { return };
    let mut client = container.client();
    client.start("1.a", Permit::Forever, pretender());
    sleep(Duration::from_millis(200));
    container.signal(SIGTERM);
    wait_for("stopping", || client.status().stopping);
    assert_eq!(client.refusal_code(&Request::Ack), ErrorCode::Watch);
    client.watch();
    assert_eq!(client.event(), Event::Term);
    assert_eq!(client.ask(&Request::Ack), Response::Ack);
    sleep(Duration::from_millis(1800));
    assert!(client.status().postgres.is_some());
    client.ask(&Request::Signal { signal: Signal::Int });
    client.ask(&Request::Exit);
    assert_eq!(container.wait(LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn too_late_an_answer_is_refused() {
    let Some((container, mut client)) = serving("100") else { return };
    // One that does not heed SIGINT, so that there is a late.
    client.ask(&Request::Fence);
    client.start("1.a", Permit::Forever, shell("trap '' INT; while :; do sleep 0.02; done"));
    sleep(Duration::from_millis(200));
    container.signal(SIGTERM);
    sleep(Duration::from_millis(500));
    assert_eq!(client.refusal_code(&Request::Ack), ErrorCode::Stopping);
}

#[test]
fn exit_waits_for_postgres() {
    let Some((mut container, mut client)) = serving("60000") else { return };
    assert_eq!(client.ask(&Request::Exit), Response::Exit);
    sleep(Duration::from_millis(300));
    assert!(client.status().postgres.is_some());
    client.ask(&Request::Signal { signal: Signal::Int });
    assert_eq!(container.wait(LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn the_supervisors_death_is_everybodys() {
    let Some((mut container, mut client)) = serving("60000") else { return };
    client.ask(&run("t", 60_000, shell("setsid sleep 1000 & sleep 1000")));
    let namespace = std::fs::read_link(format!("/proc/{}/ns/pid", container.pid())).unwrap();
    assert!(crate::container::members(&namespace).len() > 5);
    container.signal(SIGKILL);
    assert!(container.wait(LIMIT).is_some());
    wait_for("an empty namespace", || crate::container::members(&namespace).is_empty());
}
