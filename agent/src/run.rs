//! Wiring: one loop that hands what happens to the failover core and carries out what follows.

mod effects;

use crate::archive;
use crate::coordination::{self, Clients, Events, LeaseWish, TermClient};
use crate::http::{self, Ready};
use crate::peers::{self, Asked, Peers, Tls};
use crate::postgres::{self, DriverConfig, DriverHandle};
use crate::requests::{self, Requests};
use crate::settings::{Addresses, Identity, PostgresReport};
use crate::{clock, record, status};
use anyhow::{Context, Result};
use effects::Hands;
use pgconvoy_crds::MemberState;
use pgconvoy_ha::{
    Activity, Core, Data, Effect, Event, Local, Output, Permission, Publication, Repair, Server, Timing, Want, WantKind,
};
use pgconvoy_terms::MemberName;
use prometheus_client::registry::Registry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Events that wait for the core; whoever brings more waits.
const QUEUE: usize = 256;
/// How long the agent outlives its container of PostgreSQL, waiting for its own SIGTERM.
const AFTER_STOP: Duration = Duration::from_secs(5);

/// How long the agent looks at its volume before it says that it still does.
const SILENT: Duration = Duration::from_secs(5);

/// Runs the agent until the pod stops.
///
/// # Errors
/// When something without which no member can be (certificates, the API client, a port, the volume) is missing.
pub async fn run(identity: Identity) -> Result<()> {
    std::fs::create_dir_all(&identity.paths.state)
        .with_context(|| format!("the state directory {} cannot be made", identity.paths.state.display()))?;
    let mut registry = Registry::default();
    let metrics = coordination::Metrics::register(&mut registry);
    let peer_metrics = peers::Metrics::register(&mut registry);
    let archive_metrics = archive::Metrics::register(&mut registry);
    let clients = Clients::connect().await?;
    let tls = Tls::load(&identity.paths.tls)?;

    let (events, writing) = Events::start(clients.general.clone(), &identity, metrics.clone());
    let mut tasks = vec![("events", writing)];

    // Where the members are, and what the user asks for.
    let (addresses_in, addresses) = watch::channel(Addresses::new());
    let (pods_in, pods) = watch::channel(coordination::Pods::new());
    tasks.push((
        "pods",
        coordination::watch_pods(clients.general.clone(), &identity, addresses_in, pods_in, metrics.clone()),
    ));
    let (watched_in, watched) = watch::channel(None);
    tasks.push((
        "spec",
        coordination::watch_spec(clients.general.clone(), &identity, watched_in, events.clone(), metrics.clone()),
    ));
    let (settings_in, settings) = watch::channel(Default::default());

    // PostgreSQL.
    let (want_in, want) = watch::channel((Want { revision: 0, kind: WantKind::Keep }, Permission::Forever));
    let (local_in, mut local) = mpsc::channel(16);
    let (report_in, report) = watch::channel(PostgresReport::default());
    let (term_in, term) = watch::channel(false);
    let (driving, driver) = postgres::spawn(
        DriverConfig::new(identity.clone()),
        postgres::Inputs { want, settings: settings.clone(), addresses: addresses.clone() },
        postgres::Outputs { local: local_in, report: report_in, term: term_in },
    )?;
    tasks.push(("driver", driving));
    let (open_in, open) = watch::channel(Default::default());
    let (watching, client) =
        coordination::watch_snapshots(clients.general.clone(), &identity, open_in, metrics.clone());
    tasks.push(("snapshots", watching));
    let snapshots = (open, client);
    let (archiving, archive) =
        archive::spawn(identity.clone(), driver.clone(), settings, events.clone(), archive_metrics, snapshots);
    tasks.push(("archive", archiving));

    // The register, the Lease, what is published.
    let register = TermClient::new(clients.coordination.clone(), &identity, events.clone());
    let (registers_in, registers) = mpsc::channel(16);
    tasks.push(("term", register.watch(registers_in, metrics.clone())));
    let (lease_wanted, lease_wish) = watch::channel(LeaseWish::default());
    let (held_in, held) = watch::channel(false);
    let stepped = Arc::new(AtomicU64::new(clock::now().0));
    let lease = coordination::keep_lease(
        clients.coordination.clone(),
        &identity,
        lease_wish,
        held_in,
        stepped.clone(),
        metrics.clone(),
    );
    tasks.push(("lease", lease));
    let (publication_in, publication) = watch::channel(None);
    tasks.push((
        "endpoints",
        coordination::publish(clients.general.clone(), &identity, publication, pods, events.clone(), metrics.clone()),
    ));
    let (state_in, state) = watch::channel(MemberState::default());
    tasks.push((
        "status",
        coordination::report(clients.general.clone(), &identity, state, events.clone(), metrics.clone()),
    ));

    let (requests_in, requests) = watch::channel(vec![]);
    tasks.push(("requests", requests::watch(clients.general.clone(), &identity, requests_in, metrics.clone())));
    let requests = Requests::new(requests::Writer::new(clients.general.clone(), &identity), requests);

    // The other agents, probes.
    let everywhere = |port| SocketAddr::new(listen_on(identity.pod_ip), port);
    let (asked_in, asked) = mpsc::channel(64);
    let (_, listening) =
        peers::serve(everywhere(identity.peers_port), &identity, tls.clone(), asked_in, peer_metrics.clone())
            .await
            .context("the port for the other agents cannot be had")?;
    tasks.push(("peers", listening));
    tasks.push(("certificates", peers::watch_expiry(&identity.member, tls.clone(), events.clone())));
    let peers = Peers::new(&identity, tls, addresses, peer_metrics);
    let (ready_in, ready) = watch::channel(Ready { ready: false, why: "the agent starts".to_owned() });
    let (_, probing) = http::serve(everywhere(identity.http_port), stepped.clone(), ready, registry)
        .await
        .context("the port for probes cannot be had")?;
    tasks.push(("http", probing));

    // The record is read only once the volume is this agent's alone: the driver reports nothing else before.
    let (begun, mut seen) = (Instant::now(), None);
    let first = loop {
        stepped.store(clock::now().0, Ordering::Relaxed);
        match tokio::time::timeout(Duration::from_millis(500), local.recv()).await {
            Ok(Some(local)) if local.data != Data::Unknown => break local,
            Ok(None) => anyhow::bail!("the driver of PostgreSQL ended"),
            Ok(Some(local)) => seen = Some(local),
            Err(_) => {}
        }
        // What is in the way of even that, or takes its time, is told.
        let report = report.borrow().clone();
        if report.obstacle.is_some() || begun.elapsed() > SILENT {
            set(&state_in, status::before_record(seen.as_ref(), &report));
        }
    };
    let found = record::read(&identity.paths.state)?;
    let core = Core::new(identity.member.clone(), found, Timing::default(), rand::random(), clock::now());

    let (happened_in, happened) = mpsc::channel(QUEUE);
    let hands = Hands::new(&identity, register, peers, driver.clone(), events, requests, happened_in.clone());
    let agent = Agent {
        core,
        hands,
        driver,
        local: None,
        report,
        me: identity.member.clone(),
        activity: String::new(),
        way: String::new(),
        archive,
        levels: Levels {
            want: want_in,
            lease: lease_wanted,
            publication: publication_in,
            ready: ready_in,
            state: state_in,
        },
        stepped,
    };
    happened_in.send(Event::Local(first)).await.context("the agent's own queue is closed")?;
    if identity.adopt.is_some() && record::of_another_set(&identity.paths.state, &identity.set_uid) {
        let adopt = Event::Repair(Some(Repair { accept_loss: false, adopt: true }));
        happened_in.send(adopt).await.context("the agent's own queue is closed")?;
    }
    let sources = Sources { happened, registers, held, watched, settings: settings_in, local, asked, term };
    tokio::select! {
        ended = ends(tasks) => anyhow::bail!("the agent's task {ended:?} ended; the agent starts again"),
        result = agent.run(sources) => result,
    }
}

/// The wildcard address of the pod's address family.
fn listen_on(pod: IpAddr) -> IpAddr {
    match pod {
        IpAddr::V4(ip) if ip.is_loopback() => pod,
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The name of the first task that ends; none of them should.
async fn ends(tasks: Vec<(&'static str, tokio::task::JoinHandle<()>)>) -> &'static str {
    let named = tasks.into_iter().map(|(name, task)| {
        Box::pin(async move {
            if let Err(why) = task.await {
                tracing::error!("the task {name} ended: {why}");
            }
            name
        })
    });
    futures::future::select_all(named).await.0
}

/// Where events come from.
struct Sources {
    happened: mpsc::Receiver<Event>,
    registers: mpsc::Receiver<pgconvoy_ha::Register>,
    held: watch::Receiver<bool>,
    watched: watch::Receiver<Option<coordination::Watched>>,
    settings: watch::Sender<crate::settings::PostgresSettings>,
    local: mpsc::Receiver<Local>,
    asked: mpsc::Receiver<Asked>,
    term: watch::Receiver<bool>,
}

/// Where levels go.
struct Levels {
    want: watch::Sender<(Want, Permission)>,
    lease: watch::Sender<LeaseWish>,
    publication: watch::Sender<Option<Publication>>,
    ready: watch::Sender<Ready>,
    state: watch::Sender<MemberState>,
}

struct Agent {
    core: Core,
    hands: Hands,
    driver: DriverHandle,
    local: Option<Local>,
    report: watch::Receiver<PostgresReport>,
    me: MemberName,
    /// What was logged last.
    activity: String,
    /// By which way to the set's data, as it was told last.
    way: String,
    archive: archive::Handle,
    levels: Levels,
    stepped: Arc<AtomicU64>,
}

impl Agent {
    async fn run(mut self, mut from: Sources) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
        let mut wake = Instant::now();
        let mut stopping = false;
        // `changed` below is about what comes; what is there already counts too.
        from.term.mark_changed();
        if from.watched.borrow().is_some() {
            from.watched.mark_changed();
        }
        loop {
            let event = tokio::select! {
                // The sidecar is told last, when PostgreSQL's container is gone, or when only the agent is replaced:
                // then PostgreSQL goes on under the permission that it has.
                _ = terminate.recv() => return Ok(()),
                Some(event) = from.happened.recv() => event,
                Some(local) = from.local.recv() => Event::Local(local),
                Some(register) = from.registers.recv() => Event::Term { register, proof: None },
                Some(asked) = from.asked.recv() => self.hands.take_question(asked),
                Ok(()) = from.held.changed() => Event::Lease(*from.held.borrow_and_update()),
                Ok(()) = from.watched.changed() => {
                    let Some(watched) = from.watched.borrow_and_update().clone() else { continue };
                    from.settings.send_if_modified(|s| {
                        let changed = *s != watched.settings;
                        *s = watched.settings;
                        changed
                    });
                    Event::Spec(watched.spec)
                }
                Ok(()) = self.report.changed() => Event::Tick,
                Ok(()) = self.archive.said.changed() => Event::Tick,
                () = self.hands.requests.changed() => Event::Tick,
                Ok(()) = from.term.changed(), if !stopping => {
                    if !*from.term.borrow_and_update() {
                        continue;
                    }
                    stopping = true;
                    if let Err(why) = self.driver.acknowledge_term().await {
                        tracing::warn!("the supervisor did not hear that the agent stops PostgreSQL: {why}");
                    }
                    Event::Stop
                }
                () = sleep_until(wake) => Event::Tick,
            };
            if let Event::Local(local) = &event {
                self.local = Some(local.clone());
            }
            let now = clock::now();
            let output = self.core.step(now, event);
            let done = output.done;
            self.stepped.store(now.0, Ordering::Relaxed);
            wake = Instant::now() + clock::until(now, output.wake);
            self.carry_out(output).await?;
            self.look_at_requests(now).await?;
            if stopping && done {
                return self.leave(&mut terminate).await;
            }
        }
    }

    /// Carries out one output. A fence goes first; everything else comes after what had to be on disk before it.
    async fn carry_out(&mut self, output: Output) -> Result<()> {
        if matches!(output.want.kind, WantKind::Fenced | WantKind::Stopped) {
            self.set_want(&output);
        }
        for effect in output.effects.iter().cloned() {
            self.hands.carry_out(effect).await?;
        }
        self.set_want(&output);
        set(&self.levels.lease, LeaseWish { wanted: output.lease, orders: output.lease_orders });
        set(&self.levels.publication, output.publish);
        let why = if output.ready { String::new() } else { describe(&output.activity) };
        set(&self.levels.ready, Ready { ready: output.ready, why });
        let report = self.report.borrow().clone();
        if let Some(now) = &report.catch_up
            && self.way != now.how
        {
            self.way.clone_from(&now.how);
            let message = format!("{}: {}", self.me, now.how);
            self.hands.carry_out(Effect::Tell { reason: "CatchingUp", message }).await?;
        }
        let mut state = status::member_state(&output.activity, self.local.as_ref(), self.core.record(), &report);
        set(&self.archive.role, archive::role(&self.me, &output.activity, self.local.as_ref(), self.core.record()));
        status::tell_trouble(&mut state, self.core.trouble());
        status::tell_trouble(&mut state, self.core.left_to_person());
        state.archive = self.archive.said.borrow_and_update().clone();
        set(&self.levels.state, state);
        let activity = describe(&output.activity);
        if activity != self.activity {
            tracing::info!(%activity, "now");
            self.activity = activity;
        }
        Ok(())
    }

    /// What people ask for, which the core hears of right away.
    async fn look_at_requests(&mut self, now: pgconvoy_ha::Instant) -> Result<()> {
        let serving = matches!(self.local.as_ref().map(|l| &l.server), Some(Server::Primary { gate: true, .. }));
        let trouble = self.core.trouble().is_some();
        let view = requests::View { me: &self.me, term: self.core.record().head.as_ref(), serving, trouble };
        let events = self.hands.requests.look(&view, now);
        for event in events {
            tracing::info!(?event, "asked for");
            let output = self.core.step(now, event);
            self.carry_out(output).await?;
        }
        Ok(())
    }

    fn set_want(&self, output: &Output) {
        let before = self.levels.want.borrow().0.revision;
        if set(&self.levels.want, (output.want.clone(), output.permission)) && before != output.want.revision {
            tracing::info!(revision = output.want.revision, want = ?output.want.kind, "wanted");
        }
    }

    /// PostgreSQL is down and the pod, or its container, is to end.
    async fn leave(&mut self, terminate: &mut tokio::signal::unix::Signal) -> Result<()> {
        set(&self.levels.lease, LeaseWish::default());
        self.archive.drain().await;
        if let Err(why) = self.driver.release_container().await {
            tracing::warn!("the supervisor did not hear that it may end: {why}");
        }
        tracing::info!("PostgreSQL is stopped");
        // If only the container was restarted, this agent ends too and its successor starts afresh.
        let _ = tokio::time::timeout(AFTER_STOP, terminate.recv()).await;
        Ok(())
    }
}

/// Sets a level; whether that changed it.
fn set<T: PartialEq>(level: &watch::Sender<T>, value: T) -> bool {
    level.send_if_modified(|old| {
        let changed = *old != value;
        *old = value;
        changed
    })
}

/// What the member is doing, in a sentence.
fn describe(activity: &Activity) -> String {
    match activity {
        Activity::Waiting(why) => format!("waiting: {why}"),
        Activity::Founding => "making the first database".to_owned(),
        Activity::Cloning(from) => format!("copying the data of {from}"),
        Activity::Rewinding(leader) => format!("going back to where its log left that of {leader}"),
        Activity::Recovering => "PostgreSQL replays its own log".to_owned(),
        Activity::Electing(epoch) => format!("epoch {} is being decided", epoch.number),
        Activity::Attaching(leader) => format!("attaching to {leader}"),
        Activity::Following(leader, epoch) => format!("following {leader} in epoch {}", epoch.number),
        Activity::Leading(epoch, None) => format!("leading epoch {}", epoch.number),
        Activity::Leading(epoch, Some(note)) => format!("leading epoch {}; {note}", epoch.number),
        Activity::Fenced(why) => format!("fenced: {why}"),
        Activity::Failed(why) => format!("failed: {why}"),
        Activity::Stopping => "stopping".to_owned(),
    }
}
