//! What a cluster's API server is asked to write.

use crate::Cluster;
use anyhow::{Context, ensure};
use std::collections::BTreeMap;

/// What operators and agents write, if they write: not nodes' own things, not Leases.
const OURS: [&str; 13] = [
    "configmaps",
    "endpoints",
    "endpointslices",
    "events",
    "persistentvolumeclaims",
    "pgreplicasets",
    "pgterms",
    "poddisruptionbudgets",
    "pods",
    "rolebindings",
    "roles",
    "secrets",
    "services",
];

impl Cluster {
    /// Writes that the API server has served so far of what operators and agents write besides Leases, by verb and
    /// resource.
    ///
    /// # Errors
    /// When its metrics cannot be read or are not understood.
    pub fn writes(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let metrics = self.kubectl(&["get", "--raw", "/metrics"], "")?;
        let mut sums = BTreeMap::new();
        for line in metrics.lines().filter_map(|l| l.strip_prefix("apiserver_request_total{")) {
            let (labels, value) = line.rsplit_once("} ").with_context(|| format!("not understood: {line}"))?;
            let label = |name: &str| {
                let mut labels = labels.split(',').filter_map(|l| l.split_once('='));
                labels.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"')).unwrap_or_default()
            };
            let (verb, resource) = (label("verb"), label("resource"));
            // The status of ours is ours; that of a pod is the kubelet's.
            let ours = OURS.contains(&resource) && (label("subresource").is_empty() || resource.starts_with("pg"));
            if ours && ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb) {
                let value: f64 = value.parse().with_context(|| format!("not understood: {line}"))?;
                *sums.entry(format!("{verb} {resource}")).or_default() += value;
            }
        }
        ensure!(!sums.is_empty(), "the API server's metrics tell of no write at all");
        Ok(sums)
    }

    /// How often Leases of this namespace are written in a minute.
    ///
    /// # Errors
    /// When there is none, or they cannot be watched.
    pub fn lease_writes_in_a_minute(&self, namespace: &str) -> anyhow::Result<usize> {
        let watch = ["-n", namespace, "get", "leases", "--watch", "--no-headers", "--request-timeout=60s"];
        let seen = self.try_kubectl(&watch, "")?;
        let listed = self.get(&["-n", namespace, "leases"])?;
        let there = listed["items"].as_array().map_or(0, Vec::len);
        ensure!(there > 0, "no Lease in {namespace}: {}", seen.stderr);
        // Those that are there come first.
        Ok(seen.stdout.lines().count().saturating_sub(there))
    }
}
