//! What a database pod looks like from inside: containers, paths, ports, environment. The operator builds it, the agent
//! and the supervisor live in it. `docs/architecture.md` says why.

/// Init container that copies the supervisor into the shared directory and ends.
pub const CONTAINER_PLACE: &str = "place";
/// The agent: a native sidecar (init container with `restartPolicy: Always`).
pub const CONTAINER_AGENT: &str = "agent";
/// PostgreSQL under the supervisor.
pub const CONTAINER_POSTGRES: &str = "postgres";

/// Mount of the data volume, in `agent` and `postgres`.
pub const VOLUME: &str = "/var/lib/pgconvoy";
/// PostgreSQL's data directory.
pub const PGDATA: &str = "/var/lib/pgconvoy/pgdata";
/// The member's own durable state.
pub const STATE: &str = "/var/lib/pgconvoy/state";
/// Shared directory (emptyDir) of `place`, `agent` and `postgres`: sockets and the supervisor's binary.
pub const RUN: &str = "/run/pgconvoy";
/// The supervisor as `place` leaves it.
pub const SUPERVISOR: &str = "/run/pgconvoy/supervisor";
/// The supervisor as it lies in the agent's image.
pub const SUPERVISOR_IN_IMAGE: &str = "/usr/lib/pgconvoy/supervisor";
/// The supervisor's socket.
pub const SUPERVISOR_SOCKET: &str = "/run/pgconvoy/supervisor.sock";
/// `unix_socket_directories` of PostgreSQL.
pub const PG_SOCKET_DIR: &str = "/run/pgconvoy";
/// Mount of the member's TLS Secret, in `agent` and `postgres`.
pub const TLS: &str = "/etc/pgconvoy/tls";
/// Mount of the application Secret, in `agent` only.
pub const APP: &str = "/etc/pgconvoy/app";
/// Mount of the archive Secret, in `agent` only. Empty while the set has no archive.
pub const ARCHIVE: &str = "/etc/pgconvoy/archive";

/// PostgreSQL's port.
pub const PORT_POSTGRES: u16 = 5432;
/// Agent: mutual TLS between agents.
pub const PORT_PEERS: u16 = 8443;
/// Agent: probes and metrics, plain HTTP.
pub const PORT_HTTP: u16 = 8080;

/// Environment of the agent.
pub mod env {
    /// The replica set's name.
    pub const SET: &str = "PGCONVOY_SET";
    /// Its namespace.
    pub const NAMESPACE: &str = "PGCONVOY_NAMESPACE";
    /// This member's name.
    pub const MEMBER: &str = "PGCONVOY_MEMBER";
    /// This pod's UID.
    pub const POD_UID: &str = "PGCONVOY_POD_UID";
    /// This pod's address.
    pub const POD_IP: &str = "PGCONVOY_POD_IP";
    /// The node it runs on.
    pub const NODE: &str = "PGCONVOY_NODE";
    /// UID of the PgReplicaSet: data of another set is never taken for this one's.
    pub const SET_UID: &str = "PGCONVOY_SET_UID";
    /// System identifier of the data that a set before this one left behind, if this one goes on with it.
    pub const ADOPT: &str = "PGCONVOY_ADOPT";
}

/// Files in the member's TLS Secret.
pub mod tls {
    /// The set's authority, PEM.
    pub const CA: &str = "ca.crt";
    /// PostgreSQL's server certificate; names: the member, and the set's Services.
    pub const SERVER_CERT: &str = "server.crt";
    /// Its key.
    pub const SERVER_KEY: &str = "server.key";
    /// Client certificate for replication, CN = [`super::REPLICATION_ROLE`].
    pub const REPLICATION_CERT: &str = "replication.crt";
    /// Its key.
    pub const REPLICATION_KEY: &str = "replication.key";
    /// The agent's certificate (server and client), CN = the member's name.
    pub const AGENT_CERT: &str = "agent.crt";
    /// Its key.
    pub const AGENT_KEY: &str = "agent.key";
}

/// Files in the application Secret that the agent reads.
pub mod app {
    /// Role that owns the application database.
    pub const USERNAME: &str = "username";
    /// Its password.
    pub const PASSWORD: &str = "password";
    /// The application database.
    pub const DBNAME: &str = "dbname";
}

/// Files in the archive Secret, and the token beside them.
pub mod archive {
    /// [`crate::ArchiveAccess`], as JSON.
    pub const ACCESS: &str = "access.json";
    /// The access key's id.
    pub const ACCESS_KEY_ID: &str = "access-key-id";
    /// The access key's secret.
    pub const SECRET_ACCESS_KEY: &str = "secret-access-key";
    /// The session token, if there is one.
    pub const SESSION_TOKEN: &str = "session-token";
    /// The token of the set's service account for whoever lends keys. It is not in the Secret, but mounted beside it.
    pub const WEB_IDENTITY_TOKEN: &str = "web-identity-token";
    /// Who accepts that token.
    pub const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";
    /// Authorities to trust, if the system's are not to be.
    pub const CA: &str = "ca.crt";
    /// [`crate::RetentionAsked`], as JSON, if anything shall ever be removed.
    pub const RETENTION: &str = "retention.json";
    /// What the names of the same files begin with that lead to the archive from which the set is made.
    pub const SOURCE: &str = "source-";
}

/// Superuser, reached over the Unix socket by the agent alone (peer).
pub const SUPERUSER: &str = "postgres";
/// Role that followers stream and clone with (certificate).
pub const REPLICATION_ROLE: &str = "pgconvoy_replication";
