//! Between PostgreSQL's `restore_command` and a [`Fetcher`]: a directory of the volume, and a shell script that hands the name over
//! in it and moves what it finds there. Nothing but a shell is needed where PostgreSQL runs.

use super::{
    error::Error,
    fetcher::{Fetched, Fetcher},
};
use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

/// How often it is looked whether PostgreSQL asks for a file.
const ASKED: Duration = Duration::from_millis(10);

/// `restore_command`: 0 = there; 1 = no such file, which ends recovery; 126 and more = an error, which stops it.
const SCRIPT: &str = r#"#!/bin/sh
# restore_command of pgconvoy: asks the agent for file $1 and moves it to $2
dir=${0%/*}
rm -f "$dir/ready.$1" "$dir/absent.$1" "$dir/failed.$1"
: > "$dir/want.$1" || exit 126
n=0
while [ $n -lt 60000 ]; do
  if [ -e "$dir/ready.$1" ]; then mv "$dir/ready.$1" "$2" && exit 0; exit 126; fi
  if [ -e "$dir/absent.$1" ]; then rm -f "$dir/absent.$1"; exit 1; fi
  if [ -e "$dir/failed.$1" ]; then cat "$dir/failed.$1" >&2; exit 126; fi
  n=$((n + 1))
  sleep 0.01
done
echo "the agent gave no answer about $1" >&2
exit 126
"#;

/// The directory where both meet.
#[derive(Debug, Clone)]
pub struct Exchange(PathBuf);

impl Exchange {
    /// Makes the directory anew, with the script in it.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn prepare(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let exchange = Self(dir.into());
        exchange.remove()?;
        fs::create_dir_all(&exchange.0).map_err(Error::disk("create", &exchange.0))?;
        let script = exchange.0.join("fetch");
        fs::write(&script, SCRIPT).map_err(Error::disk("write", &script))?;
        Ok(exchange)
    }

    /// Removes the directory and what lies in it.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::disk("remove", &self.0)(e)),
            _ => Ok(()),
        }
    }

    /// What PostgreSQL's `restore_command` has to be for a directory.
    pub fn command(dir: &Path) -> String {
        format!("sh \"{}\" \"%f\" \"%p\"", dir.join("fetch").display())
    }

    /// Answers the script for as long as PostgreSQL runs.
    pub async fn serve(&self, fetcher: &Fetcher) -> Infallible {
        loop {
            for name in self.wanted() {
                let at = |what: &str| self.0.join(format!("{what}.{name}"));
                let part = at("part");
                let answer = match fetcher.fetch(&name, &part).await {
                    Ok(Fetched::Done) => fs::rename(&part, at("ready")),
                    Ok(Fetched::Absent) => fs::write(at("absent"), ""),
                    Err(e) => {
                        tracing::error!("restoring from the archive: {name}: {e}");
                        fs::write(at("failed"), format!("{e}\n"))
                    }
                };
                if let Err(e) = answer {
                    tracing::error!("{} cannot be written: {e}", self.0.display());
                }
            }
            sleep(ASKED).await;
        }
    }

    /// Files that PostgreSQL asks for; each is told once.
    fn wanted(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let paths = entries.flatten().map(|e| e.path());
        let name = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix("want.")?.to_owned();
            fs::remove_file(&path).ok()?;
            Some(name)
        };
        paths.filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What the script says to a file, with an agent that answers as `answer` has it.
    fn asked(answer: impl FnOnce(&Path) + Send + 'static) -> (Option<i32>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let exchange = Exchange::prepare(dir.path().join("restore")).unwrap();
        let agent = exchange.clone();
        let agent = std::thread::spawn(move || {
            while agent.wanted() != ["one"] {
                std::thread::sleep(Duration::from_millis(5));
            }
            answer(&agent.0);
        });
        let mut command = Command::new("sh");
        let status = command.arg(exchange.0.join("fetch")).arg("one").arg(dir.path().join("to")).status().unwrap();
        agent.join().unwrap();
        (status.code(), dir)
    }

    #[test]
    fn postgresql_is_told_a_missing_file_from_an_error() {
        let (code, dir) = asked(|e| fs::write(e.join("ready.one"), "wal").unwrap());
        assert_eq!((code, fs::read_to_string(dir.path().join("to")).unwrap().as_str()), (Some(0), "wal"));
        assert_eq!(asked(|e| fs::write(e.join("absent.one"), "").unwrap()).0, Some(1));
        assert_eq!(asked(|e| fs::write(e.join("failed.one"), "a gap\n").unwrap()).0, Some(126));
    }
}
