//! The SDK's client, with everything that it would decide by itself decided.

use super::{
    config::{Config, Limits},
    credentials::{Credentials, Held},
    lent,
};
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        SharedHttpClient,
        retry::{RetryConfig, RetryPartition, TokenBucket},
        timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::tls;
use std::time::Duration;

/// A client for this configuration.
///
/// # Errors
/// A sentence: what cannot be used.
pub(super) async fn client(config: &Config) -> Result<Client, String> {
    let http = http_client(config.ca.as_deref())?;
    let mut builder = aws_sdk_s3::Config::builder()
        // Pinned: later versions may change retries, time-outs and checksums under us.
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(config.region.clone()))
        .http_client(http)
        .force_path_style(config.path_style)
        // We give a CRC32C with every body. What the SDK adds by itself are trailers, which many stores refuse.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .timeout_config(timeouts(&config.limits))
        .retry_config(retries(&config.limits))
        .retry_partition(budget());
    builder.set_endpoint_url(config.endpoint.clone());
    builder = match &config.credentials {
        // Looked at for each request: keys may be exchanged.
        Credentials::Keys(keys) => {
            builder.credentials_provider(Held(keys.clone())).identity_cache(IdentityCache::no_cache())
        }
        Credentials::Lent(lender) => {
            builder.credentials_provider(lent::provider(lender, &config.region).await?).identity_cache(lent::cache())
        }
    };
    Ok(Client::from_conf(builder.build()))
}

/// The HTTP client: rustls with aws-lc, and the given authorities or the system's.
pub(super) fn http_client(ca: Option<&[u8]>) -> Result<SharedHttpClient, String> {
    let trust = match ca {
        None => tls::TrustStore::default(),
        Some(pem) => {
            // The SDK panics over a certificate that it cannot read, so it gets none that it could not.
            check_pem(pem)?;
            tls::TrustStore::empty().with_pem_certificate(pem)
        }
    };
    let context = tls::TlsContext::builder().with_trust_store(trust).build().map_err(|e| e.to_string())?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(context)
        .pool_idle_timeout(Duration::from_secs(20))
        .build_https())
}

fn check_pem(pem: &[u8]) -> Result<(), String> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("the authority's certificate is no PEM: {e}"))?;
        roots.add(certificate).map_err(|e| format!("the authority's certificate cannot be used: {e}"))?;
    }
    if roots.is_empty() { Err("the authority's file holds no certificate".into()) } else { Ok(()) }
}

fn timeouts(limits: &Limits) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(limits.connect)
        .read_timeout(limits.attempt)
        .operation_attempt_timeout(limits.attempt)
        .operation_timeout(limits.call)
        .build()
}

fn retries(limits: &Limits) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(limits.attempts.max(1))
        .with_initial_backoff(limits.first_pause)
        .with_max_backoff(limits.max_pause)
}

/// Retries beyond those of each call's own limit: 100 at once, and then 10 a second. The SDK's own budget is one for all
/// clients of a process, and what a long outage takes from it comes back only by as many calls that succeed at once; until
/// then a store that says "slow down" once would be an error.
fn budget() -> RetryPartition {
    // A retry costs five tokens, after a time-out ten.
    RetryPartition::custom("pgconvoy")
        .token_bucket(TokenBucket::builder().capacity(500).refill_rate(50.0).build())
        .build()
}
