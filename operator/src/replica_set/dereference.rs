//! Fetches what the planner needs and the watches do not hold: the key of the authority, when something must be signed.

use super::Context;
use super::apply::{ApplyError, call};
use super::certificates::{AUTHORITY_KEY, Needs};
use super::validate::Validated;
use k8s_openapi::api::core::v1::Secret;
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
