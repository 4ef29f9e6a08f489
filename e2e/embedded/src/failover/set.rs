//! A set of three on the embedded cluster, as a person and a client see it.

use super::network::Network;
use super::processes::Processes;
use super::writer::Session;
use crate::api::text;
use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use hyper::Request;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// A request of ours. The server is a program of this machine.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// The set.
pub struct Set {
    client: kube::Client,
    /// Its name, in the namespace `default`.
    pub name: String,
    /// The cluster's processes.
    pub processes: Processes,
    /// The cluster's network.
    pub network: Network,
}

/// The term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The epoch's number.
    pub epoch: u32,
    /// Whether its leader serves.
    pub active: bool,
    /// Whether a leader is elected, or serves.
    pub elected: bool,
    /// The leader's name.
    pub leader: String,
}

/// A pod of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its pod's UID.
    pub uid: String,
    /// Its pod's address.
    pub address: Ipv4Addr,
}

impl Set {
    /// `root`: the process that started the cluster whose kubeconfig this is.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn new(kubeconfig: &Path, root: u32, name: &str) -> anyhow::Result<Self> {
        let config = kube::config::Kubeconfig::read_from(kubeconfig).context("no kubeconfig")?;
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await;
        let mut config = config.context("no kubeconfig")?;
        (config.connect_timeout, config.read_timeout) = (Some(LIMIT), Some(LIMIT));
        let directory = kubeconfig.parent().context("a kubeconfig without a directory")?.to_path_buf();
        Ok(Self {
            client: kube::Client::try_from(config).context("no client")?,
            name: name.to_owned(),
            processes: Processes { root, directory },
            network: Network { root },
        })
    }

    fn api(&self, plural: &str) -> Api<DynamicObject> {
        let (group, kind) = match plural {
            "pgreplicasets" => ("pgconvoy.dev", "PgReplicaSet"),
            "pgterms" => ("pgconvoy.dev", "PgTerm"),
            "pgrequests" => ("pgconvoy.dev", "PgRequest"),
            "secrets" => ("", "Secret"),
            "services" => ("", "Service"),
            "persistentvolumeclaims" => ("", "PersistentVolumeClaim"),
            _ => ("", "Pod"),
        };
        let version = if group.is_empty() { "v1" } else { "v1alpha1" };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let (group, version, kind) = (group.into(), version.into(), kind.into());
        let resource = ApiResource { group, version, api_version, kind, plural: plural.into() };
        Api::namespaced_with(self.client.clone(), "default", &resource)
    }

    /// An object.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&self, plural: &str, name: &str) -> anyhow::Result<Value> {
        let object = self.api(plural).get(name).await.with_context(|| format!("cannot get {plural} {name}"))?;
        Ok(serde_json::to_value(object)?)
    }

    /// Makes the set of three, or changes it.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        let (api, parameters) = (self.api("pgreplicasets"), PatchParams::apply("failover").force());
        api.patch(&self.name, &parameters, &Patch::Apply(object)).await.context("the set was refused")?;
        Ok(())
    }

    /// Changes its spec.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn change(&self, spec: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.api("pgreplicasets").patch(&self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Its term now.
    ///
    /// # Errors
    /// When it has none.
    pub async fn term(&self) -> anyhow::Result<Term> {
        let term = self.get("pgterms", &self.name).await?;
        let number = term.pointer("/spec/epoch/number").and_then(Value::as_u64).context("a term without a number")?;
        let (phase, leader) = (text(&term, "/spec/phase"), text(&term, "/spec/leader"));
        Ok(Term {
            epoch: u32::try_from(number)?,
            active: phase == "Active",
            elected: phase == "Active" || phase == "Elected",
            leader: leader.split('/').next().unwrap_or_default().to_owned(),
        })
    }

    /// A member's pod.
    ///
    /// # Errors
    /// When it has none, or no address yet.
    pub async fn member(&self, name: &str) -> anyhow::Result<Member> {
        let pod = self.get("pods", name).await?;
        let address = text(&pod, "/status/podIP").parse().with_context(|| format!("{name} has no address"))?;
        Ok(Member { name: name.to_owned(), uid: text(&pod, "/metadata/uid").to_owned(), address })
    }

    /// The names of its three members, the leader's first.
    ///
    /// # Errors
    /// When nobody leads.
    pub async fn members(&self) -> anyhow::Result<[String; 3]> {
        let leader = self.term().await?.leader;
        let all = [1, 2, 3].map(|n| format!("{}-{n}", self.name));
        let [first, second] = match all.iter().position(|n| *n == leader) {
            Some(0) => [1, 2],
            Some(1) => [0, 2],
            Some(2) => [0, 1],
            _ => bail!("nobody leads"),
        };
        Ok([leader, all[first].clone(), all[second].clone()])
    }

    /// The volume of a member.
    ///
    /// # Errors
    /// When it has none.
    pub async fn volume(&self, member: &str) -> anyhow::Result<String> {
        let claim = self.get("persistentvolumeclaims", &format!("{member}-data")).await?;
        Ok(text(&claim, "/spec/volumeName").to_owned())
    }

    /// Deletes a pod.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn delete_pod(&self, name: &str, at_once: bool) -> anyhow::Result<()> {
        let parameters = if at_once { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
        self.api("pods").delete(name, &parameters).await.with_context(|| format!("cannot delete {name}"))?;
        Ok(())
    }

    /// Asks for a switchover.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn switch_over(&self) -> anyhow::Result<()> {
        let request: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgRequest", "metadata": { "generateName": "failover-" },
            "spec": { "set": self.name, "switchover": {} },
        }))?;
        self.api("pgrequests").create(&PostParams::default(), &request).await.context("the request was refused")?;
        Ok(())
    }

    /// Lets the API server answer nobody but us, or everybody.
    ///
    /// # Errors
    /// When it does not do so.
    pub async fn api_answers(&self, everybody: bool) -> anyhow::Result<()> {
        let lose = |user: &str| json!({ "user": user, "fault": "lose" });
        let rules = if everybody { json!([]) } else { json!([lose("system:serviceaccount:"), lose("operator")]) };
        self.knob("PUT", "faults", &rules).await?;
        if !everybody {
            self.knob("POST", "cut-watches", &json!(null)).await?;
        }
        Ok(())
    }

    async fn knob(&self, method: &str, what: &str, body: &Value) -> anyhow::Result<()> {
        let request = Request::builder().method(method).uri(format!("/embedded/{what}"));
        let request = request.header("Content-Type", "application/json").body(serde_json::to_vec(body)?)?;
        self.client.request_text(request).await.with_context(|| format!("the API server refused {what}"))?;
        Ok(())
    }

    /// How clients reach its leader from outside: through the Service `-rw`, where this is what listens for it outside.
    ///
    /// # Errors
    /// When it has no Secret.
    pub async fn way_in(&self, at: SocketAddr) -> anyhow::Result<Config> {
        let secret = self.get("secrets", &format!("{}-app", self.name)).await?;
        let value = |key: &str| -> anyhow::Result<String> {
            let text = secret["data"][key].as_str().with_context(|| format!("the Secret has no {key}"))?;
            Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text)?)?)
        };
        let mut config = Config::new();
        config.host(at.ip().to_string()).port(at.port()).ssl_mode(SslMode::Require);
        config.user(value("username")?).password(value("password")?).dbname(value("dbname")?);
        Ok(config)
    }

    /// Waits until the term is as it should be.
    ///
    /// # Errors
    /// When it is not within this time; what it is then.
    pub async fn until(&self, within: Duration, what: &str, is: impl Fn(&Term) -> bool) -> anyhow::Result<Term> {
        let begun = Instant::now();
        loop {
            let term = self.term().await;
            match &term {
                Ok(term) if is(term) => return Ok(term.clone()),
                _ if begun.elapsed() > within => bail!("{what}: not within {within:?}; the term: {term:?}"),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What is missing to a set on which nothing is wrong: three members ready, an active leader who takes writes, and two who
    /// stream from it.
    async fn missing(&self, config: &Config) -> anyhow::Result<()> {
        let set = self.get("pgreplicasets", &self.name).await?;
        ensure!(text(&set, "/status/ready") == "3/3", "ready: {}", text(&set, "/status/ready"));
        let conditions = set.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
        ensure!(
            ready.is_some_and(|c| c["status"] == "True"),
            "not Ready: {}",
            ready.unwrap_or(&Value::Null)["message"]
        );
        let term = self.term().await?;
        ensure!(term.active, "epoch {} is not active", term.epoch);
        for name in self.members().await? {
            let pod = self.get("pods", &name).await?;
            ensure!(pod.pointer("/metadata/deletionTimestamp").is_none(), "{name} is being deleted");
            let statuses = ["/status/containerStatuses", "/status/initContainerStatuses"];
            let statuses = statuses.iter().filter_map(|s| pod.pointer(s)?.as_array()).flatten();
            let agent_and_database = statuses.filter(|s| s["name"] == "agent" || s["name"] == "postgres");
            ensure!(agent_and_database.filter(|s| s["ready"] == true).count() == 2, "{name} is not ready");
        }
        let session = Session::open(config).await?;
        let sql = "select pg_is_in_recovery(), ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, \
                   (select count(*) from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid \
                    where s.slot_name <> 'pgconvoy_archive')";
        let rows = session.rows(sql).await?;
        let wanted = ["f".to_owned(), term.epoch.to_string(), "2".to_owned()];
        ensure!(rows.first().is_some_and(|r| *r == wanted), "in recovery, epoch, followers: {rows:?}, not {wanted:?}");
        Ok(())
    }

    /// Waits until nothing is missing, twice in a row.
    ///
    /// # Errors
    /// What is missing after this time.
    pub async fn whole(&self, config: &Config, within: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut well = 0;
        loop {
            match self.missing(config).await {
                Ok(()) => well += 1,
                Err(why) if begun.elapsed() > within => return Err(why.context(format!("not whole within {within:?}"))),
                Err(_) => well = 0,
            }
            if well == 2 {
                return Ok(());
            }
            tokio::time::sleep(LOOK * 3).await;
        }
    }
}
