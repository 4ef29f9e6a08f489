//! Archiving: the leader's WAL into the object store that the set's PgArchive names, within a second.
//!
//! [`role::role`] says what this member has to do with it, [`decide::decide`] what is done, [`report::Report`] what is told;
//! they are pure. [`shipping`] does it, out of [`pgconvoy_archive`]. PostgreSQL's part is in `postgres/archive.rs`.

mod access;
mod anew;
mod backlog;
mod decide;
mod full;
mod inspect;
mod keeper;
mod metrics;
mod pace;
mod report;
mod role;
mod shipping;
mod snapshot;

pub(crate) use access::Access;
pub use inspect::{Ask, answer};
pub use metrics::Metrics;
pub(crate) use role::role;
pub use role::{Reign, Role};

use crate::{
    clock,
    coordination::{About, Events, SnapshotClient, Snapshots},
    postgres::DriverHandle,
    settings::{Identity, PostgresSettings},
};
use decide::{Seen, Task, decide};
use full::{Told, Watcher};
use keeper::Keeper;
use pgconvoy_archive::ship::Progress;
use pgconvoy_crds::{MemberArchive, conditions::reasons};
use pgconvoy_terms::MemberName;
use report::{Report, Standing};
use shipping::Shipping;
use snapshot::Taker;
use std::time::{Duration, Instant};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How often a follower asks its leader what is archived.
const ASK_LEADER: Duration = Duration::from_secs(10);
/// How long the last WAL may take after PostgreSQL has stopped.
const DRAIN: Duration = Duration::from_secs(5);
/// How often figures are brought up to date.
const SHOW: Duration = Duration::from_secs(1);

/// What leads to the task and back.
#[derive(Debug)]
pub struct Handle {
    /// What this member is.
    pub role: watch::Sender<Role>,
    /// What the status says of its archiving.
    pub said: watch::Receiver<Option<MemberArchive>>,
    busy: watch::Receiver<bool>,
}

impl Handle {
    /// Waits until what PostgreSQL wrote last is archived; not for long.
    pub(crate) async fn drain(&mut self) {
        if timeout(DRAIN, self.busy.wait_for(|busy| !busy)).await.is_err() {
            tracing::warn!("the last WAL is not archived; whoever leads next does that");
        }
    }
}

/// Starts the task, which never ends.
pub fn spawn(
    me: Identity,
    driver: DriverHandle,
    settings: watch::Receiver<PostgresSettings>,
    events: Events,
    metrics: Metrics,
    (open, client): (watch::Receiver<Snapshots>, SnapshotClient),
) -> (JoinHandle<()>, Handle) {
    let (role, roles) = watch::channel(Role::default());
    let keeper = Keeper { me: me.clone(), events: events.clone(), client: client.clone() };
    let keeping = keeper.run(open.clone(), roles.clone());
    let taker =
        Taker { me: me.clone(), driver: driver.clone(), events: events.clone(), client, settings: settings.clone() };
    let taking = taker.run(open, roles.clone());
    let (said_in, said) = watch::channel(None);
    let (busy_in, busy) = watch::channel(false);
    let (standing, _) = watch::channel(None);
    let (told, backlog) = watch::channel(Told::default());
    let watcher = Watcher {
        driver: driver.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
        roles: roles.clone(),
        told,
    };
    let archiving = Archiving {
        me,
        driver,
        events,
        metrics,
        said: said_in,
        busy: busy_in,
        standing,
        task: Task::Rest,
        running: None,
    };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = archiving.run(roles, settings, backlog) => {}
            () = Box::pin(taking) => {}
            () = Box::pin(keeping) => {}
            never = Box::pin(watcher.run()) => match never {},
        }
    });
    (task, Handle { role, said, busy })
}

struct Archiving {
    me: Identity,
    driver: DriverHandle,
    events: Events,
    metrics: Metrics,
    said: watch::Sender<Option<MemberArchive>>,
    busy: watch::Sender<bool>,
    standing: watch::Sender<Option<Standing>>,
    task: Task,
    running: Option<Running>,
}

/// A deed under way; dropping it ends it.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Archiving {
    async fn run(
        mut self,
        mut roles: watch::Receiver<Role>,
        mut settings: watch::Receiver<PostgresSettings>,
        mut backlog: watch::Receiver<Told>,
    ) {
        let mut standing = self.standing.subscribe();
        let mut report = Report::default();
        let mut shown: Option<Progress> = None;
        let mut access = Files::default();
        loop {
            access.look(&self.me).await;
            let asked = {
                let settings = settings.borrow_and_update();
                (settings.generation > 0).then_some(settings.archive)
            };
            let now = standing.borrow_and_update().clone();
            let seen = Seen {
                role: roles.borrow_and_update().clone(),
                asked,
                access: access.access.clone(),
                flows: now.as_ref().is_some_and(Standing::flows),
            };
            if let Some(next) = decide(&self.task, &seen) {
                self.begin(next);
                continue;
            }
            self.metrics.show(Instant::now(), now.as_ref().and_then(|s| s.progress.as_ref()), shown.as_ref());
            shown = now.as_ref().and_then(|s| s.progress.clone());
            let wall = clock::wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let waits = backlog.borrow_and_update().clone();
            self.say(report.step(Instant::now(), &wall, now.as_ref(), &waits));
            // What ended by itself is no longer waited for.
            let ended = self.running.as_ref().is_none_or(|r| r.0.is_finished());
            self.busy.send_replace(matches!(self.task, Task::Ship { .. }) && !ended);
            let pause = if matches!(self.task, Task::Ship { .. }) { SHOW } else { access::LOOK };
            tokio::select! {
                changed = roles.changed() => if changed.is_err() { return },
                changed = settings.changed() => if changed.is_err() { return },
                changed = backlog.changed() => if changed.is_err() { return },
                // Progress is looked at with the figures; the end of everything at once.
                () = ended_soon(self.running.as_mut()), if !ended => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn begin(&mut self, next: Task) {
        // First of all what is under way ends.
        self.running = None;
        self.standing.send_replace(None);
        tracing::info!(task = next.name(), "the archive");
        self.running = match &next {
            Task::Rest => None,
            Task::Ship { access, system, reigns } => {
                self.standing.send_replace(Some(Standing::default()));
                let shipping = Shipping {
                    me: self.me.clone(),
                    driver: self.driver.clone(),
                    events: self.events.clone(),
                    access: access.clone(),
                    system: *system,
                    reigns: reigns.clone(),
                    standing: self.standing.clone(),
                };
                Some(Running(tokio::spawn(Box::pin(shipping.run()))))
            }
            Task::Keep(leader) => Some(Running(tokio::spawn(keep(self.driver.clone(), leader.clone())))),
            Task::LetGo => Some(Running(tokio::spawn(let_go(self.driver.clone())))),
        };
        self.task = next;
    }

    fn say(&self, now: Option<MemberArchive>) {
        let before = self.said.borrow().clone();
        if before == now {
            return;
        }
        let works = |a: &MemberArchive| matches!(a.reason.as_str(), reasons::ARCHIVE_CURRENT | reasons::ARCHIVE_BEHIND);
        let reason = |a: &Option<MemberArchive>| a.as_ref().map(|a| a.reason.clone());
        if let Some(now) = &now
            && reason(&before).as_deref() != Some(&now.reason)
        {
            let message = now.message.as_deref().unwrap_or("WAL is archived as it is written");
            if !works(now) {
                self.events.warn(About::Set, &now.reason, message);
            } else if before.as_ref().is_some_and(|b| !works(b)) {
                self.events.tell(About::Set, &now.reason, message);
            }
        }
        self.said.send_replace(now);
    }
}

async fn ended_soon(running: Option<&mut Running>) {
    match running {
        // How it ended it has said itself.
        Some(running) => drop((&mut running.0).await),
        None => std::future::pending().await,
    }
}

/// What leads to the archive, as it was seen last.
#[derive(Default)]
struct Files {
    access: Option<Access>,
    looked: Option<Instant>,
    complained: Option<String>,
}

impl Files {
    async fn look(&mut self, me: &Identity) {
        if self.looked.is_some_and(|at| at.elapsed() < access::LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let dir = me.paths.archive.clone();
        let read = tokio::task::spawn_blocking(move || Access::read(&dir, "")).await;
        match read.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(access) => (self.access, self.complained) = (access, None),
            // What was known stays: they are exchanged one after the other at worst.
            Err(why) if self.complained.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::warn!("the archive cannot be used: {why}");
                self.complained = Some(why);
            }
        }
    }
}

/// A follower keeps what its leader has not archived.
async fn keep(driver: DriverHandle, leader: MemberName) {
    let mut archivist = driver.archivist();
    loop {
        let kept = async {
            let mark = archivist.leaders_mark(&leader).await?;
            archivist.keep(mark).await
        };
        if let Err(e) = kept.await {
            tracing::debug!(error = %e, "what is archived is not known here; WAL is kept");
        }
        sleep(ASK_LEADER).await;
    }
}

/// Keeps nothing for an archive any more.
async fn let_go(driver: DriverHandle) {
    let mut archivist = driver.archivist();
    while let Err(e) = archivist.let_go().await {
        tracing::debug!(error = %e, "the archive's slot is not dropped yet");
        sleep(ASK_LEADER).await;
    }
}
