//! The objects of replica sets, as the API server has them now.

use crate::access::Access;
use crate::problem::Problem;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pgconvoy_crds::names::LABEL_SET;
use pgconvoy_crds::{PgReplicaSet, PgTerm};
use std::collections::BTreeMap;

/// One set with what belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    pub(crate) set: PgReplicaSet,
    /// Absent until the operator has made it.
    pub(crate) term: Option<PgTerm>,
    pub(crate) pods: Vec<Pod>,
}

/// The set of this name.
pub(crate) async fn one(access: &Access, set: &str) -> Result<Objects, Problem> {
    let (client, namespace) = (&access.client, &access.namespace);
    let sets: Api<PgReplicaSet> = Api::namespaced(client.clone(), namespace);
    let terms: Api<PgTerm> = Api::namespaced(client.clone(), namespace);
    let what = format!("PgReplicaSet {set} in namespace {namespace}");
    let Some(found) = access.ask(&what, sets.get_opt(set)).await? else {
        // Only to be helpful: who may not list is told the name that was wrong all the same.
        let there = access.ask("PgReplicaSets", sets.list(&ListParams::default().limit(20))).await;
        let there = there.map(|l| l.items.iter().map(ResourceExt::name_any).collect()).unwrap_or_default();
        return Err(Problem::NoSet { set: set.to_owned(), namespace: namespace.clone(), there });
    };
    let term = access.ask(&format!("PgTerm {set}"), terms.get_opt(set)).await?;
    Ok(Objects { set: found, term, pods: pods(access, set).await? })
}

/// The pods of a set.
pub(crate) async fn pods(access: &Access, set: &str) -> Result<Vec<Pod>, Problem> {
    let pods: Api<Pod> = Api::namespaced(access.client.clone(), &access.namespace);
    let params = ListParams::default().labels(&format!("{LABEL_SET}={set}"));
    Ok(access.ask(&format!("pods of {set}"), pods.list(&params)).await?.items)
}

/// Every set of the namespace, or of all of them; by namespace and name.
pub(crate) async fn all(access: &Access, everywhere: bool) -> Result<Vec<Objects>, Problem> {
    let client = || access.client.clone();
    let (sets, terms, pods): (Api<PgReplicaSet>, Api<PgTerm>, Api<Pod>) = if everywhere {
        (Api::all(client()), Api::all(client()), Api::all(client()))
    } else {
        let namespace = &access.namespace;
        (
            Api::namespaced(client(), namespace),
            Api::namespaced(client(), namespace),
            Api::namespaced(client(), namespace),
        )
    };
    let sets = access.ask("PgReplicaSets", sets.list(&ListParams::default())).await?;
    let terms = access.ask("PgTerms", terms.list(&ListParams::default())).await?;
    let pods = access.ask("pods of replica sets", pods.list(&ListParams::default().labels(LABEL_SET))).await?;

    let mut found: BTreeMap<(String, String), Objects> = sets
        .into_iter()
        .map(|set| ((namespace(&set), set.name_any()), Objects { set, term: None, pods: vec![] }))
        .collect();
    for term in terms {
        if let Some(objects) = found.get_mut(&(namespace(&term), term.name_any())) {
            objects.term = Some(term);
        }
    }
    for pod in pods {
        let set = pod.labels().get(LABEL_SET).cloned().unwrap_or_default();
        if let Some(objects) = found.get_mut(&(namespace(&pod), set)) {
            objects.pods.push(pod);
        }
    }
    Ok(found.into_values().collect())
}

fn namespace(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_default()
}
