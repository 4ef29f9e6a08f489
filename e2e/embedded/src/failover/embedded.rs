//! pgconvoy on the embedded cluster, to be measured.

use super::measure::{Event, System};
use super::plan::{Api, Blow, Step, Target};
use super::processes::Part;
use super::set::Set;
use super::strike::Undo;
use crate::api::text;
use crate::machine::Word;
use crate::machine::outside::{Cluster, Options};
use anyhow::{Context as _, bail};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;

/// For the cluster, and for a set of three on it.
const UP: Duration = Duration::from_secs(60);
const WHOLE: Duration = Duration::from_secs(180);

/// A cluster with a set of three on it.
pub struct Embedded {
    set: Set,
    way_in: Config,
    undo: Undo,
    rolled_out: u32,
    /// Holds the cluster, which ends with it.
    cluster: JoinHandle<()>,
}

impl Embedded {
    /// Starts it. `root`: the repository; `programs`: where pgconvoy's programs are.
    ///
    /// # Errors
    /// What is missing.
    pub async fn start(root: &Path, programs: Option<&Path>) -> anyhow::Result<Self> {
        let mut apply: Vec<_> =
            std::fs::read_dir(root.join("crds")).context("no crds")?.flatten().map(|e| e.path()).collect();
        apply.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
        let programs = match programs {
            Some(named) => named.to_path_buf(),
            None => std::env::current_exe()?.parent().context("a program without a directory")?.to_path_buf(),
        };
        let options = Options {
            // Not the program that measures.
            own: Some(programs.join("pgconvoy-embedded")),
            programs: Some(programs),
            apply,
            impatient: true,
            ..Options::default()
        };
        let mut cluster = Cluster::start(&options)?;
        let (kubeconfig, (sender, mut known)) =
            (cluster.kubeconfig(), watch::channel(HashMap::<String, SocketAddr>::new()));
        let (up, mut is_up) = watch::channel(false);
        let cluster = tokio::spawn(async move {
            loop {
                match cluster.word().await {
                    Ok(Some(Word::Listen { at, what, .. })) => sender.send_modify(|known| _ = known.insert(what, at)),
                    Ok(Some(Word::Ready)) => drop(up.send(true)),
                    Ok(Some(Word::Say(_))) => {}
                    Ok(Some(Word::Failed(why))) => return eprintln!("the cluster failed: {why}"),
                    Ok(None) => return eprintln!("the cluster ended"),
                    Err(error) => return eprintln!("the cluster failed: {error:#}"),
                }
            }
        });
        tokio::time::timeout(UP, is_up.wait_for(|up| *up)).await.context("the cluster is not up")??;
        let set = Set::new(&kubeconfig, std::process::id(), "quickstart").await?;
        let example = std::fs::read_to_string(root.join("examples/quickstart.yaml")).context("no example")?;
        for document in serde_yaml::Deserializer::from_str(&example) {
            set.apply(&Value::deserialize(document)?).await?;
        }
        let name = format!("default/{}-rw", set.name);
        let address = {
            // Held no longer than this: whoever holds it keeps the next address from being told, and the cluster with it.
            let known = tokio::time::timeout(UP, known.wait_for(|k| k.contains_key(&name))).await;
            *known.context("no Service")??.get(&name).context("no Service")?
        };
        let mut tries = 0;
        let way_in = loop {
            match set.way_in(address).await {
                Ok(way_in) => break way_in,
                Err(error) if tries == 300 => return Err(error),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        Ok(Self { set, way_in, undo: Undo::default(), rolled_out: 0, cluster })
    }

    async fn configured(&self, status: &str) -> anyhow::Result<()> {
        for _ in 0..1_800 {
            let set = self.set.get("pgreplicasets", &self.set.name).await?;
            let conditions = set.pointer("/status/conditions").and_then(Value::as_array);
            if conditions
                .into_iter()
                .flatten()
                .any(|c| text(c, "/type") == "Configured" && text(c, "/status") == status)
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("Configured is not {status}")
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.cluster.abort();
    }
}

impl System for Embedded {
    fn knows(&self, _: Event) -> bool {
        true
    }

    fn way_in(&self) -> &Config {
        &self.way_in
    }

    async fn whole(&self) -> anyhow::Result<()> {
        self.set.whole(&self.way_in, WHOLE).await
    }

    async fn epoch(&self) -> anyhow::Result<u32> {
        Ok(self.set.term().await?.epoch)
    }

    async fn strike(&mut self, event: Event) -> anyhow::Result<()> {
        let blow = match event {
            Event::PostmasterKill => Some(Blow::Kill(Part::Postmaster)),
            Event::ContainerKill => Some(Blow::Kill(Part::Supervisor)),
            Event::PodForceDelete => Some(Blow::ForceDelete),
            Event::PodDelete => Some(Blow::Delete),
            Event::NodeCut => Some(Blow::CutAll),
            Event::Switchover => Some(Blow::Switchover),
            Event::Freeze => Some(Blow::Stop(Part::Pod)),
            Event::Partition => Some(Blow::CutMembers),
            Event::ApiCut => Some(Blow::CutApi),
            Event::ApiDown => None,
            Event::Rollout => {
                self.rolled_out += 1;
                let cpu = format!("{}m", 10 + self.rolled_out);
                self.set.change(json!({ "resources": { "requests": { "cpu": cpu } } })).await?;
                self.configured("False").await?;
                return self.configured("True").await;
            }
        };
        let api = if event == Event::ApiDown { Api::Down } else { Api::Up };
        let blows = blow.map(|b| (Target::Leader, b)).into_iter().collect();
        self.set.strike(&Step { blows, api, hold: 0 }, &mut self.undo).await.map(drop)
    }

    async fn undo(&mut self) -> anyhow::Result<()> {
        self.set.undo(std::mem::take(&mut self.undo)).await
    }
}
