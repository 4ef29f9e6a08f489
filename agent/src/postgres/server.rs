//! One server: looking at it, starting it, stopping it, and putting a configuration in force.

use super::{
    DriverConfig, Error,
    apply::put,
    configuration::{Accepted, Files, Role},
    disk::{self, Disk},
    facts::Facts,
    program::Programs,
    sql::{Address, Session},
    supervisor::{self, Supervisor},
    timelines,
    volume::{self, Marker},
};
use crate::settings::{Addresses, Paths, PostgresReport, PostgresSettings};
use pgconvoy_ha::{Permission, Want};
use pgconvoy_supervisor::protocol::{ErrorCode, Exit, Signal};
use pgconvoy_terms::{Epoch, Lsn, Rule};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// The supervisor's epoch of a server that is not writable.
pub(crate) const STANDBY: &str = "standby";
/// For a few small files.
pub(crate) const FILES: Duration = Duration::from_secs(30);
/// How long one step waits for a server that starts before it says so. Recovery may take much longer.
const STARTING: Duration = Duration::from_secs(5);
/// After a fast stop began: when backends are killed, and when everything is.
const QUIT_AFTER: Duration = Duration::from_secs(40);
const KILL_AFTER: Duration = Duration::from_secs(10);

/// What runs.
pub(crate) enum Running {
    /// No process of PostgreSQL; how the last one ended.
    Nothing(Option<Exit>),
    /// It starts or stops, or cannot be asked.
    Busy(String),
    /// It replays.
    Standby { session: Session, epoch: String },
    /// It is writable, in this epoch of the supervisor's.
    Primary { session: Session, epoch: String },
}

/// How to start it.
pub(crate) enum Start<'a> {
    /// As a standby that receives from nobody.
    Standby,
    /// As initdb made it: writable, on timeline 1. Once only.
    Founder(&'a Epoch, &'a Rule),
}

/// Everything that touches this member's PostgreSQL hangs on this.
pub(crate) struct Postgres {
    pub(crate) config: DriverConfig,
    pub(crate) supervisor: Supervisor,
    pub(crate) programs: Programs,
    pub(crate) disk: Disk,
    pub(crate) facts: Facts,
    pub(crate) report: watch::Sender<PostgresReport>,
    pub(crate) want: watch::Receiver<(Want, Permission)>,
    pub(crate) settings: watch::Receiver<PostgresSettings>,
    pub(crate) addresses: watch::Receiver<Addresses>,
    pub(crate) kept: Mutex<Kept>,
    /// The observer has seen a server that is writable outside of any epoch.
    pub(crate) rogue: std::sync::atomic::AtomicBool,
    /// One admission at a time.
    pub(crate) admitting: tokio::sync::Mutex<()>,
}

/// What is kept between steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// The user's configuration that was found good last.
    pub(crate) accepted: Option<Accepted>,
    /// The one before it, to go back to.
    pub(crate) previous: Option<Accepted>,
    /// What was looked at last, good or not.
    pub(crate) examined: Option<Accepted>,
    /// Lowest values that the data could be started with, when it was; none: not known to this agent yet.
    pub(crate) floors: Option<BTreeMap<String, u64>>,
    /// Major version of the image, and its user.
    pub(crate) image: Option<(u32, String)>,
    /// The application Secret as it was applied.
    pub(crate) application: Option<u64>,
    /// The epoch whose leader's duties were done: checkpoint, roles.
    pub(crate) provisioned: Option<Epoch>,
    /// Since when it should receive and does not.
    pub(crate) dry_since: Option<Instant>,
    /// How often each way to the set's data has failed.
    pub(crate) tries: crate::bootstrap::Tries,
    /// [`pgconvoy_archive::snapshot::RestoreOptions::unpacking`].
    pub(crate) unpacking: std::sync::Arc<tokio::sync::RwLock<()>>,
    /// What those who receive had been asked to confirm before PostgreSQL is stopped.
    pub(crate) confirmed: Option<Lsn>,
}

impl Postgres {
    pub(crate) fn paths(&self) -> &Paths {
        &self.config.identity.paths
    }

    pub(crate) fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn address(&self) -> Address {
        Address { directory: self.paths().run.clone(), port: self.config.identity.postgres_port }
    }

    pub(crate) fn pg_wal(&self) -> PathBuf {
        self.paths().pgdata.join("pg_wal")
    }

    pub(crate) fn permission(&self) -> Permission {
        self.want.borrow().1
    }

    /// A session in the database `postgres`. A new one each time: it shows what the postmaster has read.
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        if let Some(status) = self.pid_file_status().await
            && status != "ready"
        {
            // Without connecting: that would be a line of complaint in the log for every try.
            return Err(Error::NotYet(format!("PostgreSQL does not take connections yet ({status})")));
        }
        Session::open(&self.address()).await
    }

    /// What the postmaster says of itself in its pid file; none if that cannot be told.
    async fn pid_file_status(&self) -> Option<String> {
        let path = self.paths().pgdata.join("postmaster.pid");
        let read = self.disk.run("reading the pid file", Duration::from_secs(1), move || disk::read(&path)).await;
        let text = String::from_utf8(read.ok()??).ok()?;
        text.lines().nth(7).map(|status| status.trim().to_owned())
    }

    /// Looks what runs.
    pub(crate) async fn look(&self) -> Result<Running, Error> {
        let status = match self.supervisor.status().await {
            // With the supervisor, everything it started is gone.
            Err(supervisor::Error::Absent(_)) => return Ok(Running::Nothing(None)),
            status => status?,
        };
        if status.postgres.is_none() {
            return Ok(Running::Nothing(status.last_exit));
        }
        let epoch = status.epoch.unwrap_or_default();
        let session = match self.session().await {
            Ok(session) => session,
            Err(e) => return Ok(Running::Busy(format!("PostgreSQL is starting, recovering or stopping: {e}"))),
        };
        let row = session.row("asking whether it is in recovery", "SELECT pg_is_in_recovery()").await?;
        if row.flag(0) { Ok(Running::Standby { session, epoch }) } else { Ok(Running::Primary { session, epoch }) }
    }

    /// Kills everything, behind whatever was asked of the supervisor before.
    pub(crate) async fn fence(&self) -> Result<(), Error> {
        match self.supervisor.fence().await {
            Ok(()) | Err(supervisor::Error::Absent(_)) => {
                self.facts.forget_server();
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Stops it in an orderly way; a server that takes too long is killed.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        for (signal, patience) in [(Signal::Int, QUIT_AFTER), (Signal::Quit, KILL_AFTER)] {
            match self.supervisor.signal(signal).await {
                Err(supervisor::Error::Absent(_)) => return Ok(()),
                Err(e) if e.code() == Some(&ErrorCode::Stopped) => return Ok(()),
                other => other?,
            }
            let begun = Instant::now();
            while begun.elapsed() < patience {
                match self.supervisor.status().await {
                    Err(supervisor::Error::Absent(_)) => return Ok(()),
                    Ok(status) if status.postgres.is_none() => return Ok(()),
                    Ok(_) => sleep(Duration::from_millis(10)).await,
                    Err(e) => return Err(e.into()),
                }
            }
            tracing::warn!(?signal, ?patience, "PostgreSQL has not stopped in time");
        }
        self.fence().await
    }

    /// Starts it, and returns when it takes connections. Nothing may run.
    pub(crate) async fn start(&self, how: Start<'_>) -> Result<(), Error> {
        self.facts.set(|k| k.shutdown = None);
        self.facts.forget_server();
        let floors = match &how {
            Start::Standby => self.floors().await?,
            // No log was written with other limits than initdb's, which mean nothing.
            Start::Founder(..) => BTreeMap::new(),
        };
        self.remember_floors(floors).await?;
        let role = match &how {
            Start::Standby => Role::detached(),
            Start::Founder(_, rule) => Role::leading(rule, false),
        };
        let files = self.files(&role).await?;
        let (paths, founder, port) =
            (self.paths().clone(), matches!(how, Start::Founder(..)), self.config.identity.postgres_port);
        self.disk
            .run("preparing the start of PostgreSQL", FILES, move || prepare(&paths, founder, port, &files))
            .await?;
        let epoch = match how {
            Start::Standby => STANDBY.to_owned(),
            Start::Founder(epoch, _) => epoch.to_string(),
        };
        let mut program =
            self.programs.program("postgres", ["-D".into(), self.paths().pgdata.clone().into_os_string()]);
        program.lock = Some(volume::server_lock(self.paths()).into_os_string());
        tracing::info!(epoch, "starting PostgreSQL");
        self.supervisor.start(&epoch, supervisor::permit(self.permission()), program).await?;
        self.wait_ready().await.map(drop)
    }

    /// Waits until it takes connections.
    pub(crate) async fn wait_ready(&self) -> Result<Running, Error> {
        let begun = Instant::now();
        loop {
            match self.look().await {
                Ok(Running::Nothing(exit)) => return Err(self.died(exit).await),
                Ok(Running::Busy(why)) if begun.elapsed() > STARTING => return Err(Error::NotYet(why)),
                Ok(Running::Busy(_)) => {}
                Ok(running) => return Ok(running),
                Err(e) if begun.elapsed() > STARTING => return Err(e),
                Err(_) => {}
            }
            sleep(Duration::from_millis(15)).await;
        }
    }

    /// Why it may have ended while it started.
    async fn died(&self, exit: Option<Exit>) -> Error {
        let pgdata = &self.paths().pgdata;
        let conf = pgdata.join("postgresql.conf");
        match self.programs.configured(&conf, pgdata, "port").await {
            Err(Error::Configuration(why)) => Error::Died(why),
            _ => Error::Died(exit.map_or_else(|| "killed".to_owned(), |e| e.to_string())),
        }
    }

    /// The limits in the control file: a standby with less stops in the middle of its log, or dies when promoted.
    pub(crate) async fn floors(&self) -> Result<BTreeMap<String, u64>, Error> {
        const NAMES: [&str; 5] = [
            "max_connections",
            "max_worker_processes",
            "max_wal_senders",
            // As pg_controldata abbreviates them, and as they are called.
            "max_prepared_xacts",
            "max_locks_per_xact",
        ];
        let data = self.programs.control_data(&self.paths().pgdata).await?;
        let mut floors = BTreeMap::new();
        for name in NAMES {
            if let Some(value) = data.get(&format!("{name} setting")).and_then(|v| v.parse().ok()) {
                let called = match name {
                    "max_prepared_xacts" => "max_prepared_transactions",
                    "max_locks_per_xact" => "max_locks_per_transaction",
                    same => same,
                };
                floors.insert(called.to_owned(), value);
            }
        }
        Ok(floors)
    }

    /// The floors that the server that runs was started with, maybe by an earlier agent: without their lines in the files
    /// PostgreSQL would say of each that it waits for a restart.
    pub(crate) async fn floors_in_force(&self) -> Result<BTreeMap<String, u64>, Error> {
        if let Some(floors) = self.kept().floors.clone() {
            return Ok(floors);
        }
        let path = self.floors_path();
        let read = self.disk.run("reading which limits PostgreSQL was started with", FILES, move || disk::read(&path));
        let floors: BTreeMap<String, u64> =
            read.await?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        self.kept().floors = Some(floors.clone());
        Ok(floors)
    }

    async fn remember_floors(&self, floors: BTreeMap<String, u64>) -> Result<(), Error> {
        let path = self.floors_path();
        let bytes = serde_json::to_vec(&floors).map_err(|e| Error::disk("encode", &path)(e.into()))?;
        let write = move || disk::show(&path, &bytes);
        self.disk.run("writing down which limits PostgreSQL is started with", FILES, write).await?;
        self.kept().floors = Some(floors);
        Ok(())
    }

    fn floors_path(&self) -> PathBuf {
        self.paths().state.join("floors.json")
    }

    /// Major version and user of the image.
    pub(crate) async fn image(&self) -> Result<(u32, String), Error> {
        if let Some(image) = self.kept().image.clone() {
            return Ok(image);
        }
        let (version, major) = self.programs.version().await?;
        let user = self.programs.user().await?;
        self.report.send_if_modified(|r| r.version.replace(version.clone()).as_ref() != Some(&version));
        self.kept().image = Some((major, user.clone()));
        Ok((major, user))
    }
}

/// Everything on disk before a start. The supervisor has said that nothing runs.
fn prepare(paths: &Paths, founder: bool, port: u16, files: &Files) -> Result<(), Error> {
    let _alone = volume::no_server(paths)?;
    let at = |name: &str| paths.pgdata.join(name);
    let marker = Marker::read(&paths.pgdata)?.and_then(Result::ok);
    let Some(marker) = marker else {
        return Err(Error::Unfit("the data directory bears no mark of pgconvoy".into()));
    };
    if founder && !marker.fresh {
        return Err(Error::Unfit(
            "this data was started before, so epoch 1 cannot begin on it again; a later epoch must be opened".into(),
        ));
    }
    // After a kill these name a process that may exist again as another one.
    disk::remove(&at("postmaster.pid"))?;
    let socket = format!(".s.PGSQL.{port}");
    disk::remove(&paths.run.join(&socket))?;
    disk::remove(&paths.run.join(format!("{socket}.lock")))?;
    for name in ["promote", "recovery.signal"] {
        disk::remove(&at(name))?;
    }
    if marker.fresh {
        // First, and durably: whatever comes of the start, it was one.
        Marker { fresh: false, ..marker }.write(&paths.pgdata)?;
    }
    if founder {
        disk::remove(&at("standby.signal"))?;
    } else {
        disk::write_if_other(&at("standby.signal"), b"")?;
        timelines::remove_stubs(&paths.pgdata.join("pg_wal"))?;
    }
    put(paths, files)
}
