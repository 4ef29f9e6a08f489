//! Whom to connect to, and as whom.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Where a PostgreSQL listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Over the network. With TLS the server's certificate must carry `server_name`, whatever the address is.
    Tcp {
        /// Address and port; nothing is looked up.
        addr: SocketAddr,
        /// The name that the certificate must carry: the member's name.
        server_name: String,
    },
    /// Over a Unix socket in this directory (`<dir>/.s.PGSQL.<port>`); never with TLS.
    Unix {
        /// The socket's directory.
        dir: PathBuf,
        /// The port, which is part of the socket's name.
        port: u16,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { addr, server_name } => write!(f, "{server_name} ({addr})"),
            Self::Unix { dir, port } => write!(f, "{}/.s.PGSQL.{port}", dir.display()),
        }
    }
}

/// What the connection can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Physical replication: replication commands only, no database.
    #[default]
    Physical,
    /// A walsender in a database: replication commands and SQL.
    Database,
}

/// A password. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes the password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where.
    pub target: Target,
    /// The role.
    pub user: String,
    /// The database; needed with [`Mode::Database`], left out otherwise.
    pub database: Option<String>,
    /// For SCRAM-SHA-256. Certificates and `peer` need none.
    pub password: Option<Password>,
    /// The name in `pg_stat_replication`, and what `synchronous_standby_names` looks at.
    pub application_name: String,
    /// TLS with our certificate ([`crate::tls_config`]). `None`: in clear text (a Unix socket, a test).
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Replication only, or SQL as well.
    pub mode: Mode,
    /// Further run-time parameters of the session (`("wal_sender_timeout", "5s")`).
    pub parameters: Vec<(String, String)>,
    /// For the whole of connecting: TCP, TLS, authentication. Too short: a busy server is taken for a dead one. Too
    /// long: whoever waits for this member waits that long for a dead one.
    pub connect_timeout: Duration,
    /// For one command that is no stream. Too short: refused work on a loaded server. Too long: as above.
    pub command_timeout: Duration,
}

impl Config {
    /// A physical replication connection of `user`: no TLS, no password, 5 s to connect, 30 s for a command.
    pub fn new(target: Target, user: impl Into<String>) -> Self {
        Self {
            target,
            user: user.into(),
            database: None,
            password: None,
            application_name: "pgconvoy".to_owned(),
            tls: None,
            mode: Mode::Physical,
            parameters: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed() {
        let mut c = Config::new(Target::Unix { dir: "/s".into(), port: 5432 }, "u");
        c.password = Some(Password::new("geheim"));
        assert!(!format!("{c:?}").contains("geheim"));
    }
}
