//! Connections to another member's PostgreSQL, by our replication certificate and its name.

use super::{Error, disk, server::Postgres};
use pgconvoy_crds::pod;
use pgconvoy_terms::MemberName;
use pgconvoy_wire as wire;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

impl Postgres {
    /// How to connect to `member`. The certificates are read each time: they are renewed under us.
    pub(crate) async fn replication(&self, member: &MemberName, address: IpAddr) -> Result<wire::Config, Error> {
        let tls = self.paths().tls.clone();
        let read = move || {
            let file = |name: &str| -> Result<Vec<u8>, Error> { Ok(disk::read(&tls.join(name))?.unwrap_or_default()) };
            Ok((file(pod::tls::CA)?, file(pod::tls::REPLICATION_CERT)?, file(pod::tls::REPLICATION_KEY)?))
        };
        let (ca, certificate, key) = self.disk.run("reading the certificates", super::server::FILES, read).await?;
        let target = wire::Target::Tcp {
            addr: SocketAddr::new(address, self.config.identity.postgres_port),
            server_name: member.to_string(),
        };
        let mut config = wire::Config::new(target, pod::REPLICATION_ROLE);
        config.application_name = format!("pgconvoy {}", self.config.identity.member);
        config.tls = Some(Arc::new(wire::tls_config(&ca, &certificate, &key)?));
        Ok(config)
    }
}
