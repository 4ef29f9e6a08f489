//! A client of the cluster's API.

use anyhow::Context as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// One request. The server is a program of this machine.
const LIMIT: Duration = Duration::from_secs(10);

/// The client.
#[derive(Clone)]
pub(super) struct Client(kube::Client);

impl Client {
    /// With this kubeconfig.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn new(kubeconfig: &Path) -> anyhow::Result<Self> {
        let config = kube::config::Kubeconfig::read_from(kubeconfig).context("no kubeconfig")?;
        let mut config =
            kube::Config::from_custom_kubeconfig(config, &Default::default()).await.context("no kubeconfig")?;
        config.connect_timeout = Some(LIMIT);
        config.read_timeout = Some(LIMIT);
        Ok(Self(kube::Client::try_from(config).context("no client")?))
    }

    fn api(&self, plural: &str) -> Api<DynamicObject> {
        let (group, version, kind) = match plural {
            "pgreplicasets" => ("pgconvoy.dev", "v1alpha1", "PgReplicaSet"),
            "pgarchives" => ("pgconvoy.dev", "v1alpha1", "PgArchive"),
            "pgsnapshots" => ("pgconvoy.dev", "v1alpha1", "PgSnapshot"),
            "secrets" => ("", "v1", "Secret"),
            _ => ("", "v1", "Pod"),
        };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let (group, version, kind) = (group.into(), version.into(), kind.into());
        let resource = ApiResource { group, version, api_version, kind, plural: plural.into() };
        Api::namespaced_with(self.0.clone(), "default", &resource)
    }

    /// One object of the namespace `default`.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) async fn get(&self, plural: &str, name: &str) -> anyhow::Result<Value> {
        let object = self.api(plural).get(name).await.with_context(|| format!("cannot get {plural} {name}"))?;
        Ok(serde_json::to_value(object)?)
    }

    /// Applies an object.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) async fn apply(&self, plural: &str, object: &Value) -> anyhow::Result<()> {
        let name = crate::api::text(object, "/metadata/name");
        let (api, parameters) = (self.api(plural), PatchParams::apply("quickstart"));
        api.patch(name, &parameters, &Patch::Apply(object)).await.with_context(|| format!("{name} was refused"))?;
        Ok(())
    }

    /// Changes a replica set.
    ///
    /// # Errors
    /// When that is refused.
    pub(super) async fn change(&self, name: &str, patch: &Value) -> anyhow::Result<()> {
        let changed = self.api("pgreplicasets").patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        changed.map(drop).with_context(|| format!("the change of {name} was refused"))
    }

    /// Deletes a pod.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) async fn delete_pod(&self, name: &str) -> anyhow::Result<()> {
        let deleted = self.api("pods").delete(name, &DeleteParams::default()).await;
        deleted.map(drop).with_context(|| format!("cannot delete the pod {name}"))
    }
}
