//! What PostgreSQL says, as it comes out of the container.

use crate::{
    container::{Container, program, shell, wait_for},
    database::{Session, binaries, initdb, server, up},
};
use pgconvoy_supervisor::{
    log_line::PREFIX,
    protocol::{Event, Exit, Permit, Request, Response, Signal},
};
use std::time::Duration;

/// The line of the log that has all of these.
fn line(log: &str, wanted: &[&str]) -> Option<String> {
    log.lines().find(|l| wanted.iter().all(|w| l.contains(w))).map(str::to_owned)
}

#[test]
fn postgres_log_is_json_with_its_level_from_the_first_word_to_the_last() {
    let Some(bin) = binaries() else { return };
    let Some(mut container) = Container::start() else { return };
    let mut client = container.client();
    client.watch();
    initdb(&container, &mut client, &bin);
    let conf = container.path("data/postgresql.conf");
    let good = std::fs::read_to_string(&conf).unwrap();

    // Before there is a configuration to say how.
    std::fs::write(&conf, format!("{good}\nno_such_thing = 1\n")).unwrap();
    client.start("1.a", Permit::Forever, server(&container, &bin));
    assert_eq!(client.event(), Event::Exit { exit: Exit::Code(1) });
    wait_for("the reason", || {
        line(&container.log(), &[r#""level":"ERROR""#, "contains errors", r#""error_severity":"FATAL""#]).is_some()
    });
    assert!(line(&container.log(), &[r#""level":"INFO""#, "no_such_thing"]).is_some(), "{}", container.log());

    std::fs::write(&conf, format!("{good}\nlog_line_prefix = '{PREFIX}'\n")).unwrap();
    let mut session = up(&container, &mut client, &bin, "1.a", Permit::Forever);
    session.query("SELECT count(*)\nFROM \"no\ttable\"").unwrap_err();
    session.query("DO $$ BEGIN RAISE WARNING 'of many\nlines' USING HINT = 'none'; END $$").unwrap();
    wait_for("the error", || line(&container.log(), &[r#""level":"ERROR""#, r#""state_code":"42P01""#]).is_some());
    let error = line(&container.log(), &[r#""state_code":"42P01""#]).unwrap();
    for part in [
        r#""message":"relation \"no\ttable\" does not exist at character "#,
        r#""error_severity":"ERROR""#,
        r#""backend_type":"client backend""#,
        r#""remote_host":"[local]","user":"postgres","dbname":"postgres""#,
        r#""statement":"SELECT count(*)\nFROM \"no\ttable\"""#,
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let wanted = [r#""level":"WARN""#, r#""target":"postgres""#];
    wait_for("the warning", || line(&container.log(), &wanted).is_some());
    let warning = line(&container.log(), &wanted).unwrap();
    assert!(warning.contains(r#""message":"of many\nlines""#) && warning.contains(r#""hint":"none""#), "{warning}");

    // Nobody's name is another line.
    let forged = "x\n1.000\t1\tpostmaster\t00000\t\t\t\t\t1.1.000\tLOG:  forged";
    drop(Session::named(&container, forged).map(drop).unwrap_err());
    wait_for("the refusal", || {
        line(&container.log(), &[r#""error_severity":"FATAL""#, r#"forged\" does not exist"#]).is_some()
    });
    assert!(line(&container.log(), &[r#""message":"forged""#]).is_none(), "{}", container.log());

    // Killed, it leaves what it said; and the next one is heard as well.
    client.ask(&Request::Signal { signal: Signal::Kill });
    assert_eq!(client.event(), Event::Exit { exit: Exit::Signal(9) });
    drop(up(&container, &mut client, &bin, "2.a", Permit::Forever));
    assert_eq!(client.ask(&Request::Signal { signal: Signal::Int }), Response::Signal);
    assert_eq!(client.event(), Event::Exit { exit: Exit::Code(0) });
    client.ask(&Request::Exit);
    assert!(container.wait(Duration::from_secs(5)).is_some_and(|s| s.success()));
    let log = container.log();
    assert!(
        line(&log, &["database system was interrupted"]).is_some() && line(&log, &["is shut down"]).is_some(),
        "{log}"
    );
    for line in log.lines() {
        let whole = line.starts_with("{\"timestamp\":\"20") && line.ends_with('}') && line.contains("\"target\":");
        assert!(whole, "not an object: {line}");
    }
}

#[test]
fn the_last_words_are_written_before_the_container_ends() {
    let Some(mut container) = Container::start() else { return };
    let mut client = container.client();
    // Much, and at its very end something without a line end.
    let last =
        "i=0; while [ $i -lt 5000 ]; do echo \"word $i of many that fill the pipe\"; i=$((i + 1)); done; printf over";
    client.start("1.a", Permit::Forever, shell(last));
    client.ask(&Request::Exit);
    assert!(container.wait(Duration::from_secs(10)).is_some_and(|s| s.success()));
    let log = container.log();
    assert_eq!(log.matches("of many that fill the pipe").count(), 5000);
    assert!(log.contains(r#""message":"over","target":"postgres""#), "{}", &log[log.len().saturating_sub(900)..]);
}

#[test]
fn a_log_that_nobody_reads_makes_postgres_wait_and_nobody_else() {
    let Some(mut container) = Container::unread() else { return };
    let mut client = container.client();
    client.watch();
    let flood = "while :; do echo 'a line that is long enough to fill whatever there is in no time at all'; date > ticked; done";
    let mut flood = shell(flood);
    flood.cwd = container.dir.path().into();
    client.start("1.a", crate::container::until(60_000), flood);
    let ticked = || std::fs::metadata(container.path("ticked")).and_then(|m| m.modified()).ok();
    let mut before = None;
    wait_for("the flood to stand still", || {
        let last = std::mem::replace(&mut before, ticked());
        std::thread::sleep(Duration::from_millis(300));
        last.is_some() && last == ticked()
    });
    // Its time runs out all the same, a tool runs, and the container ends.
    assert!(client.run(program(&["true"])).exit.success());
    assert_eq!(client.ask(&Request::Fence), Response::Fence);
    assert!(matches!(client.event(), Event::Fenced { .. }));
    assert_eq!(client.event(), Event::Exit { exit: Exit::Fenced });
    client.ask(&Request::Exit);
    assert!(container.wait(Duration::from_secs(10)).is_some_and(|s| s.success()), "a hung log holds up the end");
}
