//! The archive under failovers: a set is restored to positions in its log, and once more after all of it was lost in the middle of
//! writing, and has what clients had been told by then.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

#[allow(dead_code, reason = "shared with other tests")]
mod bed;

use anyhow::ensure;
use bed::Bed;
use pgconvoy_embedded::failover::plan::{Api, Blow, Step, Target};
use pgconvoy_embedded::failover::processes::Part;
use pgconvoy_embedded::failover::set::Set;
use pgconvoy_embedded::failover::strike::Undo;
use pgconvoy_embedded::failover::writer::Session;
use pgconvoy_terms::Lsn;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_postgres::Config;

/// For a set, whatever was done to it.
const WHOLE: Duration = Duration::from_secs(120);
const MOVED: Duration = Duration::from_secs(60);
/// How old an acknowledged write is that must be in the archive: `maxDelaySeconds`, and what a busy machine adds.
const ARCHIVED: Duration = Duration::from_secs(5);
const SET: &str = "quickstart";
/// What is done to the leader, and for how long, in milliseconds.
const STEPS: [(Blow, u64); 4] =
    [(Blow::Kill(Part::Postmaster), 300), (Blow::Stop(Part::Pod), 1_000), (Blow::CutAll, 1_000), (Blow::Wipe, 300)];
/// Rows of some 300 bytes in a write, so that segments become full.
const ROWS: u32 = 400;

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    id: u64,
    /// Its commit lies between these.
    before: Lsn,
    after: Lsn,
    at: Instant,
}

#[derive(Clone, Default)]
struct Writers {
    ids: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    async fn write(self, config: Config) {
        let mut session: Option<Session> = None;
        while !self.stop.load(Ordering::SeqCst) {
            let open = match session.take() {
                Some(open) => Ok(open),
                None => Session::open(&config).await,
            };
            match open {
                Ok(open) if self.one(&open).await.is_ok() => session = Some(open),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn one(&self, session: &Session) -> anyhow::Result<()> {
        const WHERE: &str = "select pg_current_wal_insert_lsn()";
        let id = self.ids.fetch_add(1, Ordering::SeqCst);
        let at = async || anyhow::Ok(session.rows(WHERE).await?.concat().concat().parse::<Lsn>()?);
        let before = at().await?;
        let rows = format!("select {id}, md5(random()::text) || repeat('x', 250) from generate_series(1, {ROWS})");
        session.rows(&format!("insert into positions {rows}")).await?;
        let acknowledged = Instant::now();
        let after = at().await?;
        self.acknowledged.lock().unwrap().push(Acknowledged { id, before, after, at: acknowledged });
        Ok(())
    }

    fn all(&self) -> Vec<Acknowledged> {
        self.acknowledged.lock().unwrap().clone()
    }
}

#[test]
fn what_was_acknowledged_comes_back_out_of_the_archive() {
    let Some(bed) = Bed::up(&["--impatient", "--store"]) else { return };
    bed.apply("examples/quickstart.yaml");
    bed.change("pgreplicasets", SET, &json!({ "spec": { "archive": { "ref": { "name": "store" } } } }));
    bed.wait_ready(SET, "3/3", WHOLE);
    bed.wait(WHOLE, "Archiving", || {
        let set = bed.get("pgreplicasets", SET)?;
        let conditions = set["status"]["conditions"].as_array()?;
        conditions.iter().any(|c| c["type"] == "Archiving" && c["status"] == "True").then_some(())
    });
    bed.make(
        "pgsnapshots",
        &json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgSnapshot",
        "metadata": { "name": "first" }, "spec": { "set": SET } }),
    );
    bed.wait(WHOLE, "a snapshot", || {
        (bed.get("pgsnapshots", "first")?["status"]["phase"] == "Completed").then_some(())
    });
    let rw = bed.address(SET, "rw");
    let example = bed.get("pgreplicasets", SET).unwrap()["spec"].clone();

    let (all, lost) = bed.run(async {
        let set = Set::new(bed.kubeconfig(), bed.root(), SET).await.unwrap();
        let way_in = set.way_in(rw).await.unwrap();
        fail_over(&set, &way_in).await.unwrap()
    });
    // All of it is gone, volumes too.
    bed.delete("pgreplicasets", SET);
    bed.wait(WHOLE, "no pods", || bed.list("pods").is_empty().then_some(()));

    let targets: Vec<Acknowledged> = [1, 2].map(|n| all[all.len() * n / 3]).to_vec();
    let mut again = vec![("at-the-end".to_owned(), json!({}))];
    again.extend(
        targets.iter().map(|t| (format!("at-{:x}", t.after.0), json!({ "target": { "lsn": t.after.to_string() } }))),
    );
    for (name, target) in &again {
        bed.make("pgreplicasets", &restored(name, example.clone(), target));
    }
    for (name, _) in &again {
        bed.wait_ready(name, "1/1", WHOLE);
    }
    let there = |name: &str| -> BTreeSet<u64> {
        let ids = bed.wait(WHOLE, "the rows", || {
            bed.sql(name, "rw", &format!("select id from positions group by id having count(*) = {ROWS}")).ok()
        });
        ids.lines().map(|id| id.parse().unwrap()).collect()
    };
    let end = there(&again[0].0);
    let missing: Vec<_> = all.iter().filter(|a| !end.contains(&a.id)).collect();
    let newest = missing.iter().map(|a| lost.saturating_duration_since(a.at)).max().unwrap_or_default();
    println!(
        "measured: {} writes acknowledged over {} failovers; with the whole set lost, {} of the last {newest:.2?} are missing",
        all.len(),
        STEPS.len(),
        missing.len()
    );
    assert!(newest < ARCHIVED, "{missing:?}, lost at {lost:?}");
    for (target, (name, _)) in targets.iter().zip(&again[1..]) {
        let there = there(name);
        let at = target.after;
        let wanted: Vec<_> = all.iter().filter(|a| a.after <= at && !there.contains(&a.id)).collect();
        assert!(wanted.is_empty(), "restored to {at}, these are missing: {wanted:?}");
        let unwanted: Vec<_> = all.iter().filter(|a| a.before > at && there.contains(&a.id)).collect();
        assert!(unwanted.is_empty(), "restored to {at}, these are of a later time: {unwanted:?}");
    }
}

/// Writes while the leader is struck again and again, and at last all members at once; what was acknowledged, and when the end came.
async fn fail_over(set: &Set, way_in: &Config) -> anyhow::Result<(Vec<Acknowledged>, Instant)> {
    set.whole(way_in, WHOLE).await?;
    Session::open_in_the_end(way_in).await?.rows("create table positions (id bigint not null, text text)").await?;
    let writers = Writers::default();
    let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(writers.clone().write(way_in.clone()))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (blow, hold) in STEPS {
        let before = set.term().await?;
        let begun = Instant::now();
        let step = Step { blows: vec![(Target::Leader, blow)], api: Api::Up, hold };
        let mut undo = Undo::default();
        let struck = set.strike(&step, &mut undo).await;
        let moved = set.until(MOVED, "a later epoch", |t| t.active && t.epoch > before.epoch).await;
        tokio::time::sleep(Duration::from_millis(hold)).await;
        set.undo(undo).await?;
        println!("{step} ({}): epoch {} after {:.1?}", struck?, moved?.epoch, begun.elapsed());
        set.whole(way_in, WHOLE).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lost = Instant::now();
    let everybody = [Target::Leader, Target::First, Target::Second].map(|target| (target, Blow::Wipe));
    set.strike(&Step { blows: everybody.to_vec(), api: Api::Up, hold: 0 }, &mut Undo::default()).await?;
    writers.stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await?;
    }
    let all = writers.all();
    ensure!(all.len() > 100, "{} writes only", all.len());
    Ok((all, lost))
}

/// A set of one out of the archive.
fn restored(name: &str, mut spec: Value, target: &Value) -> Value {
    let mut from = json!({ "ref": { "name": "store" }, "prefix": format!("default/{SET}") });
    from.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
    spec["members"] = json!(1);
    spec["bootstrap"] = json!({ "fromArchive": from });
    spec.as_object_mut().unwrap().remove("archive");
    json!({ "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet", "metadata": { "name": name }, "spec": spec })
}
