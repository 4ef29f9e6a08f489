//! A client of a replica set: a pod with `psql`, which knows the set's application Secret and nothing else.

use crate::{Output, Set, eventually};
use anyhow::{Context, bail, ensure};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Which way a client goes in.
#[derive(Debug, Clone, Copy)]
pub enum Door<'a> {
    /// The Service of the leader, by the Secret's `uri` as it is.
    Writes,
    /// The Service of the followers.
    Reads,
    /// The Service of all members.
    Any,
    /// The pod of this member.
    Member(&'a str),
}

/// The pod.
#[derive(Debug)]
pub struct Client<'a> {
    set: &'a Set<'a>,
    pod: String,
}

/// What became of the writes of [`Client::start_writing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Writes that PostgreSQL acknowledged.
    pub acknowledged: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Acknowledged writes that are not in the table.
    pub lost: u64,
}

/// What a client has written, seen from outside of its pod.
#[derive(Debug)]
pub struct Outside {
    file: PathBuf,
}

impl Outside {
    /// How many writes were acknowledged so far.
    ///
    /// # Errors
    /// When the pod is gone, or has written nothing.
    pub fn written(&self) -> anyhow::Result<usize> {
        let text = std::fs::read_to_string(&self.file).with_context(|| format!("no {}", self.file.display()))?;
        Ok(text.lines().count())
    }
}

/// Writes one row after the other, each on a connection of its own, and keeps what was acknowledged and what was not. It has a
/// time-out of its own: a frozen server's kernel still confirms what it receives, so neither TCP nor `statement_timeout` would ever
/// end a statement that was under way when the freeze came.
const WRITER: &str = r#"
n=0
while [ ! -e /tmp/stop ]; do
  n=$((n + 1))
  timeout 12 psql "$URI" -Xqc "set statement_timeout = '10s'" -c "insert into writes values ($n)" 2>> /tmp/errors
  case $? in
    0) echo $n >> /tmp/acknowledged ;;
    124) echo $n >> /tmp/failed; echo "no answer within 12 s: given up" >> /tmp/errors ;;
    *) echo $n >> /tmp/failed ;;
  esac
  sleep 0.05
done
touch /tmp/stopped
"#;

impl<'a> Client<'a> {
    /// Starts the pod, once the set's Secret is there.
    ///
    /// # Errors
    /// When it does not run after a while.
    pub fn start(set: &'a Set<'a>) -> anyhow::Result<Self> {
        let pod = format!("{}-client", set.name);
        let secret = format!("{}-app", set.name);
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": pod },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "enableServiceLinks": false,
                "containers": [{
                    "name": "client",
                    "image": "docker.io/library/postgres:17",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                    "env": [{ "name": "URI", "valueFrom": { "secretKeyRef": { "name": secret, "key": "uri" } } }],
                }],
            },
        });
        set.namespace.kubectl(&["create", "-f", "-"], &object.to_string())?;
        set.namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod", &pod], "")?;
        Ok(Self { set, pod })
    }

    /// Runs a shell command in the pod.
    ///
    /// # Errors
    /// When kubectl cannot be run; the command's own failure is an [`Output`].
    pub fn shell(&self, command: &str, arguments: &[&str], stdin: &str) -> anyhow::Result<Output> {
        let head = ["exec", "-i", &self.pod, "--", "sh", "-c", command, "sh"];
        self.set.namespace.try_kubectl(&[&head[..], arguments].concat(), stdin)
    }

    /// Runs SQL, and takes what comes.
    ///
    /// # Errors
    /// When there is no way to the door.
    pub fn try_sql(&self, door: Door<'_>, sql: &str) -> anyhow::Result<Output> {
        let host = match door {
            Door::Writes => format!("{}-rw.", self.set.name),
            Door::Reads => format!("{}-ro.", self.set.name),
            Door::Any => format!("{}-r.", self.set.name),
            Door::Member(name) => {
                let pod = self.set.namespace.get(&["pod", name])?;
                let address = pod["status"]["podIP"].as_str().with_context(|| format!("{name} has no address"))?;
                format!("{address}:5432/app?")
            }
        };
        // The Secret's uri with another host.
        let command = match door {
            Door::Writes => r#"exec psql "$URI" -XAtq -v ON_ERROR_STOP=1"#,
            Door::Reads | Door::Any => {
                r#"exec psql "$(printf %s "$URI" | sed "s|@[^.]*[.]|@$1|")" -XAtq -v ON_ERROR_STOP=1"#
            }
            Door::Member(_) => r#"exec psql "$(printf %s "$URI" | sed "s|@[^?]*?|@$1|")" -XAtq -v ON_ERROR_STOP=1"#,
        };
        self.shell(command, &[&host], sql)
    }

    /// Runs SQL; what it gave, lines of columns with `|` between them.
    ///
    /// # Errors
    /// When it fails, with what psql said.
    pub fn sql(&self, door: Door<'_>, sql: &str) -> anyhow::Result<String> {
        let output = self.try_sql(door, sql)?;
        if !output.ok {
            bail!("{sql}: {}", output.stderr);
        }
        Ok(output.stdout.trim().to_owned())
    }

    /// Runs SQL that changes something, through the door for writes, until it is done: after a change of leader every node takes up to a
    /// second to lead there, and whoever comes to the last leader is refused meanwhile.
    ///
    /// # Errors
    /// When it is not done `within` that time, with what psql said last.
    pub fn does(&self, sql: &str, within: Duration) -> anyhow::Result<()> {
        let mut last = String::new();
        eventually(&format!("{sql} to be done"), within, || {
            let output = self.try_sql(Door::Writes, sql)?;
            last = output.stderr;
            Ok(output.ok.then_some(()))
        })
        .with_context(|| last.clone())
    }

    /// Runs SQL until it gives `wanted`.
    ///
    /// # Errors
    /// When it does not `within` that time, with what it gave last.
    pub fn gives(&self, door: Door<'_>, sql: &str, wanted: &str, within: Duration) -> anyhow::Result<()> {
        let mut last = String::new();
        eventually(&format!("{sql} gives {wanted} through {door:?}"), within, || {
            last = self.sql(door, sql)?;
            Ok((last == wanted).then_some(()))
        })
        .with_context(|| format!("it gave {last}"))
    }

    /// Begins to write into a new table `writes`, some ten rows a second, until [`Client::stop_writing`].
    ///
    /// # Errors
    /// When the table cannot be made, or nothing was written after a while.
    pub fn start_writing(&self) -> anyhow::Result<()> {
        self.sql(Door::Writes, "create table if not exists writes (n bigint); truncate writes")?;
        let start = "rm -f /tmp/stop /tmp/stopped /tmp/acknowledged /tmp/failed /tmp/errors; cat > /tmp/writer
            nohup sh /tmp/writer > /dev/null 2>&1 < /dev/null &";
        ensure!(self.shell(start, &[], WRITER)?.ok, "cannot start to write");
        eventually("a first write", Duration::from_secs(20), || Ok((self.written()? > 0).then_some(())))
    }

    /// How many writes were acknowledged so far.
    ///
    /// # Errors
    /// When the pod does not answer.
    pub fn written(&self) -> anyhow::Result<u64> {
        self.lines("acknowledged")
    }

    /// A way to see what was acknowledged that needs no API server.
    ///
    /// # Errors
    /// When the pod's process cannot be found from outside.
    pub fn seen_from_outside(&self) -> anyhow::Result<Outside> {
        let namespace = self.set.namespace;
        let pid = namespace.cluster().process(&namespace.name, &self.pod, None)?;
        let outside = Outside { file: format!("/proc/{pid}/root/tmp/acknowledged").into() };
        outside.written()?;
        Ok(outside)
    }

    fn lines(&self, file: &str) -> anyhow::Result<u64> {
        let output = self.shell("cat /tmp/$1 2> /dev/null | wc -l", &[file], "")?;
        output.stdout.trim().parse().with_context(|| format!("no count of {file}: {}", output.stderr))
    }

    /// Ends it and counts, on the leader, what is there of what was acknowledged.
    ///
    /// # Errors
    /// When the writer does not end or the leader cannot be asked.
    pub fn stop_writing(&self) -> anyhow::Result<Tally> {
        self.shell("touch /tmp/stop", &[], "")?;
        eventually("the end of writing", Duration::from_secs(30), || {
            Ok(self.shell("test -e /tmp/stopped", &[], "")?.ok.then_some(()))
        })?;
        let count = "create temp table acknowledged (n bigint);
            \\copy acknowledged from '/tmp/acknowledged'
            select count(*) from acknowledged a where not exists (select from writes w where w.n = a.n);";
        let lost = self.sql(Door::Writes, count)?;
        let lost = lost.parse().with_context(|| format!("no count: {lost}"))?;
        let tally = Tally { acknowledged: self.written()?, failed: self.lines("failed")?, lost };
        if tally.failed > 0 {
            println!("writes failed with:\n{}", self.errors());
        }
        Ok(tally)
    }

    /// What failed writes said, the most frequent first.
    #[must_use]
    pub fn errors(&self) -> String {
        self.shell("sort /tmp/errors | uniq -c | sort -rn | head -n 20", &[], "")
            .map_or_else(|error| format!("{error:#}"), |said| said.stdout)
    }

    /// Since when the PostgreSQL of a member runs.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn postmaster_start(&self, member: &str) -> anyhow::Result<String> {
        self.sql(Door::Member(member), "select pg_postmaster_start_time()")
    }
}
