//! What a leader makes in its database: the table of epochs, the roles, the application's database.
//!
//! All of it is idempotent and committed locally only: it must not wait for followers, which cannot even connect before
//! the replication role is there. The epoch's row is the one thing that waits (`promote.rs`).

use super::{
    Error, configuration, disk,
    server::{FILES, Postgres},
    sql::{AGENT, Session, identifier, literal},
};
use pgconvoy_crds::pod;
use pgconvoy_terms::Epoch;
use std::time::Duration;

/// CREATE DATABASE copies a template, on a disk that may be slow.
const SLOW: Duration = Duration::from_secs(60);

/// The application Secret.
struct Application {
    user: String,
    database: String,
    /// None as long as the Secret holds none.
    password: Option<Vec<u8>>,
    sum: u64,
}

impl Postgres {
    async fn local_session(&self, database: &str) -> Result<Session, Error> {
        let session = Session::open_as(&self.address(), database, AGENT, SLOW).await?;
        session.run("setting synchronous_commit", "SET synchronous_commit = local").await?;
        Ok(session)
    }

    /// Makes the table of epochs.
    pub(crate) async fn prepare_schema(&self, session: &Session) -> Result<(), Error> {
        let there = "SELECT to_regclass('pgconvoy.epoch') IS NOT NULL";
        if session.row("looking for the table of epochs", there).await?.flag(0) {
            return Ok(());
        }
        let session = self.local_session("postgres").await?;
        let sql = "CREATE SCHEMA IF NOT EXISTS pgconvoy; \
                   CREATE TABLE IF NOT EXISTS pgconvoy.epoch (\
                     number bigint PRIMARY KEY, id text NOT NULL, leader text NOT NULL, \
                     tries bigint NOT NULL DEFAULT 1, at timestamptz NOT NULL DEFAULT now())";
        session.rows_within("making the table of epochs", sql, SLOW).await.map(drop)
    }

    /// Does what a new leader has to do once, and applies the application Secret whenever it changed.
    pub(crate) async fn provision(&self, epoch: &Epoch) -> Result<(), Error> {
        if self.kept().provisioned.as_ref() != Some(epoch) {
            let session = self.local_session("postgres").await?;
            self.replication_role(&session).await?;
            self.kept().provisioned = Some(epoch.clone());
            self.kept().application = None;
        }
        let application = self.application().await?;
        if self.kept().application != Some(application.sum) {
            let session = self.local_session("postgres").await?;
            self.application_role(&session, &application).await?;
            self.kept().application = Some(application.sum);
        }
        Ok(())
    }

    async fn replication_role(&self, session: &Session) -> Result<(), Error> {
        let role = identifier(pod::REPLICATION_ROLE);
        let exists = format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(pod::REPLICATION_ROLE));
        if session.rows("looking for the replication role", &exists).await?.is_empty() {
            let sql = format!("CREATE ROLE {role} LOGIN REPLICATION");
            session.rows_within("making the replication role", &sql, SLOW).await?;
        }
        // What pg_rewind calls on its source.
        let grants = format!(
            "ALTER ROLE {role} LOGIN REPLICATION; \
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO {role}; \
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO {role}; \
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO {role}; \
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO {role}"
        );
        session.rows_within("granting what the replication role needs", &grants, SLOW).await.map(drop)
    }

    async fn application_role(&self, session: &Session, app: &Application) -> Result<(), Error> {
        if app.user == pod::SUPERUSER || app.user == pod::REPLICATION_ROLE {
            return Err(Error::Configuration(format!(
                "bootstrap.initdb.owner cannot be {}: that role is pgconvoy's own",
                app.user
            )));
        }
        let role = identifier(&app.user);
        let exists = format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(&app.user));
        if session.rows("looking for the application's role", &exists).await?.is_empty() {
            session.rows_within("making the application's role", &format!("CREATE ROLE {role} LOGIN"), SLOW).await?;
        }
        if let Some(password) = &app.password {
            // Computed here, so that the server and its log never see the password.
            let verifier = postgres_protocol::password::scram_sha_256(password);
            let sql = format!("ALTER ROLE {role} PASSWORD {}", literal(&verifier));
            session.rows_within("setting the application role's password", &sql, SLOW).await?;
        }
        let exists = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(&app.database));
        if session.rows("looking for the application's database", &exists).await?.is_empty() {
            let sql = format!("CREATE DATABASE {} OWNER {role}", identifier(&app.database));
            session.rows_within("making the application's database", &sql, SLOW).await?;
            tracing::info!(database = app.database, owner = app.user, "made the application's database");
        }
        Ok(())
    }

    /// The application Secret as it is mounted now; the spec's names where it has none.
    async fn application(&self) -> Result<Application, Error> {
        let (directory, initdb) = (self.paths().app.clone(), self.settings.borrow().initdb.clone());
        let read = move || {
            let file = |name: &str| disk::read(&directory.join(name));
            let text = |name: &str| -> Result<Option<String>, Error> {
                let text = file(name)?.map(|b| String::from_utf8_lossy(&b).trim().to_owned());
                Ok(text.filter(|t| !t.is_empty()))
            };
            let database = text(pod::app::DBNAME)?.or(initdb.database).unwrap_or_else(|| "app".into());
            let user = text(pod::app::USERNAME)?.or(initdb.owner).unwrap_or_else(|| database.clone());
            let password = file(pod::app::PASSWORD)?.filter(|p| !p.is_empty());
            let mut all = format!("{database}\0{user}\0").into_bytes();
            all.extend(password.iter().flatten());
            Ok(Application { user, database, password, sum: configuration::checksum(&all) })
        };
        self.disk.run("reading the application Secret", FILES, read).await
    }
}
