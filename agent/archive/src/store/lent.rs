//! Keys that are lent for a while: by the SDK's own providers, which read what the pod was given. They are renewed before they expire.

use super::{client::http_client, credentials::Lender};
use aws_config::{
    ecs::EcsCredentialsProvider,
    imds::credentials::ImdsCredentialsProvider,
    provider_config::ProviderConfig,
    web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider},
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::{IdentityCache, Region, SharedIdentityCache, timeout::TimeoutConfig};
use std::time::Duration;

/// So long before they expire, or up to half as much, keys are renewed. Too short: a clock that is off makes them expire first. Too
/// long: an instance's role has no newer ones yet, which come five minutes before.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// Whoever lends the keys.
///
/// # Errors
/// A sentence: what the pod lacks.
pub(super) async fn provider(lender: &Lender, region: &str) -> Result<SharedCredentialsProvider, String> {
    let limits = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(10))
        .operation_timeout(Duration::from_secs(30))
        .build();
    let config = ProviderConfig::without_region()
        .with_region(Some(Region::new(region.to_owned())))
        .with_timeout_config(limits)
        // Not with the store's own authority: who lends is somebody else.
        .with_http_client(http_client(None)?);
    Ok(match lender {
        Lender::WebIdentity(asked) => {
            let token = &asked.token_file;
            if !tokio::fs::try_exists(token).await.unwrap_or(false) {
                return Err(format!(
                    "the pod has no service account token at {}; a pod that is made anew has it",
                    token.display()
                ));
            }
            let token = StaticConfiguration {
                web_identity_token_file: token.clone(),
                role_arn: asked.role_arn.clone(),
                session_name: "pgconvoy".to_owned(),
            };
            let builder = WebIdentityTokenCredentialsProvider::builder().configure(&config);
            SharedCredentialsProvider::new(builder.static_configuration(token).build())
        }
        Lender::PodIdentity { .. } => {
            SharedCredentialsProvider::new(EcsCredentialsProvider::builder().configure(&config).build())
        }
        Lender::InstanceRole => {
            SharedCredentialsProvider::new(ImdsCredentialsProvider::builder().configure(&config).build())
        }
    })
}

/// Keeps them until shortly before they expire.
pub(super) fn cache() -> SharedIdentityCache {
    IdentityCache::lazy().buffer_time(RENEW_BEFORE).build()
}
