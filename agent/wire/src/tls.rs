//! TLS: mutual, with the server's name checked.

use crate::error::Error;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::sync::Arc;

/// A TLS configuration that trusts the authorities in `ca` and nobody else, checks the server's name, and shows our
/// certificate chain in `certificate` with its `key`. All three are PEM.
///
/// # Errors
/// [`Error::TlsMaterial`] says which of the three is empty, no PEM, or does not fit.
pub fn tls_config(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<ClientConfig, Error> {
    let bad = |what: &str| {
        let what = what.to_owned();
        move |e: &dyn std::fmt::Display| Error::TlsMaterial(format!("{what}: {e}"))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca).map_err(|e| bad("the authorities' certificates are no PEM")(&e))? {
        roots.add(authority).map_err(|e| bad("an authority's certificate is not usable")(&e))?;
    }
    if roots.is_empty() {
        return Err(Error::TlsMaterial("there is no authority's certificate, so no server could be trusted".into()));
    }
    let chain = certificates(certificate).map_err(|e| bad("our certificate is no PEM")(&e))?;
    if chain.is_empty() {
        return Err(Error::TlsMaterial("our certificate is missing".into()));
    }
    // The parser's own message is left out: it may quote the key.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| Error::TlsMaterial("our private key is missing or no PEM".into()))?;
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("no protocol version")(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| bad("our certificate and its key are not usable together")(&e))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unusable_part_is_named() {
        let one = rcgen::generate_simple_self_signed(["a-1".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["a-1".to_owned()]).unwrap();
        let (pem, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let (pem, key) = (pem.as_bytes(), key.as_bytes());
        assert!(tls_config(pem, pem, key).is_ok());
        let foreign = other.signing_key.serialize_pem();
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (ca, certificate, key, part) in [
            (&b""[..], pem, key, "no authority's certificate"),
            (broken, pem, key, "an authority's certificate"),
            (pem, b"", key, "our certificate is missing"),
            (pem, pem, b"", "private key"),
            (pem, pem, foreign.as_bytes(), "not usable together"),
        ] {
            let said = tls_config(ca, certificate, key).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
