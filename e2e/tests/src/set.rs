//! One replica set, as a user sees it.

use crate::{Namespace, eventually};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A PgReplicaSet in a namespace of a test.
#[derive(Debug)]
pub struct Set<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name.
    pub name: String,
}

impl Set<'_> {
    /// The object.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self) -> anyhow::Result<Value> {
        self.namespace.get(&["pgrs", &self.name])
    }

    /// Waits until `look` finds something in the object; gives that. `what` is what is waited for, in words.
    ///
    /// # Errors
    /// When it did not come `within` that time, with the set's conditions.
    pub fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Value) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut last = Value::Null;
        eventually(what, within, || {
            last = self.get()?;
            Ok(look(&last))
        })
        .with_context(|| format!("{} says {}", self.name, said(&last)))
    }

    /// Waits until the set is Ready with all `members` that its spec asks for, and every one of them counts: the leader,
    /// and each follower in the rule in force. How long that took.
    ///
    /// # Errors
    /// When it is not `within` that time.
    pub fn ready(&self, members: usize, within: Duration) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let wanted = format!("{members}/{members}");
        self.wait(&format!("Ready {wanted}"), within, |set| {
            (condition(set, "Ready").0 == "True" && set["status"]["ready"] == wanted.as_str()).then_some(())
        })?;
        let rest = within.saturating_sub(begin.elapsed()).max(Duration::from_secs(1));
        eventually(&format!("{members} members in the rule"), rest, || {
            Ok((self.rule()?.len() + 1 == members).then_some(()))
        })?;
        Ok(begin.elapsed())
    }

    /// Who leads, by the status.
    ///
    /// # Errors
    /// When nobody does.
    pub fn leader(&self) -> anyhow::Result<String> {
        let set = self.get()?;
        Ok(set["status"]["leader"].as_str().context("no leader")?.to_owned())
    }

    /// The members that follow, by the status.
    ///
    /// # Errors
    /// When the set cannot be read.
    pub fn followers(&self) -> anyhow::Result<Vec<String>> {
        let set = self.get()?;
        let members = set["status"]["memberStates"].as_array().context("no members")?;
        let followers = members.iter().filter(|m| m["role"] == "Follower").filter_map(|m| m["name"].as_str());
        Ok(followers.map(str::to_owned).collect())
    }

    /// The epoch of the term.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn epoch(&self) -> anyhow::Result<i64> {
        let term = self.namespace.get(&["pgterm", &self.name])?;
        term["spec"]["epoch"]["number"].as_i64().context("no epoch")
    }

    /// The followers of the rule in force, `member/incarnation`: what a commit waits for is taken from among them.
    ///
    /// # Errors
    /// When the term cannot be read.
    pub fn rule(&self) -> anyhow::Result<BTreeSet<String>> {
        let term = self.namespace.get(&["pgterm", &self.name])?;
        let configs = term["spec"]["configs"].as_array().context("no configs")?;
        let last = configs.last().context("no config")?;
        let followers = last["followers"].as_array().into_iter().flatten();
        Ok(followers.filter_map(|f| f.as_str()).map(str::to_owned).collect())
    }

    /// Pods of the set: name and uid.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn pods(&self) -> anyhow::Result<BTreeMap<String, String>> {
        self.uids("pods")
    }

    /// Volume claims of the set: name and uid.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn claims(&self) -> anyhow::Result<BTreeMap<String, String>> {
        self.uids("pvc")
    }

    fn uids(&self, kind: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let list = self.namespace.get(&[kind, "-l", &format!("pgconvoy.dev/set={}", self.name)])?;
        let mut uids = BTreeMap::new();
        for item in list["items"].as_array().into_iter().flatten() {
            let text =
                |key: &str| item["metadata"][key].as_str().map(str::to_owned).with_context(|| format!("no {key}"));
            uids.insert(text("name")?, text("uid")?);
        }
        Ok(uids)
    }

    /// How often the kubelet restarted a container of a member's pod.
    ///
    /// # Errors
    /// When the pod has no such container.
    pub fn restarts(&self, member: &str, container: &str) -> anyhow::Result<i64> {
        let pod = self.namespace.get(&["pod", member])?;
        ["initContainerStatuses", "containerStatuses"]
            .iter()
            .filter_map(|list| pod["status"][*list].as_array())
            .flatten()
            .find(|c| c["name"] == container)
            .and_then(|c| c["restartCount"].as_i64())
            .with_context(|| format!("{member} has no container {container}"))
    }

    /// Kills the main process of a container of a member's pod, from outside.
    ///
    /// # Errors
    /// When there is no such process, or it is none of `program`.
    pub fn kill(&self, member: &str, container: &str, program: &str) -> anyhow::Result<()> {
        self.target(member, container, program)?.kill()
    }

    /// The main process of a container of a member's pod, to be killed later: also when the API server cannot be asked any more.
    ///
    /// # Errors
    /// When there is no such process, or it is none of `program`: a process id must not be taken for another.
    pub fn target(&self, member: &str, container: &str, program: &str) -> anyhow::Result<Target> {
        let pid = self.namespace.cluster().process(&self.namespace.name, member, Some(container))?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).context("the process is gone")?;
        // The kernel keeps the first 15 bytes of a program's name.
        ensure!(program.starts_with(name.trim()), "process {pid} is {name}, not {program}");
        Ok(Target { pid })
    }
}

/// A process that is to be killed.
#[derive(Debug)]
pub struct Target {
    pid: u32,
}

impl Target {
    /// Kills it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn kill(&self) -> anyhow::Result<()> {
        let killed = std::process::Command::new("kill").args(["-9", &self.pid.to_string()]).status()?;
        ensure!(killed.success(), "cannot kill process {}", self.pid);
        Ok(())
    }
}

/// Status, reason and message of a condition; empty when there is none for the spec's present generation.
pub(crate) fn condition(set: &Value, kind: &str) -> (String, String, String) {
    let conditions = set["status"]["conditions"].as_array().into_iter().flatten();
    let current = |c: &&Value| c["type"] == kind && c["observedGeneration"] == set["metadata"]["generation"];
    let found = conditions.rev().find(current).cloned().unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

impl Set<'_> {
    /// Status, reason and message of a condition; empty when the operator has not judged the present spec.
    ///
    /// # Errors
    /// When the set cannot be read.
    pub fn condition(&self, kind: &str) -> anyhow::Result<(String, String, String)> {
        Ok(condition(&self.get()?, kind))
    }
}

/// Its conditions in one line, for people.
fn said(set: &Value) -> String {
    let conditions = set["status"]["conditions"].as_array().into_iter().flatten();
    let mut lines: Vec<_> =
        conditions.map(|c| format!("{}={}: {}", c["type"], c["status"], c["message"]).replace('"', "")).collect();
    lines.push(format!("ready {}, leader {}", set["status"]["ready"], set["status"]["leader"]));
    lines.join("; ")
}
