//! How one line begins. Pure.

use std::time::Duration;

/// What [`pgconvoy_supervisor::log_line::PREFIX`] says, and where the rest of the line begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// When, counted from 1970. None: the line does not say it in a way that can be relied on.
    pub(crate) at: Option<Duration>,
    pub(crate) pid: u64,
    pub(crate) backend_type: String,
    /// SQLSTATE; empty when it is not said.
    pub(crate) state_code: String,
    pub(crate) remote_host: String,
    pub(crate) user: String,
    pub(crate) dbname: String,
    pub(crate) application_name: String,
}

/// What a line turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start<'a> {
    /// PostgreSQL's, with what follows its prefix.
    Head(Head, &'a [u8]),
    /// It began as one of PostgreSQL's, but its prefix goes on in another line, which has this: a name holds a line end.
    Unfinished(String),
    /// Anything else.
    Other,
}

/// Reads the beginning of a line.
pub(crate) fn read(line: &[u8]) -> Start<'_> {
    ours(line).or_else(|| before_configuration(line)).unwrap_or(Start::Other)
}

/// A line under our prefix.
fn ours(line: &[u8]) -> Option<Start<'_>> {
    let mut parts = line.splitn(5, |b| *b == b'\t');
    let mut part = || std::str::from_utf8(parts.next()?).ok();
    let (stamp, pid, backend_type, state_code) = (part()?, part()?, part()?, part()?);
    let rest = parts.next()?;
    let (seconds, millis) = stamp.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(millis) || millis.len() != 3 || !digits(pid) || state_code.len() != 5 {
        return None;
    }
    let at = Duration::from_secs(seconds.parse().ok()?) + Duration::from_millis(millis.parse().ok()?);
    let pid_number = pid.parse().ok()?;
    let end = format!("\t{pid}.{stamp}\t");
    let Some(place) = find(rest, &end) else { return Some(Start::Unfinished(end)) };
    let (names, text) = (rest.get(..place)?, rest.get(place + end.len()..)?);
    // A tab in a name spoils the names of this line only.
    let mut names = names.splitn(4, |b| *b == b'\t').map(|n| String::from_utf8_lossy(n).into_owned());
    let mut name = || names.next().unwrap_or_default();
    let head = Head {
        at: Some(at),
        pid: pid_number,
        backend_type: backend_type.to_owned(),
        state_code: state_code.to_owned(),
        remote_host: name(),
        user: name(),
        dbname: name(),
        application_name: name(),
    };
    Some(Start::Head(head, text))
}

/// Where `mark` stands in `text`.
pub(crate) fn find(text: &[u8], mark: &str) -> Option<usize> {
    text.windows(mark.len()).position(|w| w == mark.as_bytes())
}

/// A line that PostgreSQL writes before it has read its configuration: `2026-11-26 15:00:27.697 GMT [27] FATAL:  …`.
fn before_configuration(line: &[u8]) -> Option<Start<'_>> {
    // Nothing in it is longer; and what is not text here is not such a line.
    let begin = line.get(..line.len().min(80))?;
    let open = begin.iter().position(|b| *b == b'[')?;
    let close = open + line.get(open..)?.iter().position(|b| *b == b']')?;
    let mut words = std::str::from_utf8(line.get(..open)?).ok()?.split(' ');
    let (date, time, zone) = (words.next()?, words.next()?, words.next()?);
    let numbers = |text: &str, seps: &[char], n: usize| {
        let parts: Vec<_> = text.split(seps).collect();
        parts.len() == n && parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
    };
    if !numbers(date, &['-'], 3) || !numbers(time, &[':', '.'], 4) || zone.is_empty() || words.next() != Some("") {
        return None;
    }
    let pid = std::str::from_utf8(line.get(open + 1..close)?).ok()?.parse().ok()?;
    let text = line.get(close + 1..)?.strip_prefix(b" ")?;
    super::message::severity(text)?;
    // When it was is known as well by whoever reads the line as by its text, whose zone may be any.
    Some(Start::Head(Head { pid, ..Head::default() }, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        b"1764169224.228\t27\tclient backend\t42P01\t10.0.0.9(1)\tapp\tshop\tpsql\t27.1764169224.228\tERROR:  no";

    fn head(line: &[u8]) -> (Head, &[u8]) {
        match read(line) {
            Start::Head(head, text) => (head, text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_fields_of_our_prefix() {
        let (head, text) = head(LINE);
        assert_eq!(head.at, Some(Duration::from_millis(1_764_169_224_228)));
        assert_eq!((head.pid, head.backend_type.as_str(), head.state_code.as_str()), (27, "client backend", "42P01"));
        assert_eq!((head.remote_host.as_str(), head.user.as_str()), ("10.0.0.9(1)", "app"));
        assert_eq!((head.dbname.as_str(), head.application_name.as_str()), ("shop", "psql"));
        assert_eq!(text, b"ERROR:  no");
    }

    #[test]
    fn a_process_without_a_session_has_no_names() {
        let (head, text) = head(b"1.000\t1\tpostmaster\t00000\t\t\t\t\t1.1.000\tLOG:  a\tb");
        assert_eq!((head.user, head.application_name, text), (String::new(), String::new(), &b"LOG:  a\tb"[..]));
    }

    #[test]
    fn a_name_cannot_be_taken_for_another_line() {
        let forged = b"1.000\t7\tclient backend\t28P01\t[local]\tx\nLOG:  all is well\t\t\t8.1.000\tLOG:  y\td\ta\t7.1.000\tFATAL:  no";
        let (head, text) = head(forged);
        assert_eq!(text, b"FATAL:  no");
        assert_eq!(head.user, "x\nLOG:  all is well");
        let first = forged.split(|b| *b == b'\n').next().unwrap();
        assert_eq!(read(first), Start::Unfinished("\t7.1.000\t".into()));
    }

    #[test]
    fn names_that_are_not_text() {
        let (head, _) = head(b"1.000\t7\tclient backend\t28P01\t[local]\t\xff\xfe\td\ta\t7.1.000\tFATAL:  no");
        assert_eq!(head.user, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_form_before_the_configuration() {
        let (h, text) = head(b"2026-11-26 15:00:27.697 GMT [27] FATAL:  no");
        assert_eq!((h.pid, h.at, text), (27, None, &b"FATAL:  no"[..]));
        for other in [
            &b""[..],
            b"\t",
            b"postgres: could not find",
            b"2026-11-26 15:00:27.697 GMT [27] no",
            b"2026-11-26 [27] FATAL:  no",
            b"2026-11-26 15:00:27.697 GMT [x] FATAL:  no",
            b"1764169224.228\t27\tclient backend",
            b"x.228\t27\tclient backend\t42P01\t",
            b"\xff\xff",
        ] {
            assert_eq!(read(other), Start::Other, "{:?}", String::from_utf8_lossy(other));
        }
    }
}
