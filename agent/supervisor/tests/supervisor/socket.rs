//! Clients, good and bad.

use crate::container::{Client, Container, SUPERVISOR, namespaces, skipped};
use nix::unistd::Uid;
use pgconvoy_supervisor::protocol::{ErrorCode, MAX_CONNECTIONS, Message, Request, Response};
use std::{
    fs,
    net::Shutdown,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener,
        process::CommandExt,
    },
    process::Command,
    time::{Duration, Instant},
};

fn error(message: Option<Message>) -> ErrorCode {
    match message {
        Some(Message::Response(Response::Error(refusal))) => refusal.code,
        other => panic!("expected an error, got {other:?}"),
    }
}

#[test]
fn hello_agrees_on_the_lower_version() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let hello = |client: &mut Client, version| match client.ask(&Request::Hello { version }) {
        Response::Hello { version, boot } => (version, boot),
        other => panic!("{other:?}"),
    };
    let (version, boot) = hello(&mut client, 1);
    assert_eq!((version, boot), hello(&mut client, 9));
    assert_eq!(version, 1);
    let status = client.status();
    assert_eq!((status.postgres, status.epoch, status.permit, status.stopping), (None, None, None, false));
    assert!(container.log().contains("\"message\":\"the supervisor is ready\""), "{}", container.log());
}

#[test]
fn the_socket_is_this_users_and_replaces_an_old_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(dir.path().join("socket")).unwrap());
    let Some(container) = Container::in_dir(dir, &[]) else { return };
    let mode = fs::metadata(container.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    container.client().status();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let Some(options) = namespaces() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    fs::write(&path, "precious").unwrap();
    let mut command = Command::new("unshare");
    let output = command.args(options).args([SUPERVISOR, "--socket"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is there and is not a socket"), "{output:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn garbage_is_answered_and_hurts_nobody() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    let mut seed = 88_172_645_463_325_252u64;
    for _ in 0..500 {
        let mut line: Vec<u8> = Vec::new();
        for _ in 0..40 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            line.push(match seed as u8 {
                b'\n' => 0,
                b => b,
            });
        }
        line.push(b'\n');
        client.send(&line);
        assert_eq!(error(client.next()), ErrorCode::Malformed);
    }
    for line in ["", "FENCE now", "START", "PERMIT epoch=1 until=x", "DONE id=x", "OK STATUS"] {
        client.send(format!("{line}\n").as_bytes());
        assert_eq!(error(client.next()), ErrorCode::Malformed, "{line:?}");
    }
    client.status();
}

#[test]
fn a_line_without_end_is_cut() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    client.send(&[b'A'; 64 * 1024]);
    assert_eq!(error(client.next()), ErrorCode::Long);
    assert_eq!(client.next(), None);
    container.client().status();
}

#[test]
fn half_open_connections_hinder_nobody_and_end() {
    let Some(container) = Container::start() else { return };
    let mut silent = container.client();
    let mut slow: Vec<Client> = (0..3).map(|_| container.client()).collect();
    slow.iter_mut().for_each(|c| c.send(b"STAT"));
    let begun = Instant::now();
    let mut good = container.client();
    for _ in 0..50 {
        good.status();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for client in &mut slow {
        assert_eq!(error(client.next()), ErrorCode::Slow);
        assert_eq!(client.next(), None);
    }
    assert!(begun.elapsed() > Duration::from_secs(4));
    // One that has begun nothing may wait as long as it likes.
    silent.status();
}

#[test]
fn the_seventeenth_connection_is_told() {
    let Some(container) = Container::start() else { return };
    let mut clients: Vec<Client> = (0..MAX_CONNECTIONS).map(|_| container.client()).collect();
    clients.iter_mut().for_each(|c| drop(c.status()));
    for _ in 0..50 {
        let mut surplus = container.client();
        assert_eq!(error(surplus.next()), ErrorCode::Busy);
        assert_eq!(surplus.next(), None);
    }
    clients.iter_mut().for_each(|c| drop(c.status()));
    drop(clients.pop());
    clients[0].status();
    container.client().status();
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let Some(container) = Container::start() else { return };
    let lines: String = (0..2000)
        .map(|i| if i % 2 == 0 { "STATUS\n".into() } else { format!("SIGNAL to=postgres sig=HUP{i}\n") })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = container.client();
                let mut writer = container_writer(&client);
                let lines = lines.as_bytes();
                let written = scope.spawn(move || std::io::Write::write_all(&mut writer, lines));
                for i in 0..2000 {
                    match (i % 2, client.response()) {
                        (0, Response::Status(_)) => {}
                        (1, Response::Error(r)) => assert!(r.sentence.contains(&format!("HUP{i}")), "{r}"),
                        (_, other) => panic!("answer {i} is {other:?}"),
                    }
                }
                written.join().unwrap().unwrap();
            });
        }
    });
}

fn container_writer(client: &Client) -> std::os::unix::net::UnixStream {
    client.stream.try_clone().unwrap()
}

#[test]
fn a_client_that_only_listens_gets_its_answers_and_the_end() {
    let Some(container) = Container::start() else { return };
    let mut client = container.client();
    client.send(b"STATUS\nHELLO 1\n");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(client.response(), Response::Status(_)));
    assert!(matches!(client.response(), Response::Hello { .. }));
    assert_eq!(client.next(), None);
}

#[test]
fn a_client_that_never_reads_is_not_waited_for() {
    let Some(container) = Container::start() else { return };
    let mut deaf = container.client();
    deaf.stream.set_nonblocking(true).unwrap();
    let lines = "STATUS\n".repeat(1000);
    // Until the supervisor takes no more of it.
    while std::io::Write::write(&mut deaf.stream, lines.as_bytes()).is_ok() {}
    let begun = Instant::now();
    let mut client = container.client();
    for _ in 0..50 {
        client.status();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn another_user_is_refused() {
    let Some(container) = Container::start() else { return };
    if !Uid::effective().is_root() {
        return skipped("another user on the socket", "needs root to be one");
    }
    fs::set_permissions(container.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(container.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(fs::metadata(container.socket()).unwrap().file_type().is_socket());
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(999))";
    let mut python = Command::new("python3");
    let output = python.args(["-c", script]).arg(container.socket()).uid(65534).gid(65534).output();
    let Ok(output) = output else { return skipped("another user on the socket", "needs python3") };
    assert!(String::from_utf8_lossy(&output.stdout).contains("ERR peer"), "{output:?}");
}
