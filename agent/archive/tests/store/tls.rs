//! TLS: with the right authority, the wrong one, and none.

use crate::{contract, embedded::config};
use bytes::Bytes;
use pgconvoy_archive::store::{Config, Put, Reason, S3, Store};
use pgconvoy_e2e_s3::{Options, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::sync::Arc;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn server_config(ca: &CertifiedIssuer<'static, KeyPair>) -> rustls::ServerConfig {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_trusted_when_it_is_given() {
    let (ca, stranger) = (authority(), authority());
    let tls = Some(Arc::new(server_config(&ca)));
    let server = Server::start(Options { tls, ..Options::default() }).await.unwrap();
    let with = |ca: Option<String>| Config { ca: ca.map(String::into_bytes), ..config(&server) };

    let store = S3::new(with(Some(ca.pem()))).await.unwrap();
    // Bodies are not signed here; their checksum is what is compared.
    assert_eq!(store.put_new("k", contract::large(1)).await.unwrap(), Put::Stored);
    assert_eq!(store.put_new("k", Bytes::new()).await.unwrap(), Put::Exists);

    for ca in [Some(stranger.pem()), None] {
        let store = S3::new(with(ca)).await.unwrap();
        let error = store.put_new("l", Bytes::new()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Tls, "{error}");
        assert!(error.to_string().contains("the authority that issued it"), "{error}");
    }
}
