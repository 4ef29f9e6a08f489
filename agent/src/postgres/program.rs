//! Programs of the database's image, run by the supervisor.

use super::{
    Error,
    supervisor::{self, Supervisor},
};
use pgconvoy_supervisor::protocol::{Done, ErrorCode, Program};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// For programs that look at something and end.
const SHORT: Duration = Duration::from_secs(20);
/// How much of what a program said is quoted.
const QUOTE: usize = 600;

/// Where the programs are, and who runs them.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) supervisor: Supervisor,
    /// Their directory; none: the container's `PATH`.
    pub(crate) directory: Option<PathBuf>,
    /// A directory that is there in the postgres container: the volume.
    pub(crate) cwd: PathBuf,
}

impl Programs {
    /// A call of `name`.
    pub(crate) fn program(&self, name: &str, args: impl IntoIterator<Item = OsString>) -> Program {
        let exec = self.directory.as_ref().map_or_else(|| name.into(), |d| d.join(name).into_os_string());
        Program {
            exec,
            cwd: self.cwd.clone().into_os_string(),
            args: args.into_iter().collect(),
            // Messages that we read are in English, and the server's own locale comes from its configuration.
            env: ["LC_ALL=C", "PGDATA"].map(OsString::from).to_vec(),
            lock: None,
        }
    }

    /// Runs `name` to its end, whatever that is.
    pub(crate) async fn run(
        &self,
        name: &'static str,
        args: impl IntoIterator<Item = OsString>,
        within: Duration,
    ) -> Result<Done, Error> {
        Ok(self.supervisor.run(name, self.program(name, args), within).await?)
    }

    /// Runs `name`, which must succeed; its standard output.
    pub(crate) async fn output(
        &self,
        name: &'static str,
        args: impl IntoIterator<Item = OsString>,
        within: Duration,
    ) -> Result<String, Error> {
        let done = self.run(name, args, within).await?;
        if done.exit.success() { Ok(done.out.text()) } else { Err(failed(name, &done)) }
    }

    /// The image's PostgreSQL version, like `17.6`, and its major number.
    pub(crate) async fn version(&self) -> Result<(String, u32), Error> {
        let unusable = |why: &str| {
            Error::Image(format!(
                "the pod's image holds no PostgreSQL that can be run ({why}); name one in spec.image, like \
                 docker.io/library/postgres:17"
            ))
        };
        let text = match self.output("postgres", ["--version".into()], SHORT).await {
            Err(Error::Supervisor(supervisor::Error::Refused(no))) if no.code == ErrorCode::Exec => {
                return Err(unusable(&no.sentence));
            }
            Err(failed @ Error::Program { .. }) => return Err(unusable(&failed.to_string())),
            text => text?,
        };
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        let version = text.split(") ").nth(1).and_then(|t| t.split_whitespace().next()).unwrap_or_default().to_owned();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        let major =
            digits.parse().map_err(|_| unusable(&format!("postgres --version says {:?}", tail(text.trim()))))?;
        if !(15..=18).contains(&major) {
            return Err(Error::Image(format!(
                "the PostgreSQL of the pod's image is {version}, and pgconvoy runs versions 15 to 18; name such an image \
                 in spec.image"
            )));
        }
        Ok((version, major))
    }

    /// The name that the container's passwd has for PostgreSQL's uid.
    pub(crate) async fn user(&self) -> Result<String, Error> {
        let mut program = self.program("id", ["-un".into()]);
        program.exec = "id".into();
        let done = self.supervisor.run("id", program, SHORT).await?;
        if !done.exit.success() {
            return Err(failed("id", &done));
        }
        Ok(done.out.text().trim().to_owned())
    }

    /// What PostgreSQL reads out of the configuration file `conf` for one parameter; refused with PostgreSQL's reasons
    /// when the file is not usable. Needs no running server and disturbs none.
    pub(crate) async fn configured(&self, conf: &Path, directory: &Path, name: &str) -> Result<String, Error> {
        let mut config_file = OsString::from("config_file=");
        config_file.push(conf);
        let args: [OsString; 6] = ["-C".into(), name.into(), "-D".into(), directory.into(), "-c".into(), config_file];
        let done = self.run("postgres", args, SHORT).await?;
        if done.exit.success() {
            return Ok(done.out.text().trim().to_owned());
        }
        Err(Error::Configuration(reasons(&done.err.text(), conf)))
    }

    /// What the control file says, by `pg_controldata`'s own labels.
    pub(crate) async fn control_data(&self, pgdata: &Path) -> Result<BTreeMap<String, String>, Error> {
        let text = self.output("pg_controldata", ["-D".into(), pgdata.into()], SHORT).await?;
        let pair = |l: &str| l.split_once(':').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()));
        Ok(text.lines().filter_map(pair).collect())
    }
}

pub(crate) fn failed(program: &'static str, done: &Done) -> Error {
    let mut said = done.err.text();
    if said.trim().is_empty() {
        said = done.out.text();
    }
    Error::Program { program, exit: done.exit.to_string(), said: tail(said.trim()) }
}

fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(QUOTE);
    text.chars().skip(skip).collect()
}

/// The reasons in PostgreSQL's messages, without prefixes, and without our file's name, which means nothing to a user.
fn reasons(text: &str, conf: &Path) -> String {
    let mut said: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some((_, message)) =
            ["LOG:  ", "FATAL:  ", "ERROR:  ", "DETAIL:  ", "HINT:  "].iter().find_map(|label| line.split_once(label))
        else {
            continue;
        };
        if message.contains("contains errors") || message.contains("skipping missing configuration file") {
            continue;
        }
        let place = format!(" in file \"{}\"", conf.display());
        let message = message.replace(&place, "");
        let message = match message.rsplit_once(" line ") {
            Some((rest, number)) if number.bytes().all(|b| b.is_ascii_digit()) => rest.trim().to_owned(),
            _ => message.trim().to_owned(),
        };
        if !message.is_empty() && !said.contains(&message) {
            said.push(message);
        }
    }
    if said.is_empty() { tail(text.trim()) } else { tail(&said.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short() {
        let text = "2026-01-01 LOG:  unrecognized configuration parameter \"wrk_mem\" in file \"/v/c.conf\" line 18\n\
                    2026-01-01 FATAL:  configuration file \"/v/c.conf\" contains errors\n";
        assert_eq!(reasons(text, Path::new("/v/c.conf")), "unrecognized configuration parameter \"wrk_mem\"");
        assert_eq!(reasons("what", Path::new("/v/c.conf")), "what");
    }
}
