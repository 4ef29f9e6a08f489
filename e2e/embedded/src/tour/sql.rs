//! psql, which reaches the set's Services at this machine's addresses.

use super::Context;
use super::client::Client;
use crate::postgres::{LIBRARY_PATH, libraries};
use anyhow::{Context as _, bail};
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// For a statement of the tour; the failover has its own, shorter one.
const LIMIT: Duration = Duration::from_secs(20);
/// For the addresses of Services, which come with the set.
const ADDRESSES: Duration = Duration::from_secs(30);

/// A way to the set. Names and the password are in a service file, which only its owner can read: no password is ever in
/// the arguments of a program.
#[derive(Debug, Clone)]
pub(super) struct Sql {
    psql: PathBuf,
    /// What `PGSERVICEFILE` must be.
    pub(super) file: PathBuf,
}

impl Sql {
    /// Writes the services of a set into the service file: `rw`, `ro` and `r` of the tour's set, `<set>-rw` … of others.
    ///
    /// # Errors
    /// When the set has no Secret or no Services.
    pub(super) async fn of(context: &Context, client: &Client, set: &str) -> anyhow::Result<Self> {
        let secret = client.get("secrets", &format!("{set}-app")).await?;
        let names = ["rw", "ro", "r"].map(|s| (s, format!("default/{set}-{s}")));
        let mut known = context.addresses.clone();
        let all = known.wait_for(|k| names.iter().all(|(_, n)| k.contains_key(n)));
        let addresses = tokio::time::timeout(ADDRESSES, all).await.context("the set's Services have no addresses")?;
        let addresses = addresses.context("the cluster ended")?.clone();
        let called = |short: &str| if set == super::steps::SET { short.to_owned() } else { format!("{set}-{short}") };
        let services = names.iter().filter_map(|(short, n)| Some((called(short), *addresses.get(n)?)));
        let text = service_file(&secret["data"], &services.collect())?;
        let file = context.directory.join("pg_service.conf");
        let open = std::fs::File::options().create(true).append(true).mode(0o600).open(&file);
        let written = open.and_then(|mut f| f.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { psql: context.postgres.bin.join("psql"), file })
    }

    fn command(&self, service: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.psql);
        command.arg(format!("service={service}")).arg("-X").args(arguments);
        command.env("PGSERVICEFILE", &self.file).env("PGCONNECT_TIMEOUT", "5");
        command.envs(libraries(self.psql.parent().unwrap_or(&self.psql)).map(|l| (LIBRARY_PATH, l)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a statement and returns the bare values.
    ///
    /// # Errors
    /// What psql says.
    pub(super) async fn quietly(&self, service: &str, statement: &str) -> anyhow::Result<String> {
        let done = self.command(service, &["-Atq", "-c", statement]).output().await.context("psql cannot be run")?;
        if !done.status.success() {
            bail!("{}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// Shows a statement and what comes of it; whether it succeeded.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn show(&self, service: &str, statement: &str) -> anyhow::Result<bool> {
        println!("  $ psql service={service} -c \"{statement}\"");
        let mut command = self.command(service, &["-c", statement]);
        let done = tokio::time::timeout(LIMIT, command.output());
        let done = done
            .await
            .with_context(|| format!("psql got no answer within {LIMIT:?}"))?
            .context("psql cannot be run")?;
        for line in String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).lines().filter(|l| !l.is_empty()) {
            println!("  {line}");
        }
        Ok(done.status.success())
    }

    /// Shows a statement that has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn must(&self, service: &str, statement: &str) -> anyhow::Result<()> {
        if !self.show(service, statement).await? {
            bail!("that should have worked");
        }
        Ok(())
    }
}

/// A file that psql reads: one section for each Service.
fn service_file(secret: &Value, services: &BTreeMap<String, SocketAddr>) -> anyhow::Result<String> {
    let value = |key: &str| -> anyhow::Result<String> {
        let text = secret[key].as_str().with_context(|| format!("the set's Secret has no {key}"))?;
        Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text)?)?)
    };
    let (user, password, database) = (value("username")?, value("password")?, value("dbname")?);
    let mut text = String::new();
    for (name, at) in services {
        let (host, port) = (at.ip(), at.port());
        write!(
            text,
            "[{name}]\nhost={host}\nport={port}\nuser={user}\npassword={password}\ndbname={database}\nsslmode=require\n\n"
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;
    use serde_json::json;

    #[test]
    fn each_service_is_a_section_with_its_own_port() {
        let base64 = |t: &str| base64::engine::general_purpose::STANDARD.encode(t);
        let secret = json!({ "username": base64("app"), "password": base64("p w"), "dbname": base64("app") });
        let at = |t: &str| t.parse::<SocketAddr>().unwrap();
        let services = [("rw".to_owned(), at("127.96.0.11:5432")), ("ro".to_owned(), at("127.96.0.12:40001"))].into();
        let file = service_file(&secret, &services).unwrap();
        assert!(file.contains("[rw]\nhost=127.96.0.11\nport=5432\nuser=app\npassword=p w\n"), "{file}");
        assert!(file.contains("[ro]\nhost=127.96.0.12\nport=40001\n"), "{file}");
        assert!(service_file(&json!({}), &services).is_err());
    }
}
