use super::{join::Joiner, message::LIMIT, *};
use std::fs::File;

const NOW: Duration = Duration::from_millis(1_000_007);

/// A line as PostgreSQL writes it.
fn line(pid: u32, at: &str, state: &str, text: &str) -> String {
    format!("{at}\t{pid}\tclient backend\t{state}\t[local]\tapp\tshop\tpsql\t{pid}.{at}\t{text}\n")
}

/// Everything that comes of `text`, in pieces of `size` bytes.
fn joined(text: &[u8], size: usize) -> Vec<String> {
    let (mut joiner, mut out) = (Joiner::default(), Vec::new());
    text.chunks(size).for_each(|piece| joiner.take(piece, NOW, &mut out));
    joiner.flush(NOW, &mut out);
    assert_eq!(joiner.pause(), None, "something is left");
    out
}

#[test]
fn a_message_of_many_lines_is_one_object() {
    let head = |text: &str| line(27, "1764169224.228", "42P01", text);
    let text = [
        head("ERROR:  relation \"x\" does not exist at character 15"),
        head("DETAIL:  first"),
        "\tsecond\n\n".replace("\n\n", "\n"),
        head("STATEMENT:  select *"),
        "\t from x;\n".to_owned(),
        line(27, "1764169224.228", "00000", "LOG:  another of the same moment"),
    ]
    .concat();
    let wanted = [
        concat!(
            r#"{"timestamp":"2025-11-26T15:00:24.228Z","level":"ERROR","message":"relation \"x\" does not exist at character 15","#,
            r#""target":"postgres","error_severity":"ERROR","state_code":"42P01","pid":27,"backend_type":"client backend","#,
            r#""remote_host":"[local]","user":"app","dbname":"shop","application_name":"psql","#,
            r#""detail":"first\nsecond","statement":"select *\n from x;"}"#,
            "\n"
        ),
        concat!(
            r#"{"timestamp":"2025-11-26T15:00:24.228Z","level":"INFO","message":"another of the same moment","#,
            r#""target":"postgres","error_severity":"LOG","state_code":"00000","pid":27,"backend_type":"client backend","#,
            r#""remote_host":"[local]","user":"app","dbname":"shop","application_name":"psql"}"#,
            "\n"
        ),
    ];
    for size in [1, 7, 4096] {
        assert_eq!(joined(text.as_bytes(), size), wanted, "in pieces of {size}");
    }
}

#[test]
fn every_severity_keeps_its_word_and_gets_the_agents() {
    for (word, level) in [
        ("DEBUG", "DEBUG"),
        ("LOG", "INFO"),
        ("INFO", "INFO"),
        ("NOTICE", "INFO"),
        ("WARNING", "WARN"),
        ("ERROR", "ERROR"),
        ("FATAL", "ERROR"),
        ("PANIC", "ERROR"),
    ] {
        let out = joined(line(1, "1.000", "00000", &format!("{word}:  x")).as_bytes(), 64);
        assert!(out[0].contains(&format!("\"level\":\"{level}\",\"message\":\"x\"")), "{out:?}");
        assert!(out[0].contains(&format!("\"error_severity\":\"{word}\"")), "{out:?}");
    }
    let out = joined(line(1, "1.000", "42P01", "FEHLER:  gibt es nicht").as_bytes(), 64);
    assert!(!out[0].contains("level") && out[0].contains(r#""message":"gibt es nicht""#), "{out:?}");
    assert!(out[0].contains(r#""error_severity":"FEHLER""#), "{out:?}");
}

#[test]
fn verbose_messages_say_their_code_once() {
    let out = joined(line(1, "1.000", "42P01", "ERROR:  42P01: no").as_bytes(), 64);
    assert!(out[0].contains(r#""message":"no""#), "{out:?}");
}

#[test]
fn before_the_configuration_and_from_others() {
    let text = b"postgres: could not find the database\n\
                 2026-11-26 15:00:27.697 GMT [27] LOG:  unrecognized configuration parameter \"x\"\n\
                 2026-11-26 15:00:27.697 GMT [27] FATAL:  configuration file contains errors\n\
                 \tnobody's\n\xff\xfe\nno end";
    let out = joined(text, 5);
    let stamp = r#"{"timestamp":"1970-01-01T00:16:40.007Z""#;
    let wanted = [
        r#","message":"postgres: could not find the database","target":"postgres"}"#,
        r#","level":"INFO","message":"unrecognized configuration parameter \"x\"","target":"postgres","error_severity":"LOG","pid":27}"#,
        r#","level":"ERROR","message":"configuration file contains errors\nnobody's","target":"postgres","error_severity":"FATAL","pid":27}"#,
        "\",\"message\":\"\u{fffd}\u{fffd}\",\"target\":\"postgres\"}",
        r#","message":"no end","target":"postgres"}"#,
    ];
    assert_eq!(out, wanted.map(|w| format!("{stamp}{}\n", w.trim_start_matches('"'))));
}

#[test]
fn a_name_with_a_line_end_forges_nothing() {
    let forged = "1.000\t7\tclient backend\t28P01\t[local]\tx\n2.000\t1\tpostmaster\t00000\t\t\t\t\t1.2.000\tLOG:  all is well\
                  \td\ta\t7.1.000\tFATAL:  no\n";
    let out = joined(forged.as_bytes(), 11);
    assert_eq!(out.len(), 1, "{out:?}");
    assert!(out[0].contains(r#""level":"ERROR","message":"no""#) && out[0].contains(r#""pid":7"#), "{out:?}");
    // One that never ends is given up, and what follows is whole again.
    let endless = "1.000\t7\tclient backend\t28P01\t[local]\tx\n".to_owned() + &"y\n".repeat(20_000);
    let text = endless + &line(1, "1.000", "00000", "LOG:  after");
    let out = joined(text.as_bytes(), 4096);
    assert!(out.last().unwrap().contains(r#""message":"after""#) && out.len() > 1);
}

#[test]
fn what_is_too_long_is_cut_and_counted() {
    let long = "x".repeat(3 * LIMIT);
    let text = line(1, "1.000", "00000", &format!("LOG:  {long}")) + &line(1, "2.000", "00000", "LOG:  next");
    let out = joined(text.as_bytes(), 4096);
    assert_eq!(out.len(), 2);
    assert!(out[0].len() < LIMIT + 400 && out[0].contains("\"cut_bytes\":131"), "{}", &out[0][LIMIT - 100..]);
    assert!(out[1].contains("next"));
    // Of many lines, too.
    let text = line(1, "1.000", "00000", "LOG:  a") + &"\tx23456789\n".repeat(LIMIT / 5);
    let out = joined(text.as_bytes(), 4096);
    assert!(out.len() == 1 && out[0].len() < LIMIT * 5 / 4 && out[0].contains("cut_bytes"), "{}", out[0].len());
    assert!(joined(&b"y".repeat(2 * LIMIT), 4096)[0].contains(&format!("\"cut_bytes\":{LIMIT}")));
}

#[test]
fn a_silent_pipe_is_shown_and_a_closed_one_to_its_end() {
    let ((end, inlet), (shown, out)) = (pipe2(OFlag::O_CLOEXEC).unwrap(), pipe2(OFlag::O_CLOEXEC).unwrap());
    let thread = thread::spawn(move || pump(&end, &mut File::from(out)));
    let (mut inlet, mut buffer) = (File::from(inlet), [0u8; 4096]);
    inlet.write_all(line(1, "1.000", "00000", "LOG:  silence follows").as_bytes()).unwrap();
    let n = read(&shown, &mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..n]).contains("silence follows"));
    inlet.write_all(line(1, "2.000", "XX000", "PANIC:  the last").trim_end().as_bytes()).unwrap();
    drop(inlet);
    thread.join().unwrap();
    let n = read(&shown, &mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..n]).ends_with("\"dbname\":\"shop\",\"application_name\":\"psql\"}\n"));
    assert_eq!(read(&shown, &mut buffer), Ok(0));
}
