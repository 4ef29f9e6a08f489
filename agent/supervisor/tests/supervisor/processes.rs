//! Programs: what they get, what comes back, what is refused.

use crate::container::{Container, SUPERVISOR, pretender, program, run, shell, start, until, wait_for};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{ErrorCode, Event, Exit, MAX_OUTPUT, MAX_TOOLS, Permit, Program, Request, Response, Signal},
};
use std::{
    process::Command,
    time::{Duration, Instant},
};

#[test]
fn outside_a_namespace_it_refuses_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(SUPERVISOR).arg("--socket").arg(dir.path().join("s")).output().unwrap();
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(sentence.contains("must be the first process (PID 1) of a container"), "{sentence}");
    assert!(sentence.contains("unshare --pid"), "{sentence}");
    assert!(!dir.path().join("s").exists());
}

#[test]
fn a_tool_gets_what_it_is_given() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let script = "pwd; echo \"$A|$1|$2\" >&2; cat; exit 3";
    let request = Request::Run {
        id: "tool 1/é".into(),
        timeout: Duration::from_secs(20),
        program: Program {
            exec: "sh".into(),
            cwd: "/usr/lib".into(),
            args: ["-c", script, "x", "a b\n%", ""].map(Into::into).into(),
            env: vec!["A=1 = 2".into()],
            lock: None,
        },
        stdin: Some(b"in\0put".repeat(5000)),
    };
    assert!(matches!(client.ask(&request), Response::Run { pid } if pid > 1));
    let done = client.done();
    assert_eq!((done.id.as_str(), done.exit), ("tool 1/é", Exit::Code(3)));
    assert_eq!(done.err.text(), "1 = 2|a b\n%|\n");
    assert_eq!(done.out.bytes, [b"/usr/lib\n".to_vec(), b"in\0put".repeat(5000)].concat());
    assert_eq!(done.out.lost + done.err.lost, 0);
    assert_eq!(client.run(program(&["cat"])).out.bytes, b"", "without stdin it is empty");
}

#[test]
fn a_tool_starts_clean() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    // Not through a shell: some clear their mask when they start.
    let text = client.run(program(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])).out.text();
    let mask = |name: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // 32 and 33 belong to the C library, which lets nobody change them; they come from whoever started the test.
    assert_eq!((mask("SigBlk:"), mask("SigIgn:") & !0x1_8000_0000), (0, 0), "{text}");
    // 3 is the directory that ls reads.
    assert_eq!(client.run(program(&["ls", "/proc/self/fd"])).out.text(), "0\n1\n2\n3\n");
}

#[test]
fn long_output_keeps_its_end() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let done = client.run(shell("seq 1 1000000; seq 1 300000 >&2; echo end"));
    assert!(done.exit.success());
    assert_eq!(done.out.bytes.len() as u64 + done.out.lost, 6_888_896 + 4);
    assert_eq!(done.err.bytes.len() as u64 + done.err.lost, 1_988_895);
    // Newlines triple on the wire, and half a message is each stream's share.
    assert!((MAX_OUTPUT - 1000..=MAX_OUTPUT).contains(&done.out.bytes.len()), "{}", done.out.bytes.len());
    assert!(done.out.text().ends_with("999999\n1000000\nend\n"));
    assert!(done.out.text().starts_with(&format!("[{} bytes not kept]", done.out.lost)));
    assert!(done.err.text().ends_with("299999\n300000\n"));
    let done = client.run(shell("head -c 3000000 /dev/zero"));
    assert_eq!(done.out.bytes.len() as u64 + done.out.lost, 3_000_000);
}

#[test]
fn a_tool_that_floods_hinders_nobody() {
    let Some(container) = Container::start() else { return };
    let mut flood = container.client();
    assert!(matches!(flood.ask(&run("f", 1500, program(&["yes"]))), Response::Run { .. }));
    let mut client = container.client();
    let begun = Instant::now();
    for _ in 0..20 {
        client.status();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let done = flood.done();
    assert_eq!(done.exit, Exit::Timeout);
    assert!(done.out.lost > 0 && done.out.bytes.starts_with(b"y\n") | done.out.bytes.starts_with(b"\ny"));
}

#[test]
fn a_tool_is_killed_when_its_time_is_over_and_with_it_its_children() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let begun = Instant::now();
    assert!(matches!(client.ask(&run("t", 300, shell("echo here; sleep 1000 & sleep 1000"))), Response::Run { .. }));
    let done = client.done();
    assert_eq!((done.exit, done.out.text().as_str()), (Exit::Timeout, "here\n"));
    assert!((300..1500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    wait_for("the tool's children gone", || container.others().is_empty());
}

#[test]
fn what_a_tool_leaves_behind_does_not_delay_its_result() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let begun = Instant::now();
    let done = client.run(shell("setsid sleep 3 & echo out; exit 0"));
    assert_eq!(done.out.text(), "out\n");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_tool_whose_client_goes_is_killed() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    assert!(matches!(client.ask(&run("t", 60_000, shell("sleep 1000; true"))), Response::Run { .. }));
    assert_eq!(container.client().status().tools, 1);
    drop(client);
    wait_for("the tool gone", || container.others().is_empty());
    wait_for("the tool forgotten", || container.client().status().tools == 0);
}

#[test]
fn only_so_many_tools() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    for i in 0..MAX_TOOLS {
        let answer = client.ask(&run(&i.to_string(), 20_000, shell("sleep 0.5")));
        assert!(matches!(answer, Response::Run { .. }), "{answer:?}");
    }
    assert_eq!(client.refusal_code(&run("more", 20_000, shell("true"))), ErrorCode::Tools);
    let mut ids: Vec<String> = (0..MAX_TOOLS).map(|_| client.done().id).collect();
    ids.sort();
    assert_eq!(ids, ["0", "1", "2", "3"]);
    assert!(client.run(shell("true")).exit.success());
}

#[test]
fn what_cannot_be_executed_is_said() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let missing = Program { cwd: "/no/such".into(), ..program(&["true"]) };
    for (program, words) in [
        (program(&["no-such-program"]), ["no-such-program", "No such file"]),
        (program(&["/etc/passwd"]), ["/etc/passwd", "Permission denied"]),
        (missing, ["/no/such", "is the volume mounted"]),
    ] {
        for request in [run("t", 1000, program.clone()), start("1.a", Permit::Forever, program.clone())] {
            let refusal = client.refused(&request);
            assert_eq!(refusal.code, ErrorCode::Exec);
            assert!(words.iter().all(|w| refusal.sentence.contains(w)), "{refusal}");
        }
    }
    let status = client.status();
    assert_eq!((status.postgres, status.permit, status.tools), (None, None, 0));
    wait_for("no zombies", || container.others().is_empty());
}

/// Two pods on one volume: what the first left running keeps the second out, until the last process of it is gone.
#[test]
fn a_lock_lasts_as_long_as_anything_that_came_of_the_program() {
    let (Some(first), Some(second)) = (Container::start(), Container::start()) else { return };
    let volume = tempfile::tempdir().unwrap();
    let locked = Program { lock: Some(volume.path().join("postgres.lock").into()), ..pretender() };
    let (mut one, mut other) = (first.client(), second.client());
    assert!(matches!(one.ask(&start("1.a", Permit::Forever, locked.clone())), Response::Start { .. }));
    wait_for("its children", || first.others().len() >= 3);
    let refused = |client: &mut crate::container::Client| {
        let refusal = client.refused(&start("2.b", Permit::Forever, locked.clone()));
        assert_eq!(refusal.code, ErrorCode::Exec);
        assert!(refusal.sentence.contains("PostgreSQL of another pod of this member may still run"), "{refusal}");
        assert_eq!(client.status().postgres, None);
    };
    refused(&mut other);
    assert_eq!(one.ask(&Request::Fence), Response::Fence);
    // A program that ends at once leaves something behind, which has the lock too.
    // In a session of its own by then: what is left in the tool's group is killed with it.
    let script = "cd \"$1\"; setsid sh -c 'touch away; exec sleep 1000' >/dev/null 2>&1 & while [ ! -e \"$1/away\" ]; do :; done";
    let directory = volume.path().to_str().unwrap();
    let leaves = Program { lock: locked.lock.clone(), ..program(&["sh", "-c", script, "sh", directory]) };
    assert!(one.run(leaves).exit.success());
    refused(&mut other);
    assert_eq!(one.ask(&Request::Fence), Response::Fence);
    assert!(matches!(other.ask(&start("2.b", Permit::Forever, locked.clone())), Response::Start { .. }));
    let tool = Program { lock: locked.lock.clone(), ..shell("true") };
    let refusal = one.refused(&run("t", 1000, tool));
    assert!(refusal.sentence.contains("another process holds the lock"), "{refusal}");
}

#[test]
fn orphans_are_reaped() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let done = client.run(shell("for i in $(seq 50); do (setsid sleep 3 &); done"));
    assert!(done.exit.success());
    // On a slow machine the first have ended by now.
    assert!(container.others().len() >= 10, "{:?}", container.others());
    assert_eq!(client.status().tools, 0);
    wait_for("the orphans gone, zombies too", || container.others().is_empty());
}

#[test]
fn a_signal_that_ends_a_tool_is_told() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    assert_eq!(client.run(shell("kill -SEGV $$")).exit, Exit::Signal(11));
    // A real-time signal: some wait wrappers lose the process that died of it.
    assert_eq!(client.run(shell("kill -34 $$")).exit, Exit::Signal(34));
}

#[test]
fn one_postgres_at_a_time() {
    let Some(container) = Container::start() else { return };
    let (mut client, mut watcher) = (container.client(), container.client());
    watcher.watch();
    let before = Boottime::now();
    let pid = client.start("3.abc", Permit::Forever, pretender());
    assert_eq!(client.refusal_code(&start("4.abc", Permit::Forever, pretender())), ErrorCode::Running);
    let status = client.status();
    assert_eq!((status.postgres, status.epoch.as_deref()), (Some(pid), Some("3.abc")));
    assert_eq!((status.permit, status.last_exit), (Some(Permit::Forever), None));
    assert!(status.started.unwrap() >= before && status.started.unwrap() <= Boottime::now());

    // The trap needs a moment to be set.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.ask(&Request::Signal { signal: Signal::Int }), Response::Signal);
    assert_eq!(watcher.event(), Event::Exit { exit: Exit::Code(7) });
    assert_eq!(container.living(), [], "EXIT means that nothing is left");
    let status = client.status();
    assert_eq!((status.postgres, status.permit, status.last_exit), (None, None, Some(Exit::Code(7))));
    assert_eq!(status.epoch.as_deref(), Some("3.abc"));
    assert_eq!(client.refusal_code(&Request::Signal { signal: Signal::Hup }), ErrorCode::Stopped);
    client.start("4.abc", Permit::Forever, pretender());
}

#[test]
fn permissions_name_the_epoch() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let permit = |epoch: &str, until| Request::Permit { epoch: epoch.into(), until };
    let change = |from: &str, to: &str, until| Request::Epoch { from: from.into(), to: to.into(), until };
    assert_eq!(client.refusal_code(&permit("3.abc", Permit::Forever)), ErrorCode::Stopped);
    assert_eq!(client.refusal_code(&start("3.abc", Permit::Until(Boottime(1)), pretender())), ErrorCode::Expired);
    assert_eq!(client.status().postgres, None);

    let first = until(60_000);
    client.start("3.abc", first, pretender());
    let refusal = client.refused(&permit("4.def", Permit::Forever));
    assert_eq!(refusal.code, ErrorCode::Epoch);
    assert!(refusal.sentence.contains("running in epoch 3.abc, not in 4.def"), "{refusal}");
    assert_eq!(client.refusal_code(&change("2.x", "4.def", Permit::Forever)), ErrorCode::Epoch);
    assert_eq!(client.status().permit, Some(first));

    let second = until(90_000);
    assert_eq!(client.ask(&permit("3.abc", second)), Response::Permit);
    assert_eq!(client.status().permit, Some(second));
    assert_eq!(client.ask(&change("3.abc", "4.def", Permit::Forever)), Response::Epoch);
    let status = client.status();
    assert_eq!((status.epoch.as_deref(), status.permit), (Some("4.def"), Some(Permit::Forever)));
    assert_eq!(client.refusal_code(&permit("3.abc", second)), ErrorCode::Epoch);
}
