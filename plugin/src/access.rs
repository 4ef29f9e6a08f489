//! The way to the API server: kubeconfig, deadlines, and errors as sentences.

use crate::cli::Reach;
use crate::problem::Problem;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How long the API server may take for one answer. Shorter: a busy server is called dead. Longer: a person waits for
/// nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client, and what it was made from.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) client: Client,
    /// The namespace that is meant.
    pub(crate) namespace: String,
    server: String,
    /// Arguments that make kubectl mean the same cluster and namespace.
    flags: Vec<OsString>,
}

impl Access {
    /// Reads the kubeconfig as kubectl does.
    pub(crate) async fn new(reach: &Reach) -> Result<Self, Problem> {
        let bad = |why: &dyn std::error::Error| Problem::Kubeconfig(why.to_string());
        let mut config = match kubeconfig(reach).map_err(|e| bad(&e))? {
            Some(kubeconfig) => {
                let options = KubeConfigOptions { context: reach.context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| bad(&e))?
            }
            // In a pod, as kubectl does there.
            None if reach.context.is_none() => Config::incluster().map_err(|_| Problem::NoKubeconfig)?,
            None => return Err(Problem::NoKubeconfig),
        };
        config.connect_timeout = Some(PATIENCE / 2);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = reach.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| bad(&e))?;
        Ok(Self { client, server, flags: flags(reach, &namespace), namespace })
    }

    /// Waits for the answer to a request for `what`.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(PATIENCE, request).await {
            Ok(answer) => answer.map_err(|e| Problem::of_request(&e, what, &self.server)),
            Err(_) => Err(Problem::NoAnswer { server: self.server.clone(), what: what.to_owned(), patience: PATIENCE }),
        }
    }

    /// Arguments that make kubectl mean the same cluster and namespace.
    pub(crate) fn kubectl_flags(&self) -> &[OsString] {
        &self.flags
    }
}

fn kubeconfig(reach: &Reach) -> Result<Option<Kubeconfig>, kube::config::KubeconfigError> {
    if let Some(file) = &reach.kubeconfig {
        return Kubeconfig::read_from(file).map(Some);
    }
    let files: Vec<PathBuf> = match std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) {
        Some(list) => std::env::split_paths(&list).collect(),
        None => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    };
    // Like kubectl: files that are not there do not count, the first that names something wins.
    let mut merged: Option<Kubeconfig> = None;
    for file in files.iter().filter(|f| f.is_file()) {
        let next = Kubeconfig::read_from(file)?;
        merged = Some(match merged {
            Some(earlier) => earlier.merge(next)?,
            None => next,
        });
    }
    Ok(merged)
}

fn flags(reach: &Reach, namespace: &str) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec![];
    if let Some(file) = &reach.kubeconfig {
        flags.extend(["--kubeconfig".into(), file.into()]);
    }
    if let Some(context) = &reach.context {
        flags.extend(["--context".into(), context.into()]);
    }
    flags.extend(["--namespace".into(), namespace.into()]);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_is_told_what_this_program_was_told() {
        let reach = Reach { kubeconfig: Some("/k".into()), context: Some("prod".into()), namespace: None };
        assert_eq!(flags(&reach, "shop"), ["--kubeconfig", "/k", "--context", "prod", "--namespace", "shop"]);
        assert_eq!(flags(&Reach::default(), "shop"), ["--namespace", "shop"]);
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_none_is_a_sentence() {
        let reach = Reach { kubeconfig: Some("/nowhere/at/all".into()), ..Reach::default() };
        let said = Access::new(&reach).await.err().map(|e| e.to_string()).unwrap();
        assert!(said.starts_with("the kubeconfig cannot be used: ") && said.contains("/nowhere/at/all"), "{said}");
    }
}
