//! A member without data that it could stream with comes to it out of the archive, from a store of its own in this process.

use crate::member::{Member, Set, SmallVolume, Streams, epoch, rule, say};
use pgconvoy_agent::settings::PostgresSettings;
use pgconvoy_archive::{
    layout::{Claim, EpochDir},
    ship::{Options, Postgres, Progress, begin, ship},
    snapshot::{self, take},
    store::{Config, Credentials, Keys, S3},
};
use pgconvoy_e2e_s3 as s3;
use pgconvoy_ha::{Answer, Server, WantKind};
use pgconvoy_terms::{Incarnation, Lsn, Position, SystemId, TimelineId};
use pgconvoy_wire::{Client, Config as Wire, Target};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

const SEGMENT: u64 = 16 << 20;

pub(crate) struct Archive {
    pub(crate) s3: s3::Server,
    pub(crate) store: S3,
}

impl Archive {
    pub(crate) async fn new() -> Self {
        let s3 = s3::Server::start(s3::Options::default()).await.unwrap();
        let options = s3.options();
        let keys = Keys::new(&options.access_key, &options.secret_key, None);
        let config = Config {
            endpoint: Some(s3.endpoint()),
            path_style: true,
            prefix: "default/t".into(),
            ..Config::new(&options.bucket, "us-east-1", Credentials::keys(keys))
        };
        Self { store: S3::new(config).await.unwrap(), s3 }
    }

    /// A member of a set of three that archives here.
    pub(crate) async fn member(&self, set: &Set, ordinal: u32) -> Member {
        self.member_on(set, ordinal, |_| None, |_| {}).await
    }

    /// The same on a volume of its own, with other settings.
    pub(crate) async fn member_on(
        &self,
        set: &Set,
        ordinal: u32,
        mount: impl FnOnce(&Path) -> Option<SmallVolume>,
        adjust: impl FnOnce(&mut PostgresSettings),
    ) -> Member {
        let settings = |s: &mut PostgresSettings| {
            s.archive = true;
            s.roster = (1..=3).map(|n| pgconvoy_terms::MemberName::new("t", n)).collect();
            adjust(s);
        };
        let member = set.member_on(ordinal, mount, settings).await;
        let options = self.s3.options();
        let place = format!(
            r#"{{"bucket":"{}","prefix":"default/t","region":"us-east-1","endpoint":"{}","pathStyle":true,"maxDelaySeconds":1}}"#,
            options.bucket,
            self.s3.endpoint()
        );
        fs::create_dir(member.path("archive")).unwrap();
        for (name, text) in [
            ("access.json", place.as_str()),
            ("access-key-id", &options.access_key),
            ("secret-access-key", &options.secret_key),
        ] {
            fs::write(member.path("archive").join(name), text).unwrap();
        }
        member
    }

    async fn dir(&self, leader: &Member, number: u32) -> EpochDir {
        let system = Client::connect(&local(leader)).await.unwrap().identify_system().await.unwrap().system_id;
        EpochDir { system, epoch: epoch(number) }
    }

    /// Claims an epoch that went on from `parent`.
    async fn claim(&self, leader: &Member, number: u32, parent: Option<(u32, Lsn)>) -> Options {
        let dir = self.dir(leader, number).await;
        let mut client = Client::connect(&local(leader)).await.unwrap();
        let history = match parent {
            Some(_) => Some(client.timeline_history(TimelineId(number)).await.unwrap().content),
            None => None,
        };
        let start = parent.map_or(Lsn(SEGMENT), |(_, at)| Lsn(at.0 - at.0 % SEGMENT));
        let claim = Claim {
            member: leader.id(),
            parent: parent.map(|(number, at)| (epoch(number), at)),
            start,
            segment_size: SEGMENT,
            time: "2026-01-01T00:00:00Z".into(),
        };
        let claim = begin(&self.store, &dir, &claim, history).await.unwrap();
        Options { max_delay: Duration::from_millis(100), ..Options::new(dir, claim) }
    }

    /// Archives what a leader writes in it.
    pub(crate) async fn ship(&self, leader: &Member, number: u32, parent: Option<(u32, Lsn)>) -> Shipper {
        let options = self.claim(leader, number, parent).await;
        let timeline = options.dir.timeline();
        let (told, progress) = watch::channel(Progress::default());
        let store = Arc::new(self.store.clone());
        let config = Wire {
            application_name: "pgconvoy_archive".into(),
            parameters: vec![("wal_sender_timeout".into(), "30s".into())],
            ..local(leader)
        };
        let task = tokio::spawn(async move {
            let mut source = Postgres { config, timeline, slot: None, idle_timeout: Duration::from_secs(30) };
            let (_keep, safe) = watch::channel(Lsn(u64::MAX));
            let ended = ship(&mut source, store, &options, safe, &told).await;
            assert!(ended.is_ok(), "{ended:?}");
        });
        Shipper { progress, task }
    }

    pub(crate) async fn snapshot(&self, of: &Member, number: u32, name: &str) -> SystemId {
        // As the agent takes them: the last part holds two small files, and the first all others.
        self.snapshot_in_parts(of, number, name, 1 << 30).await
    }

    pub(crate) async fn snapshot_in_parts(&self, of: &Member, number: u32, name: &str, part_size: u64) -> SystemId {
        let dir = self.dir(of, number).await;
        let options =
            snapshot::Options { part_size, parallel: 2, time: "2026-01-01T00:00:00Z".into(), pace: Arc::default() };
        let store = Arc::new(self.store.clone());
        let pgdata = &of.config.identity.paths.pgdata;
        take(store, &dir, &name.parse().unwrap(), pgdata, &local(of), &options).await.unwrap();
        dir.system
    }

    fn folder(&self) -> PathBuf {
        self.s3.bucket_dir().join("default/t")
    }
}

pub(crate) struct Shipper {
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Shipper {
    /// Waits until all that is flushed now is archived.
    pub(crate) async fn caught_up(&mut self, leader: &Member) -> Lsn {
        let end: Lsn = leader.value("SELECT pg_current_wal_flush_lsn()").await.parse().unwrap();
        let arrived = self.progress.wait_for(|p| p.archived >= end);
        assert!(timeout(Duration::from_secs(60), arrived).await.unwrap().is_ok(), "it ended");
        end
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn local(member: &Member) -> Wire {
    let identity = &member.config.identity;
    Wire::new(Target::Unix { dir: identity.paths.run.clone(), port: identity.postgres_port }, "postgres")
}

pub(crate) async fn lead(member: &mut Member, number: u32, followers: &[&Member]) {
    let rule = rule(&epoch(number), member, followers, 0);
    member.reach(WantKind::Lead { epoch: epoch(number), rule, gate: true }).await;
}

/// Has `member` come to the data of the leader; by which ways.
pub(crate) async fn come(member: &mut Member, leader: &Member, number: u32, replace: bool) -> Vec<String> {
    let slot = leader.admitted(&epoch(number), member, None).await;
    let mut report = member.driver.report.clone();
    let ways = Arc::new(Mutex::new(Vec::<String>::new()));
    let told = ways.clone();
    let watching = tokio::spawn(async move {
        while report.changed().await.is_ok() {
            let Some(now) = report.borrow_and_update().catch_up.clone() else { continue };
            let mut told = told.lock().unwrap();
            if told.last() != Some(&now.how) {
                say(&format!("driver: {}", now.how));
                told.push(now.how);
            }
        }
    });
    let (incarnation, from) = (member.incarnation.clone(), leader.name.clone());
    member.reach(WantKind::Clone { incarnation, from, slot, replace }).await;
    watching.abort();
    assert_eq!(member.driver.report.borrow().catch_up, None);
    ways.lock().unwrap().clone()
}

/// Follows with the data it has; the position with which it was let in.
pub(crate) async fn follow(member: &mut Member, leader: &Member, number: u32) -> Position {
    let position = member.detached().await;
    leader.admitted(&epoch(number), member, Some(position)).await;
    member.follow(leader, &epoch(number)).await;
    position
}

pub(crate) const ROWS: &str = "SELECT count(*) || ' ' || md5(string_agg(t::text, ',' ORDER BY x)) FROM t";

/// How many base backups it was asked for.
fn copies(member: &Member) -> usize {
    let log = fs::read_to_string(member.path("log")).unwrap();
    log.lines().filter(|l| l.contains("BASE_BACKUP")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_volume_is_filled_from_a_snapshot_over_a_fork_and_numbers_that_nobody_used() {
    let Some(set) = Set::new() else { return };
    let archive = Archive::new().await;
    let mut one = set.founded().await;
    one.value("CREATE TABLE t AS SELECT x, md5(x::text) AS y FROM generate_series(1, 20000) x").await;
    let mut shipper = archive.ship(&one, 1, None).await;
    archive.snapshot(&one, 1, "first").await;
    one.value("INSERT INTO t SELECT x, md5(x::text) FROM generate_series(20001, 60000) x").await;
    let mut two = set.follower(2, &one, &epoch(1)).await;
    // A copy ends with its segment; the fork is to lie within one.
    one.value("INSERT INTO t VALUES (-1, 'kept')").await;
    two.wait_value("SELECT count(*) FROM t", "60001").await;
    let fork = two.detached().await;
    // The deposed leader writes and archives what nobody else has.
    one.value("INSERT INTO t SELECT -x, 'lost' FROM generate_series(2, 1000) x").await;
    let lost = shipper.caught_up(&one).await;
    assert!(lost > fork.end);
    one.reach(WantKind::Fenced).await;
    drop(shipper);

    lead(&mut two, 4, &[]).await;
    archive.claim(&two, 4, Some((1, fork.end))).await;
    // Nothing of it is archived yet: what comes out of the archive ends where it went on, whatever else the deposed leader wrote.
    let mut five = archive.member(&set, 5).await;
    let ways = come(&mut five, &two, 4, false).await;
    assert!(ways.len() == 1 && ways[0].starts_with("restoring snapshot first, "), "{ways:?}");
    assert_eq!(follow(&mut five, &two, 4).await.end, fork.end);
    let mut shipper = archive.ship(&two, 4, Some((1, fork.end))).await;
    two.value("INSERT INTO t SELECT x, 'more' FROM generate_series(60001, 100000) x").await;
    let end = shipper.caught_up(&two).await;
    let mut three = archive.member(&set, 3).await;
    let ways = come(&mut three, &two, 4, false).await;
    assert!(ways.len() == 1 && ways[0].starts_with("restoring snapshot first, "), "{ways:?}");
    assert_eq!(copies(&two), 0);
    assert!(three.local().unwrap().good() && three.local().unwrap().server == Server::Down);
    let position = follow(&mut three, &two, 4).await;
    // It replayed what was archived by itself; only what came later is streamed.
    assert!(position.timeline == TimelineId(4) && position.end.0 + 8192 > end.0, "{position} {end}");
    let wanted = two.value(ROWS).await;
    three.wait_value(ROWS, &wanted).await;
    two.value("INSERT INTO t VALUES (0, 'last')").await;
    three.wait_value("SELECT y FROM t WHERE x = 0", "last").await;
    assert!(!three.path("volume/restore").exists());
    // It leads like any other, on the next number.
    let last = three.detached().await;
    two.reach(WantKind::Fenced).await;
    lead(&mut three, 5, &[]).await;
    let local = three.local().unwrap();
    assert!(matches!(local.server, Server::Primary { timeline: TimelineId(5), .. }), "{local:?}");
    assert!(last.end > position.end);
    assert_eq!(three.value("SELECT count(*) FROM t").await, "100002");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_leaves_it_to_an_older_one_and_that_to_a_copy() {
    let Some(set) = Set::new() else { return };
    let archive = Archive::new().await;
    let one = set.founded().await;
    one.value("CREATE TABLE t AS SELECT x, md5(x::text) AS y FROM generate_series(1, 1000) x").await;
    let mut shipper = archive.ship(&one, 1, None).await;
    let system = archive.snapshot(&one, 1, "old").await;
    one.value("INSERT INTO t VALUES (0, 'between')").await;
    archive.snapshot(&one, 1, "new").await;
    shipper.caught_up(&one).await;
    let part = |name: &str| archive.folder().join(format!("{system}/snapshots/{name}/part/00000001.tar.zst"));
    // Of the same size, so that only its checksum tells.
    let mut bytes = fs::read(part("new")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(part("new"), &bytes).unwrap();
    let mut three = archive.member(&set, 3).await;
    let ways = come(&mut three, &one, 1, false).await;
    assert!(ways.len() == 2 && ways[0].starts_with("restoring snapshot new, "), "{ways:?}");
    assert!(ways[1].starts_with("restoring snapshot old, ") && ways[1].contains("restoring snapshot new failed ("));
    follow(&mut three, &one, 1).await;
    three.wait_value("SELECT y FROM t WHERE x = 0", "between").await;

    fs::remove_file(part("old")).unwrap();
    let mut four = archive.member(&set, 2).await;
    one.set(|s| drop(s.parameters.insert("log_replication_commands".into(), "on".into())));
    one.wait_value("SHOW log_replication_commands", "on").await;
    let ways = come(&mut four, &one, 1, false).await;
    assert_eq!(copies(&one), 1, "what is not seen above would be seen");
    let last = ways.last().unwrap();
    assert!(last.starts_with("copying from t-1, because ") && last.contains("it is missing"), "{ways:?}");
    follow(&mut four, &one, 1).await;
    four.wait_value("SELECT y FROM t WHERE x = 0", "between").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_fell_behind_gets_the_log_that_its_leader_has_no_more_and_stays() {
    let Some(set) = Set::new() else { return };
    let archive = Archive::new().await;
    let one = set.founded().await;
    one.set(|s| {
        s.parameters.insert("wal_keep_size".into(), "0".into());
        s.parameters.insert("min_wal_size".into(), "32MB".into());
    });
    one.value("CREATE TABLE t (x int, y text)").await;
    let mut shipper = archive.ship(&one, 1, None).await;
    let mut three = archive.member(&set, 3).await;
    let ways = come(&mut three, &one, 1, false).await;
    assert!(ways[0].contains("there is no snapshot in the archive"), "{ways:?}");
    follow(&mut three, &one, 1).await;
    let slot = pgconvoy_terms::Tag::new(&three.id(), &epoch(1)).slot();
    let position = three.detached().await;

    // It is away, and its leader gives its slot up: what it needs next is gone there.
    one.value(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    for n in 0..4 {
        one.value(&format!("INSERT INTO t SELECT x, md5(x::text) FROM generate_series({n}, 1000) x")).await;
        one.value("SELECT pg_switch_wal()").await;
        shipper.caught_up(&one).await;
        one.value("CHECKPOINT").await;
    }
    let begun = Instant::now();
    let answer = loop {
        let answer = one.driver.handle.admit(epoch(1), three.id(), Some(position), one.name.clone()).await;
        if matches!(answer, Answer::Diverged { .. }) || begun.elapsed() > Duration::from_secs(30) {
            break answer;
        }
        one.value(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        one.value("SELECT pg_switch_wal(); CHECKPOINT").await;
    };
    assert_eq!(answer, Answer::Diverged { timeline: TimelineId(1), fork: Lsn(0) });

    // Under another name, as the core asks for it; the files are the same.
    let file = three.path("volume/pgdata/PG_VERSION");
    let inode = fs::metadata(&file).unwrap().ino();
    three.incarnation = Incarnation::from_random(4711);
    let ways = come(&mut three, &one, 1, true).await;
    assert!(ways.len() == 1 && ways[0].starts_with("adding the "), "{ways:?}");
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    let now = follow(&mut three, &one, 1).await;
    assert!(now.end > position.end);
    let wanted = one.value(ROWS).await;
    three.wait_value(ROWS, &wanted).await;
}
