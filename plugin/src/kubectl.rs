//! The user's own kubectl, for what needs a stream into a container.

use crate::access::Access;
use crate::problem::Problem;
use pgconvoy_crds::pod::{CONTAINER_POSTGRES, PG_SOCKET_DIR, SUPERUSER};
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// How psql's terminal is wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// Nothing is typed.
    None,
    /// Input comes from a file or a pipe.
    Stdin,
    /// A person types.
    Tty,
}

/// `kubectl exec … psql <args>` as superuser over the socket of `pod`. Connection and settings are environment and not
/// arguments, so that whatever psql is told beside them wins.
pub(crate) fn psql(
    access: &Access,
    pod: &str,
    terminal: Terminal,
    database: &str,
    settings: &[(&str, &str)],
    args: &[OsString],
) -> Command {
    let mut command = Command::new("kubectl");
    command.args(access.kubectl_flags()).args(exec(pod, terminal, database, settings)).args(args);
    command
}

fn exec(pod: &str, terminal: Terminal, database: &str, settings: &[(&str, &str)]) -> Vec<OsString> {
    let wiring: &[&str] = match terminal {
        Terminal::None => &[],
        Terminal::Stdin => &["--stdin"],
        Terminal::Tty => &["--stdin", "--tty"],
    };
    let connection = [("PGHOST", PG_SOCKET_DIR), ("PGUSER", SUPERUSER), ("PGDATABASE", database)];
    let environment = connection.iter().chain(settings).map(|(name, value)| format!("{name}={value}").into());
    let mut line: Vec<OsString> = vec!["exec".into()];
    line.extend(wiring.iter().map(Into::into));
    line.extend([pod, "--container", CONTAINER_POSTGRES, "--", "env"].map(Into::into));
    line.extend(environment);
    line.push("psql".into());
    line
}

/// Takes this process's place, so that signals and the exit status are the program's.
#[cfg(unix)]
pub(crate) fn become_it(mut command: Command) -> Result<ExitCode, Problem> {
    use std::os::unix::process::CommandExt;
    Err(not_started(command.exec()))
}

#[cfg(not(unix))]
pub(crate) fn become_it(mut command: Command) -> Result<ExitCode, Problem> {
    let status = command.status().map_err(not_started)?;
    Ok(status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What it means that kubectl could not be started.
pub(crate) fn not_started(why: std::io::Error) -> Problem {
    match why.kind() {
        std::io::ErrorKind::NotFound => Problem::NoKubectl,
        _ => Problem::Kubectl(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psql_is_reached_over_the_socket_as_superuser() {
        let line = exec("orders-1", Terminal::Tty, "shop", &[("PGOPTIONS", "-c x=1")]);
        let line: Vec<_> = line.iter().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(
            line.join(" "),
            "exec --stdin --tty orders-1 --container postgres -- env PGHOST=/run/pgconvoy PGUSER=postgres \
             PGDATABASE=shop PGOPTIONS=-c x=1 psql"
        );
        assert!(!exec("p", Terminal::Stdin, "d", &[]).contains(&"--tty".into()));
        assert!(!exec("p", Terminal::None, "d", &[]).contains(&"--stdin".into()));
    }
}
