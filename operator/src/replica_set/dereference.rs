//! Fetches what the planner needs and the watches do not hold: the key of the authority, when something must be signed;
//! whether a storage class is there, when a volume does not come.

use super::Context;
use super::apply::{ApplyError, call};
use super::certificates::{AUTHORITY_KEY, Needs};
use super::observed::Observed;
use super::validate::Validated;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use pgconvoy_crds::{names, pod};

/// The authority's certificate and key, if they are needed and there.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn authority(
    context: &Context,
    set: &Validated,
    needs: &Needs,
) -> Result<Option<(String, String)>, ApplyError> {
    if needs.authority || needs.members.is_empty() {
        return Ok(None);
    }
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &set.namespace);
    let name = names::ca(&set.name);
    let Some(secret) = call("read", "Secret", &name, api.get_opt(&name)).await? else {
        return Err(ApplyError::Stale { kind: "Secret", name });
    };
    let mut data = secret.data.unwrap_or_default();
    let mut take = |key: &str| data.remove(key).and_then(|v| String::from_utf8(v.0).ok());
    Ok(take(pod::tls::CA).zip(take(AUTHORITY_KEY)))
}

/// The storage class that a member waits for, if it is not there. An operator that may not ask (it watches one namespace
/// only) does not know.
pub async fn missing_class(context: &Context, observed: &Observed) -> Option<String> {
    let class = observed.awaited_class()?;
    let api: Api<StorageClass> = Api::all(context.client.clone());
    match call("read", "StorageClass", class, api.get_metadata_opt(class)).await {
        Ok(there) => there.is_none().then(|| class.to_owned()),
        Err(error) => {
            tracing::debug!(%error, "whether the storage class is there is not known");
            None
        }
    }
}
