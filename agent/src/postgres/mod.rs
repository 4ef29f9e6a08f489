//! One PostgreSQL: everything that touches this member's server, its files and the supervisor.
//!
//! The driver carries out [`pgconvoy_ha::Want`] and reports [`pgconvoy_ha::Local`]. It decides nothing: what it sees it
//! says, what is wanted it does, in the order that keeps the promises. Three tasks work at it: the *driver* converges, the
//! *observer* reports (also while the driver waits), the *guard* renews the permission and fences.

mod accept;
mod apply;
mod archive;
mod configuration;
mod disk;
mod driver;
mod error;
mod facts;
mod observe;
mod obstacle;
mod parameters;
mod program;
mod promote;
mod provision;
mod remote;
mod rule;
mod server;
mod slots;
mod sql;
mod standby;
mod step_down;
pub mod supervisor;
mod timelines;
mod volume;
mod weak;

pub use error::Error;

pub(crate) use accept::initdb as initdb_options;
pub(crate) use archive::{Archivist, Room};
pub(crate) use disk::empty_directory;
pub(crate) use server::{FILES, Postgres};
pub(crate) use volume::Marker;
pub(crate) mod making {
    //! Beginning and ending a new data directory.
    pub(crate) use super::disk::sync_filesystem;
    pub(crate) use super::volume::{begin, begin_in_place, finish, no_server};
}

use crate::settings::{Addresses, Identity, PostgresReport, PostgresSettings};
use facts::Facts;
use pgconvoy_ha::{Answer, Local, Permission, Want};
use pgconvoy_supervisor::protocol::Event;
use pgconvoy_terms::{Epoch, MemberId, MemberName, Position};
use program::Programs;
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

/// How long looking at a follower's log and making its slot may take.
const ADMISSION: Duration = Duration::from_secs(10);

/// What the driver is started with.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// This member.
    pub identity: Identity,
    /// The supervisor's socket.
    pub socket: PathBuf,
    /// Directory of PostgreSQL's programs in the postgres container; `None`: its `PATH`.
    pub programs: Option<PathBuf>,
    /// `listen_addresses`.
    pub listen: String,
}

impl DriverConfig {
    /// As it is in a pod.
    pub fn new(identity: Identity) -> Self {
        let socket = identity.paths.run.join("supervisor.sock");
        Self { identity, socket, programs: None, listen: "*".to_owned() }
    }
}

/// What the driver goes by.
#[derive(Debug)]
pub struct Inputs {
    /// What should be, and how long PostgreSQL may run without further news.
    pub want: watch::Receiver<(Want, Permission)>,
    /// What the spec says of PostgreSQL.
    pub settings: watch::Receiver<PostgresSettings>,
    /// Where the members are.
    pub addresses: watch::Receiver<Addresses>,
}

/// Where the driver reports.
#[derive(Debug)]
pub struct Outputs {
    /// What is, whenever it changes. When nobody takes them, intermediate states are left out.
    pub local: mpsc::Sender<Local>,
    /// The rest of what is for the status entry.
    pub report: watch::Sender<PostgresReport>,
    /// Becomes true when the container was asked to stop.
    pub term: watch::Sender<bool>,
}

/// Asks the driver for deeds that happen once.
#[derive(Clone)]
pub struct DriverHandle {
    postgres: Arc<Postgres>,
}

impl std::fmt::Debug for DriverHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriverHandle").finish_non_exhaustive()
    }
}

impl DriverHandle {
    /// [`pgconvoy_ha::Effect::Admit`]: looks whether the follower's log is a part of ours and makes its slot. `from` goes
    /// into the answer.
    pub async fn admit(&self, epoch: Epoch, member: MemberId, position: Option<Position>, from: MemberName) -> Answer {
        match timeout(ADMISSION, Box::pin(self.postgres.admit(&epoch, &member, position, from))).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => {
                tracing::warn!(%member, error = %e, "a follower could not be admitted");
                Answer::NotYet
            }
            Err(_) => {
                tracing::warn!(%member, "admitting a follower took too long");
                Answer::NotYet
            }
        }
    }

    /// [`pgconvoy_ha::Effect::Checkpoint`]. Returns when they are done or have failed, which is logged.
    pub async fn prepare_to_step_down(&self) {
        if let Err(e) = Box::pin(self.postgres.prepare_to_step_down()).await {
            tracing::warn!(error = %e, "the checkpoints before a switchover failed; stopping PostgreSQL takes longer");
        }
    }

    /// Tells the supervisor that the agent sees to stopping PostgreSQL (after [`Outputs::term`]).
    ///
    /// # Errors
    /// The supervisor then stops PostgreSQL by itself.
    pub async fn acknowledge_term(&self) -> Result<(), supervisor::Error> {
        self.postgres.supervisor.acknowledge().await
    }

    /// Lets the supervisor, and with it the container, end once no PostgreSQL runs.
    ///
    /// # Errors
    /// The container then ends when the kubelet kills it.
    pub async fn release_container(&self) -> Result<(), supervisor::Error> {
        self.postgres.supervisor.exit().await
    }
}

/// Starts the driver. It ends when the sender of [`Inputs::want`] is gone; PostgreSQL is left as it is.
///
/// # Errors
/// When no thread can be made.
pub fn spawn(config: DriverConfig, inputs: Inputs, outputs: Outputs) -> io::Result<(JoinHandle<()>, DriverHandle)> {
    let supervisor = supervisor::Supervisor::new(&config.socket);
    let programs = Programs {
        supervisor: supervisor.clone(),
        directory: config.programs.clone(),
        cwd: config.identity.paths.volume.clone(),
    };
    let postgres = Arc::new(Postgres {
        config,
        supervisor: supervisor.clone(),
        programs,
        disk: disk::Disk::start()?,
        facts: Facts::new(),
        report: outputs.report,
        want: inputs.want,
        settings: inputs.settings,
        addresses: inputs.addresses,
        kept: Default::default(),
        rogue: Default::default(),
        admitting: tokio::sync::Mutex::new(()),
    });
    let alarm = Arc::new(Notify::new());
    let (local, seen) = watch::channel(None);
    let (news, events) = mpsc::channel(16);
    let driver = tokio::spawn(driver::run(postgres.clone(), alarm.clone()));
    let helpers = [
        tokio::spawn(observe::Observer::new(postgres.clone(), local, alarm.clone()).run()),
        tokio::spawn(driver::guard(postgres.clone())),
        tokio::spawn(forward(seen, outputs.local)),
        tokio::spawn(async move { supervisor.watch(news).await }),
        tokio::spawn(listen(postgres.clone(), events, outputs.term, alarm)),
    ];
    let task = tokio::spawn(async move {
        if let Err(e) = driver.await {
            tracing::error!(error = %e, "the driver of PostgreSQL ended");
        }
        helpers.iter().for_each(JoinHandle::abort);
    });
    Ok((task, DriverHandle { postgres }))
}

/// Hands on the newest state whenever the other side has room.
async fn forward(mut seen: watch::Receiver<Option<Local>>, to: mpsc::Sender<Local>) {
    while seen.changed().await.is_ok() {
        let Ok(room) = to.reserve().await else { return };
        let newest = seen.borrow_and_update().clone();
        if let Some(local) = newest {
            room.send(local);
        }
    }
}

/// Takes in what the supervisor tells.
async fn listen(
    postgres: Arc<Postgres>,
    mut events: mpsc::Receiver<Option<Event>>,
    term: watch::Sender<bool>,
    alarm: Arc<Notify>,
) {
    while let Some(event) = events.recv().await {
        match event {
            Some(Event::Exit { exit }) => {
                tracing::warn!(%exit, "PostgreSQL has ended");
                postgres.facts.forget_server();
                alarm.notify_one();
            }
            Some(Event::Fenced { .. }) => {
                postgres.facts.forget_server();
                alarm.notify_one();
            }
            Some(Event::Term) => drop(term.send_replace(true)),
            // A new connection, or none any more: something may have been missed.
            None => {
                if postgres.supervisor.status().await.is_ok_and(|s| s.stopping) {
                    term.send_replace(true);
                }
                postgres.facts.changed.notify_one();
            }
        }
    }
}
