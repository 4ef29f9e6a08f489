//! Putting a configuration in force: the files, the reload, and the new session that proves it.

use super::{
    Error,
    configuration::{self, Files, Frame, Role},
    disk,
    server::{FILES, Postgres},
    sql::Session,
};
use crate::settings::Paths;
use pgconvoy_supervisor::protocol::Signal;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a reload may take until a new session shows it.
const RELOAD: Duration = Duration::from_secs(10);

impl Postgres {
    /// The text of the configuration for a role.
    pub(crate) async fn files(&self, role: &Role) -> Result<Files, Error> {
        let Some(user) = self.kept().accepted.clone() else {
            return Err(Error::NotYet("the spec's configuration has not been looked at yet".into()));
        };
        let floors = self.floors_in_force().await?;
        let (major, system_user) = self.image().await?;
        let (config, role) = (self.config.clone(), role.clone());
        let render = move || {
            let paths = &config.identity.paths;
            Ok(configuration::files(
                &Frame {
                    identity: &config.identity,
                    listen: &config.listen,
                    system_user: &system_user,
                    floors: &floors,
                    volume: volume_size(&paths.volume),
                    major,
                    certificates: configuration::certificates(&paths.tls),
                },
                &user,
                &role,
            ))
        };
        self.disk.run("reading the certificates", FILES, render).await
    }

    /// Puts the configuration of a role in force, and returns when a new session shows it: that session, if it had to be
    /// reloaded. `fresh`: a session that was opened since this was called last.
    pub(crate) async fn apply(&self, role: &Role, fresh: &Session) -> Result<Option<Session>, Error> {
        let files = self.files(role).await?;
        if shows(fresh, &files).await? {
            return Ok(None);
        }
        let paths = self.paths().clone();
        let written = files.clone();
        let before = paths.pgdata.join("pg_hba.conf");
        let old_hba = self
            .disk
            .run("writing the configuration", FILES, move || {
                let old = disk::read(&before)?;
                put(&paths, &written)?;
                Ok(old)
            })
            .await?;
        let sql = "SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 1";
        if let Some(row) = fresh.rows("checking the hba lines", sql).await?.first() {
            // Before the reload nobody has read it; a start would fail with it.
            let path = self.paths().pgdata.join("pg_hba.conf");
            let old = old_hba.unwrap_or_default();
            self.disk.run("putting the hba lines back", FILES, move || disk::show(&path, &old)).await?;
            return Err(Error::Hba(format!(
                "PostgreSQL refuses a line of postgresql.hba: {}",
                row.text(0).unwrap_or_default()
            )));
        }
        self.supervisor.signal(Signal::Hup).await?;
        let begun = Instant::now();
        loop {
            let session = self.session().await?;
            if shows(&session, &files).await? {
                self.report_pending(&session).await?;
                return Ok(Some(session));
            }
            if begun.elapsed() > RELOAD {
                return Err(self.reload_failed(&session).await);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn reload_failed(&self, session: &Session) -> Error {
        let sql = "SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL LIMIT 1";
        match session.rows("reading why the configuration was not taken", sql).await.as_deref() {
            Ok([row, ..]) => Error::Configuration(format!(
                "PostgreSQL did not take the configuration: {}: {}",
                row.text(0).unwrap_or_default(),
                row.text(1).unwrap_or_default()
            )),
            _ => Error::Timeout { doing: "reloading the configuration", after: RELOAD },
        }
    }

    /// Reports which parameters wait for a restart.
    pub(crate) async fn report_pending(&self, session: &Session) -> Result<(), Error> {
        let sql = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name";
        let rows = session.rows("reading which parameters wait for a restart", sql).await?;
        let names: Vec<String> = rows.iter().filter_map(|r| r.text(0)).map(str::to_owned).collect();
        self.report.send_if_modified(|r| std::mem::replace(&mut r.pending_restart, names.clone()) != names);
        Ok(())
    }
}

/// Whether a session shows these files. It proves something if it is younger than the last change to them.
async fn shows(session: &Session, files: &Files) -> Result<bool, Error> {
    let sql = "SELECT current_setting('pgconvoy.configuration', true)";
    let row = session.row("reading the configuration in force", sql).await?;
    Ok(row.text(0) == Some(files.fingerprint.as_str()))
}

fn volume_size(volume: &std::path::Path) -> u64 {
    nix::sys::statvfs::statvfs(volume).map_or(0, |s| s.blocks() * s.fragment_size())
}

/// Writes the configuration files.
pub(crate) fn put(paths: &Paths, files: &Files) -> Result<(), Error> {
    let at = |name: &str| paths.pgdata.join(name);
    let text = |path: &std::path::Path| -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&disk::read(path)?.unwrap_or_default()).into_owned())
    };
    let main = at("postgresql.conf");
    if let Some(with) = configuration::with_include(&text(&main)?) {
        disk::write(&main, with.as_bytes())?;
    }
    let auto = at("postgresql.auto.conf");
    if let Some(without) = configuration::without_owned(&text(&auto)?) {
        disk::write(&auto, without.as_bytes())?;
    }
    // Before every start they are written again.
    disk::show(&at("pg_hba.conf"), files.hba.as_bytes())?;
    disk::show(&at("pg_ident.conf"), files.ident.as_bytes())?;
    disk::show(&at("pgconvoy.conf"), files.conf.as_bytes())
}
