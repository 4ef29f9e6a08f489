//! The command line.

use pgconvoy_supervisor::protocol;
use std::{ffi::OsString, path::PathBuf, time::Duration};

/// What to do.
pub(crate) enum Command {
    Serve(Options),
    Print(String),
}

/// How to do it.
pub(crate) struct Options {
    /// Where to listen.
    pub(crate) socket: PathBuf,
    /// How long the agent may take to answer that it stops PostgreSQL. Too short: a hand-over becomes a plain stop; too
    /// long: with no agent the grace period of the pod is spent waiting.
    pub(crate) stop_timeout: Duration,
}

const USAGE: &str = "usage: pgconvoy-supervisor --socket <path> [--stop-timeout-ms <milliseconds, default 2000>]";

impl Options {
    pub(crate) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Command, String> {
        let (mut socket, mut stop_timeout) = (None, Duration::from_millis(2000));
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{} needs a value. {USAGE}", word.display()));
            match word.to_str() {
                Some("--socket") => socket = Some(PathBuf::from(value()?)),
                Some("--stop-timeout-ms") => {
                    let text = value()?;
                    let millis = text.to_str().and_then(|t| t.parse::<u32>().ok()).ok_or_else(|| {
                        format!("--stop-timeout-ms must be a number of milliseconds, got {:?}. {USAGE}", text)
                    })?;
                    stop_timeout = Duration::from_millis(u64::from(millis));
                }
                Some("--version") => {
                    let version = env!("CARGO_PKG_VERSION");
                    return Ok(Command::Print(format!(
                        "pgconvoy-supervisor {version}, protocol {}",
                        protocol::VERSION
                    )));
                }
                Some("--help") => return Ok(Command::Print(USAGE.to_owned())),
                _ => return Err(format!("{:?} is not an option. {USAGE}", word)),
            }
        }
        let socket = socket.ok_or_else(|| format!("--socket is missing. {USAGE}"))?;
        Ok(Command::Serve(Self { socket, stop_timeout }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Command, String> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn options_and_their_mistakes() {
        let Ok(Command::Serve(o)) = parse(&["--socket", "/s", "--stop-timeout-ms", "7"]) else { panic!() };
        assert_eq!((o.socket, o.stop_timeout), (PathBuf::from("/s"), Duration::from_millis(7)));
        for (words, begin) in [
            (&[][..], "--socket is missing"),
            (&["--socket"], "--socket needs a value"),
            (&["--sock", "/s"], "\"--sock\" is not an option"),
            (&["--socket", "/s", "--stop-timeout-ms", "2s"], "--stop-timeout-ms must be a number"),
        ] {
            assert!(parse(words).err().unwrap().starts_with(begin));
        }
    }
}
