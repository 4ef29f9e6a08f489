//! Putting a rule in force *to the letter*: a new session shows it, no WAL sender is left that began before it, and W of
//! its followers have flushed what was flushed here when that was so.
//!
//! Each WAL sender parses the list for itself and looks for a reload only at the top of its loop: one that is held up
//! between that look and a reply acknowledges by the old list. Hence its absence, not a signal, is what counts.

use super::{
    Error,
    configuration::{self, Role},
    disk,
    server::{FILES, Postgres},
    sql::{AGENT, Session},
};
use pgconvoy_ha::RuleInForce;
use pgconvoy_terms::{Lsn, MemberId, Rule, Tag};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A checkpoint on a busy server with a large buffer.
const CHECKPOINT: Duration = Duration::from_secs(600);
/// How long a WAL sender may take to end.
const SENDER: Duration = Duration::from_secs(10);
/// How long one that was ended may take to be back before the next one is ended: it is, in 0.1 to 0.3 s.
const RETURN: Duration = Duration::from_millis(1000);
/// How long one step waits for followers before it says so.
const FOLLOWERS: Duration = Duration::from_secs(5);

/// A WAL sender: a process id alone may be used again.
type Sender = (i32, String);

/// What is kept on disk so that a new agent need not do it all again. It names the server by its start, so it means
/// nothing after a crash of the machine.
#[derive(serde::Serialize, serde::Deserialize, PartialEq, Eq)]
struct Done {
    epoch: String,
    list: String,
    /// When the server was started, as it says.
    server: String,
}

impl Postgres {
    /// Puts `rule` in force, or waits for the followers that it needs. `session` is new, and shows the list `before`.
    pub(crate) async fn put_in_force(
        &self,
        session: &Session,
        rule: &Rule,
        before: &str,
        gate: bool,
    ) -> Result<(), Error> {
        let role = Role::leading(rule, gate);
        let letter = RuleInForce { followers: rule.followers.clone(), acknowledgements: rule.acknowledgements };
        let goal = Some((rule.epoch.clone(), letter));
        let list = configuration::names(rule);
        if before == list && self.facts.known().in_force == goal {
            return self.apply(&role, session).await.map(drop);
        }
        let done = self.done(session, rule, &list).await?;
        if before == list && self.already_done(&done).await? {
            tracing::info!(list, "the rule was put in force by an earlier agent");
            self.apply(&role, session).await?;
            self.facts.set(|k| k.in_force = goal);
            return Ok(());
        }
        self.facts.set(|k| k.in_force = None);
        self.forget_done().await?;
        let reloaded = self.apply(&role, session).await?;
        let live = live_list(reloaded.as_ref().unwrap_or(session)).await?;
        if live != list {
            return Err(Error::Answer {
                doing: "verifying synchronous_standby_names",
                what: format!("a new session shows {live:?} instead of {list:?}"),
            });
        }
        if before.is_empty() && !list.is_empty() {
            // Whether commits wait at all is a flag that the checkpointer sets some time after the reload; after a
            // checkpoint it is set.
            self.checkpoint().await?;
        }
        self.replace_senders(session).await?;
        let flushed: Lsn = {
            const DOING: &str = "asking for the end of the log";
            session.row(DOING, "SELECT pg_current_wal_flush_lsn()").await?.get(0, DOING)?
        };
        self.wait_flushed(session, rule, flushed).await?;
        self.remember_done(&done).await?;
        tracing::info!(list, %flushed, "the rule is in force");
        self.facts.set(|k| k.in_force = goal);
        Ok(())
    }

    /// Runs a checkpoint.
    pub(crate) async fn checkpoint(&self) -> Result<(), Error> {
        let session = Session::open_as(&self.address(), "postgres", AGENT, CHECKPOINT).await?;
        session.rows_within("running a checkpoint", "CHECKPOINT", CHECKPOINT).await.map(drop)
    }

    /// Ends every WAL sender that lives now, one after the other, and returns when none of them is left. Those that send
    /// a base backup stay: they acknowledge nothing, and read the list anew before they would stream.
    async fn replace_senders(&self, session: &Session) -> Result<(), Error> {
        let old = senders(session).await?;
        for (sender, name) in &old {
            let sql = format!("SELECT pg_terminate_backend({})", sender.0);
            session.run("ending a WAL sender", &sql).await?;
            let begun = Instant::now();
            while senders(session).await?.contains_key(sender) {
                if begun.elapsed() > SENDER {
                    return Err(Error::Timeout { doing: "ending a WAL sender", after: SENDER });
                }
                sleep(Duration::from_millis(5)).await;
            }
            let begun = Instant::now();
            while begun.elapsed() < RETURN && !senders(session).await?.values().any(|n| n == name) {
                sleep(Duration::from_millis(10)).await;
            }
        }
        // What counts is that none of the old ones is there, whatever happened in between.
        let now = senders(session).await?;
        if old.keys().any(|s| now.contains_key(s)) {
            return Err(Error::NotYet("WAL senders that began under the earlier rule are still there".into()));
        }
        Ok(())
    }

    /// Waits until W followers of the rule have flushed everything up to `flushed`.
    async fn wait_flushed(&self, session: &Session, rule: &Rule, flushed: Lsn) -> Result<(), Error> {
        let wanted = rule.acknowledgements as usize;
        let tags: BTreeMap<String, &MemberId> =
            rule.followers.iter().map(|f| (Tag::new(f, &rule.epoch).to_string(), f)).collect();
        let begun = Instant::now();
        loop {
            let sql = format!(
                "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= '{flushed}'"
            );
            let rows = session.rows("looking at the followers", &sql).await?;
            let have: BTreeSet<&MemberId> =
                rows.iter().filter_map(|r| r.text(0)).filter_map(|n| tags.get(n).copied()).collect();
            if have.len() >= wanted {
                return Ok(());
            }
            if begun.elapsed() > FOLLOWERS {
                return Err(Error::NotYet(format!(
                    "{} of the {wanted} followers that must have flushed the log up to {flushed} have done so",
                    have.len()
                )));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn done_path(&self) -> std::path::PathBuf {
        self.paths().state.join("rule.json")
    }

    async fn done(&self, session: &Session, rule: &Rule, list: &str) -> Result<Done, Error> {
        let row = session.row("asking when the server was started", "SELECT pg_postmaster_start_time()").await?;
        let server = row.text(0).unwrap_or_default().to_owned();
        Ok(Done { epoch: rule.epoch.to_string(), list: list.to_owned(), server })
    }

    async fn already_done(&self, done: &Done) -> Result<bool, Error> {
        let path = self.done_path();
        let read = self.disk.run("reading which rule is in force", FILES, move || disk::read(&path)).await?;
        // Unreadable is as good as absent: it is done again.
        Ok(read.and_then(|bytes| serde_json::from_slice::<Done>(&bytes).ok()).is_some_and(|d| d == *done))
    }

    async fn forget_done(&self) -> Result<(), Error> {
        let path = self.done_path();
        self.disk.run("forgetting which rule is in force", FILES, move || disk::remove(&path)).await
    }

    async fn remember_done(&self, done: &Done) -> Result<(), Error> {
        let path = self.done_path();
        let bytes = serde_json::to_vec(done).map_err(|e| Error::disk("encode", &path)(e.into()))?;
        self.disk.run("remembering which rule is in force", FILES, move || disk::show(&path, &bytes)).await
    }
}

/// `synchronous_standby_names` as a session shows it.
pub(crate) async fn live_list(session: &Session) -> Result<String, Error> {
    let row = session.row("reading synchronous_standby_names", "SHOW synchronous_standby_names").await?;
    Ok(row.text(0).unwrap_or_default().to_owned())
}

/// The WAL senders that could acknowledge, and their names.
async fn senders(session: &Session) -> Result<BTreeMap<Sender, String>, Error> {
    const DOING: &str = "listing WAL senders";
    let sql = "SELECT pid, backend_start, coalesce(application_name, '') FROM pg_stat_replication \
               WHERE state IS DISTINCT FROM 'backup'";
    let mut list = BTreeMap::new();
    for row in session.rows(DOING, sql).await? {
        let start = row.text(1).unwrap_or_default().to_owned();
        list.insert((row.get(0, DOING)?, start), row.text(2).unwrap_or_default().to_owned());
    }
    Ok(list)
}
