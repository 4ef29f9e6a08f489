//! What this agent was started with, and what the spec says of PostgreSQL: shared by all modules.

use pgconvoy_terms::MemberName;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// What the agent was started with (environment of the pod; [`pgconvoy_crds::pod::env`]). Never changes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// This member; its set's name is in it.
    pub member: MemberName,
    /// Namespace of the set.
    pub namespace: String,
    /// UID of the PgReplicaSet.
    pub set_uid: String,
    /// The system identifier of kept data that this set goes on with, if it does.
    pub adopt: Option<pgconvoy_terms::SystemId>,
    /// UID of this pod.
    pub pod_uid: String,
    /// This pod's address.
    pub pod_ip: IpAddr,
    /// The node it runs on.
    pub node: String,
    /// Where things lie.
    pub paths: Paths,
    /// PostgreSQL's port.
    pub postgres_port: u16,
    /// Port for the other agents.
    pub peers_port: u16,
    /// Port for probes and metrics.
    pub http_port: u16,
}

/// Where things lie. In a pod these are the constants of [`pgconvoy_crds::pod`]; tests use directories of their own.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The data volume.
    pub volume: PathBuf,
    /// PostgreSQL's data directory.
    pub pgdata: PathBuf,
    /// The member's durable state.
    pub state: PathBuf,
    /// Sockets.
    pub run: PathBuf,
    /// Keys and certificates.
    pub tls: PathBuf,
    /// The application Secret.
    pub app: PathBuf,
    /// What leads to the archive.
    pub archive: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        use pgconvoy_crds::pod;
        Self {
            volume: pod::VOLUME.into(),
            pgdata: pod::PGDATA.into(),
            state: pod::STATE.into(),
            run: pod::RUN.into(),
            tls: pod::TLS.into(),
            app: pod::APP.into(),
            archive: pod::ARCHIVE.into(),
        }
    }
}

/// What the spec says of PostgreSQL, watched by the agent; a change is applied by reload where that is enough.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostgresSettings {
    /// The user's parameters, as text.
    pub parameters: BTreeMap<String, String>,
    /// The user's hba lines; empty = the default.
    pub hba: Vec<String>,
    /// How the first database is made.
    pub initdb: pgconvoy_crds::InitDb,
    /// The archive that the first data comes from instead, if it does.
    pub restore: Option<pgconvoy_crds::FromArchive>,
    /// Members that may be cloned from or asked, roster included.
    pub roster: Vec<MemberName>,
    /// Whether WAL is to be archived.
    pub archive: bool,
    /// Generation of the spec.
    pub generation: i64,
    /// Memory limit of the `postgres` container in bytes, for sane defaults; `None` = unknown.
    pub memory_limit: Option<u64>,
}

/// Where the members' pods are; the last known address stays when the API is away.
pub type Addresses = BTreeMap<MemberName, IpAddr>;

/// What PostgreSQL's side reports for the status entry besides [`pgconvoy_ha::Local`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PostgresReport {
    /// Version, like `17.6`.
    pub version: Option<String>,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<String>,
    /// Why the configuration of the spec is refused; the last good one stays in force.
    pub configuration_error: Option<String>,
    /// What a person can mend, and what keeps this member from going on.
    pub obstacle: Option<Obstacle>,
    /// How this member comes to the set's data, while it does.
    pub catch_up: Option<CatchUp>,
}

/// How a member comes to the set's data, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatchUp {
    /// By which way, and why: a sentence without its end.
    pub how: String,
    /// Tenths that are done.
    pub tenths: u64,
    /// Bytes in all; 0: not known yet.
    pub total: u64,
    /// When everything will have come, at the pace until the last tenth.
    pub until: Option<String>,
}

/// Something that keeps a member from going on until a person has seen to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// One of [`pgconvoy_crds::conditions::reasons`].
    pub reason: &'static str,
    /// What it is and what to do. It changes only when that does.
    pub sentence: String,
}
