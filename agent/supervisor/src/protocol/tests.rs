use super::*;
use crate::clock::Boottime;
use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

/// A generator that needs no crate and repeats itself: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// Without zero bytes, as program arguments are.
    fn text(&mut self, most: usize) -> OsString {
        OsString::from_vec(self.bytes(most).into_iter().map(|b| b.max(1)).collect())
    }

    fn name(&mut self) -> String {
        let letters = ['a', 'Z', '7', '.', '/', '%', ' ', '=', 'é'];
        (0..=self.below(20)).map(|_| letters[self.below(letters.len())]).collect()
    }

    fn permit(&mut self) -> Permit {
        if self.below(3) == 0 { Permit::Forever } else { Permit::Until(Boottime(self.next())) }
    }

    fn program(&mut self) -> Program {
        let filled = |text: OsString| if text.is_empty() { "x".into() } else { text };
        Program {
            exec: filled(self.text(20)),
            cwd: filled(self.text(20)),
            args: (0..self.below(5)).map(|_| self.text(30)).collect(),
            env: (0..self.below(5)).map(|i| [OsString::from(format!("N{i}=")), self.text(30)].concat_os()).collect(),
            lock: (self.below(2) == 0).then(|| filled(self.text(20))),
        }
    }

    fn request(&mut self) -> Request {
        match self.below(11) {
            0 => Request::Hello { version: 1 + (self.next() as u32 >> 1) },
            1 => Request::Status,
            2 => Request::Start { id: self.name(), epoch: self.name(), permit: self.permit(), program: self.program() },
            3 => Request::Run {
                id: self.name(),
                timeout: Duration::from_millis(1 + self.next() % 1_000_000),
                program: self.program(),
                stdin: (self.below(2) == 0).then(|| self.bytes(200)),
            },
            4 => Request::Permit { epoch: self.name(), until: self.permit() },
            5 => Request::Epoch { from: self.name(), to: self.name(), until: self.permit() },
            6 => {
                let all = [Signal::Hup, Signal::Int, Signal::Term, Signal::Quit, Signal::Kill, Signal::Usr1];
                Request::Signal { signal: all[self.below(6)] }
            }
            7 => Request::Fence,
            8 => Request::Watch,
            9 => Request::Ack,
            _ => Request::Exit,
        }
    }

    fn exit(&mut self) -> Exit {
        match self.below(4) {
            0 => Exit::Code(self.below(256) as i32),
            1 => Exit::Signal(1 + self.below(64) as i32),
            2 => Exit::Timeout,
            _ => Exit::Fenced,
        }
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }

    fn message(&mut self) -> Message {
        let at = Boottime(self.next());
        match self.below(8) {
            0 => Message::Response(Response::Hello { version: self.next() as u32, boot: at }),
            1 => Message::Response(Response::Status(Status {
                postgres: self.maybe(|r| r.below(99999) as i32),
                epoch: self.maybe(Self::name),
                permit: self.maybe(Self::permit),
                started: self.maybe(|_| at),
                last_exit: self.maybe(Self::exit),
                stopping: self.below(2) == 0,
                tools: self.below(5),
            })),
            2 => Message::Response(Response::Start { pid: self.below(99999) as i32 }),
            3 => Message::Response(Response::Error(Refusal {
                code: if self.below(9) == 0 { ErrorCode::Other("later".into()) } else { ErrorCode::Epoch },
                sentence: self.name(),
            })),
            4 => Message::Done(Done {
                id: self.name(),
                exit: self.exit(),
                out: Output { bytes: self.bytes(300), lost: self.next() >> 1 },
                err: Output { bytes: self.bytes(300), lost: 0 },
            }),
            5 => Message::Event(Event::Exit { exit: self.exit() }),
            6 => Message::Event(Event::Fenced { at }),
            _ => Message::Event(Event::Term),
        }
    }
}

trait ConcatOs {
    fn concat_os(&self) -> OsString;
}

impl ConcatOs for [OsString; 2] {
    fn concat_os(&self) -> OsString {
        let mut all = self[0].clone();
        all.push(&self[1]);
        all
    }
}

/// A line must be one line of plain words: whatever a value holds, it cannot end the line or begin a field.
fn body(line: &str) -> &[u8] {
    let body = line.strip_suffix('\n').unwrap();
    assert!(body.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{body:?}");
    body.as_bytes()
}

#[test]
fn requests_read_what_they_write() {
    let mut random = Random(1);
    for _ in 0..10_000 {
        let request = random.request();
        let line = request.to_line().unwrap();
        assert_eq!(Request::parse(body(&line)).unwrap(), request, "{line}");
    }
}

#[test]
fn messages_read_what_they_write() {
    let mut random = Random(2);
    for _ in 0..10_000 {
        let message = random.message();
        let line = message.to_line();
        assert_eq!(Message::parse(body(&line)).unwrap(), message, "{line}");
    }
}

#[test]
fn garbage_is_refused_or_means_what_it_says() {
    let mut random = Random(3);
    let mut taken = 0;
    for round in 0..60_000 {
        let mut line = match round % 3 {
            0 => random.bytes(80),
            1 => body(&random.request().to_line().unwrap()).to_vec(),
            _ => body(&random.message().to_line()).to_vec(),
        };
        for _ in 0..random.below(4) {
            if line.is_empty() {
                break;
            }
            let at = random.below(line.len());
            match random.below(4) {
                0 => line[at] = random.next() as u8,
                1 => line.truncate(at),
                2 => drop(line.remove(at)),
                _ => line.insert(at, b" =%-:0"[random.below(6)]),
            }
        }
        if let Ok(request) = Request::parse(&line) {
            taken += 1;
            assert_eq!(Request::parse(body(&request.to_line().unwrap())).unwrap(), request);
        }
        if let Ok(message) = Message::parse(&line) {
            taken += 1;
            assert_eq!(Message::parse(body(&message.to_line())).unwrap(), message);
        }
    }
    assert!(taken > 500, "the garbage never came near a valid line: {taken}");
}

#[test]
fn what_a_person_may_type() {
    let typed = b"RUN id=v timeout_ms=1000 cwd=/ exec=/usr/bin/env arg=-i env=A=b%20c env=PATH";
    let Request::Run { program, timeout, .. } = Request::parse(typed).unwrap() else { panic!() };
    assert_eq!(timeout, Duration::from_secs(1));
    assert_eq!(program.exec, "/usr/bin/env");
    assert_eq!(program.env, ["A=b c", "PATH"]);
}

#[test]
fn sentences_name_the_mistake() {
    for (line, sentence) in [
        ("", "\"\" is not known to protocol version 1"),
        ("hello 1", "\"hello\" is not known to protocol version 1"),
        ("HELLO", "the field version is missing"),
        ("HELLO 0", "version must be at least 1, got \"0\""),
        ("HELLO +1", "version must be a number, got \"+1\""),
        ("HELLO 99999999999", "version must be a number in range, got \"99999999999\""),
        ("STATUS now", "\"now\" does not belong to this line"),
        ("STATUS ", "a line consists of printable ASCII words with one space between them, other bytes as %XX"),
        ("FENCE\tx", "a line consists of printable ASCII words with one space between them, other bytes as %XX"),
        ("PERMIT epoch=1", "the field until is missing"),
        ("PERMIT epoch=1 until=-1", "until must be \"forever\" or milliseconds of CLOCK_BOOTTIME, got \"-1\""),
        ("PERMIT epoch=1 epoch=2 until=1", "the field epoch is there twice"),
        ("PERMIT epoch=- until=1", "epoch must be 1 to 128 bytes of text other than \"-\", got \"-\""),
        ("PERMIT epoch=%ff until=1", "epoch must be UTF-8, got \"%ff\""),
        ("PERMIT epoch=%0 until=1", "epoch must be percent-encoded (%XX), got \"%0\""),
        ("PERMIT epoch=1 until=1 grace=2", "\"grace=2\" does not belong to this line"),
        ("SIGNAL to=init sig=KILL", "to must be \"postgres\", got \"init\""),
        ("SIGNAL to=postgres sig=STOP", "sig must be HUP, INT, TERM, QUIT, KILL or USR1, got \"STOP\""),
        ("RUN id=a timeout_ms=0 cwd=/ exec=x", "timeout_ms must be at least 1, got \"0\""),
        ("RUN id=a timeout_ms=1 cwd=/ exec=", "exec must be not empty, got \"\""),
        ("RUN id=a timeout_ms=1 cwd=/ exec=x arg=%00", "arg must be without zero bytes, got \"%00\""),
        ("RUN id=a timeout_ms=1 cwd=/ exec=x env==x", "env must be NAME=value or NAME, got \"=x\""),
    ] {
        assert_eq!(Request::parse(line.as_bytes()).unwrap_err().to_string(), sentence, "{line:?}");
    }
}

#[test]
fn limits() {
    let run = |args, stdin| Request::Run {
        id: "x".into(),
        timeout: Duration::from_secs(1),
        program: Program { exec: "x".into(), cwd: "/".into(), args, ..Program::default() },
        stdin: Some(stdin),
    };
    assert!(run(vec![], vec![b'a'; MAX_STDIN]).to_line().is_ok());
    assert_eq!(
        run(vec![], vec![b'a'; MAX_STDIN + 1]).to_line(),
        Err(Malformed::TooLong { what: "stdin", limit: MAX_STDIN })
    );
    let long = vec!["a".repeat(MAX_REQUEST).into()];
    assert_eq!(run(long, vec![]).to_line(), Err(Malformed::TooLong { what: "a request", limit: MAX_REQUEST }));
    assert!(Request::Permit { epoch: "e".repeat(MAX_NAME + 1), until: Permit::Forever }.to_line().is_err());
}

#[test]
fn binary_output_still_fits_one_message() {
    let output = || Output { bytes: (0..MAX_OUTPUT).map(|i| (i % 251) as u8).collect(), lost: 7 };
    let message = Message::Done(Done { id: "x".into(), exit: Exit::Code(0), out: output(), err: output() });
    let line = message.to_line();
    assert!(line.len() <= MAX_MESSAGE && line.len() > MAX_MESSAGE - 4096, "{}", line.len());
    let Message::Done(done) = Message::parse(body(&line)).unwrap() else { panic!() };
    for kept in [done.out, done.err] {
        assert_eq!(kept.bytes.len() as u64 + kept.lost, MAX_OUTPUT as u64 + 7);
        assert!(output().bytes.ends_with(&kept.bytes));
    }
}

#[test]
fn an_answer_of_a_later_supervisor_is_understood() {
    let line = b"OK STATUS postgres=7 epoch=3.abc permit=none started=5 last_exit=- stopping=0 tools=0 colour=red";
    assert!(matches!(Message::parse(line), Ok(Message::Response(Response::Status(_)))));
    assert_eq!(
        Message::parse(b"OK HELLO 1 boot=77 build=x"),
        Ok(Message::Response(Response::Hello { version: 1, boot: Boottime(77) }))
    );
    let Ok(Message::Response(Response::Error(refusal))) = Message::parse(b"ERR strange why%20not") else { panic!() };
    assert_eq!((refusal.to_string(), refusal.code), ("why not".into(), ErrorCode::Other("strange".into())));
}
