//! What is shown, one step after the other.

use super::client::Client;
use super::sql::Sql;
use super::view::{Look, Screen};
use super::writer::Writer;
use super::{Context, archive, farewell};
use crate::failover::processes::{Part, Processes};
use anyhow::{Context as _, bail};
use serde::Deserialize as _;
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The set of the example.
pub(super) const SET: &str = "quickstart";
const EXAMPLE: &str = "examples/quickstart.yaml";
/// Between two looks at the set.
const LOOK: Duration = Duration::from_millis(200);
/// How long a set, or a member, may take. A machine that is ten times slower than ours still makes it.
pub(super) const READY: Duration = Duration::from_secs(180);
/// How long a follower may take to replay what was written, and writes to be acknowledged again.
pub(super) const SOON: Duration = Duration::from_secs(60);

static OVER: AtomicBool = AtomicBool::new(false);

/// Whether everything was shown, and the cluster is whoever's who looks on.
pub(super) fn over() -> bool {
    OVER.load(Ordering::Relaxed)
}

/// A heading.
pub(super) fn title(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m{text}\x1b[0m");
    } else {
        println!("\n{text}");
    }
}

/// All of them. Without `--once` it does not end by itself.
///
/// # Errors
/// What went wrong, and where to look.
pub(super) async fn all(context: &Context) -> anyhow::Result<()> {
    let begun = Instant::now();
    let client = Client::new(&context.kubeconfig).await?;
    let sql = come_up(context, &client).await?;
    write_and_read(&sql).await?;
    lose_a_follower(&client, &sql).await?;
    lose_the_leader(context, &client, &sql).await?;
    archive::restore(context, &client, &sql).await?;
    farewell::kubectl(context).await;
    title(&format!("That was the tour, in {} s", begun.elapsed().as_secs()));
    OVER.store(true, Ordering::Relaxed);
    if !context.tour.once {
        farewell::say(context, &sql);
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn look(client: &Client) -> anyhow::Result<Look> {
    look_at(client, SET).await
}

async fn look_at(client: &Client, set: &str) -> anyhow::Result<Look> {
    Ok(Look::of(&client.get("pgreplicasets", set).await?))
}

async fn watch(client: &Client, before: Look, done: impl Fn(&Look) -> bool) -> anyhow::Result<Duration> {
    watch_set(client, SET, before, done).await
}

/// Draws the set until it is as it should be.
///
/// # Errors
/// What it says itself, when it is not so in time.
pub(super) async fn watch_set(
    client: &Client,
    set: &str,
    before: Look,
    done: impl Fn(&Look) -> bool,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut screen = Screen::new(std::io::stdout().is_terminal(), before);
    loop {
        let look = look_at(client, set).await?;
        let (elapsed, over) = (begun.elapsed(), done(&look));
        print!("{}", screen.draw(&look, elapsed));
        std::io::stdout().flush().context("nobody reads what is shown")?;
        if over {
            return Ok(elapsed);
        }
        if elapsed > READY {
            bail!("the set is not there yet after {} s. It says: {}", READY.as_secs(), look.message);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The example that the tour is about.
///
/// # Errors
/// When it cannot be read.
pub(super) fn example(context: &Context) -> anyhow::Result<String> {
    let path = context.tour.root.join(EXAMPLE);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Looks until there is something.
///
/// # Errors
/// What looking gives, or that there is nothing in time.
pub(super) async fn until<T, F>(limit: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            bail!("not within {} s", limit.as_secs());
        }
        tokio::time::sleep(LOOK / 4).await;
    }
}

async fn come_up(context: &Context, client: &Client) -> anyhow::Result<Sql> {
    title("2. A replica set: one leader, two followers");
    let text = example(context)?;
    println!("  $ kubectl apply -f {EXAMPLE}");
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        println!("    {line}");
    }
    println!();
    for document in serde_yaml::Deserializer::from_str(&text) {
        client.apply("pgreplicasets", &Value::deserialize(document).context("the example is no YAML")?).await?;
    }
    let took = watch(client, Look::default(), |l| l.whole(3, "")).await?;
    println!("  Ready 3/3 after {:.1} s.", took.as_secs_f64());
    Sql::of(context, client, SET).await
}

async fn write_and_read(sql: &Sql) -> anyhow::Result<()> {
    title(&format!("3. Write through {SET}-rw, read through {SET}-ro"));
    sql.must("rw", "create table visits (n int primary key, word text)").await?;
    sql.must("rw", "insert into visits values (1, 'hello from the leader')").await?;
    // A follower replays a commit a moment after the leader has answered.
    wait(sql, "ro", "select count(*) from visits where n = 1", "1").await?;
    sql.must("ro", "select word, pg_is_in_recovery() as on_a_follower from visits").await?;
    println!("  A follower takes no writes:");
    if sql.show("ro", "insert into visits values (2, 'no')").await? {
        bail!("a follower took a write");
    }
    Ok(())
}

async fn wait(sql: &Sql, service: &str, statement: &str, wanted: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let got = sql.quietly(service, statement).await;
        match got {
            Ok(value) if value == wanted => return Ok(()),
            other if begun.elapsed() > SOON => bail!("{statement}: {other:?} instead of {wanted} after {SOON:?}"),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn lose_a_follower(client: &Client, sql: &Sql) -> anyhow::Result<()> {
    title("4. Lose a follower");
    let before = look(client).await?;
    let follower = before.follower().context("the set has no follower")?.clone();
    println!("  $ kubectl delete pod {}", follower.name);
    client.delete_pod(&follower.name).await?;
    sql.must("rw", &format!("insert into visits values (2, 'written while {} was away')", follower.name)).await?;
    let took = watch(client, before, |l| l.whole(3, &follower.pod)).await?;
    println!("  {} came back by itself, with its data, after {:.1} s.", follower.name, took.as_secs_f64());
    wait(sql, "ro", "select count(*) from visits", "2").await
}

async fn lose_the_leader(context: &Context, client: &Client, sql: &Sql) -> anyhow::Result<()> {
    title("5. Kill the leader, while ten writes a second go on");
    let before = look(client).await?;
    let leader = before.leading().context("the set has no leader")?.clone();
    let processes = Processes { root: std::process::id(), directory: context.directory.clone() };
    let process = processes.of(&leader.pod, Part::Supervisor).first().copied();
    let process = process.with_context(|| format!("the first process of {} is not to be found", leader.name))?;
    let writer = Writer::start(sql, 1_000);
    let first = async || Ok((writer.record().numbers().len() >= 5).then_some(()));
    until(SOON, first).await.context("no write was acknowledged")?;
    println!("  $ kill -9 {process}     # with it dies everything in the container of {}'s PostgreSQL", leader.name);
    let killed = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGKILL)
        .with_context(|| format!("process {process} cannot be killed"))?;
    let epoch = before.epoch;
    let took = watch(client, before, |l| l.epoch > epoch && l.whole(3, "")).await?;
    let outage = until(SOON, async || Ok(writer.record().outage(killed))).await;
    let outage = outage.context("no write was acknowledged since")?;
    let (record, after) = (writer.record(), look(client).await?);
    drop(writer);
    if after.leader == leader.name {
        println!("  It was back so soon that it leads epoch {} as well.", after.epoch);
    } else {
        let (next, took) = (&after.leader, took.as_secs_f64());
        println!("  {next} leads epoch {} now, and {} is its follower after {took:.1} s.", after.epoch, leader.name);
    }
    let numbers = record.numbers();
    let list = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let there = sql.quietly("rw", &format!("select count(*) from visits where n in ({list})")).await?;
    println!(
        "  Writes: {} acknowledged, {} not, and {there} of those acknowledged are there. None was acknowledged for {:.2} s.",
        numbers.len(),
        record.failed,
        outage.as_secs_f64()
    );
    if there != numbers.len().to_string() {
        bail!("acknowledged writes are missing");
    }
    Ok(())
}
