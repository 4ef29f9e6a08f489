//! A machine within the machine: user, process, mount and network namespaces, made without being root.
//!
//! Three processes. *Outside* is the program that a person started: it shows what happens and forwards connections.
//! *Enter* makes the namespaces. *Inside* is the first process in them; API server, kubelet and everything that they start
//! are its children, and the kernel kills them all when it ends.

pub mod container;
mod enter;
pub mod forward;
pub mod janitor;
pub mod network;
pub mod outside;
pub mod rootfs;
pub mod sandbox;

pub use enter::enter;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the process inside is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Where everything lies that the cluster needs.
    pub directory: PathBuf,
    /// Port of the API server, on 127.0.0.1.
    pub api_port: u16,
    /// The operator's program; none: it is not started.
    pub operator: Option<PathBuf>,
    /// The agent's program.
    pub agent: PathBuf,
    /// The supervisor's program.
    pub supervisor: PathBuf,
    /// The directory of PostgreSQL's programs.
    pub postgres: PathBuf,
    /// Files to apply at the start, in this order.
    pub apply: Vec<PathBuf>,
    /// How many nodes to pretend.
    pub nodes: u32,
    /// Whom the object store lets in; none: there is no store.
    pub store: Option<Keys>,
    /// There is a PgArchive from the start that leads to it.
    #[serde(default)]
    pub lead_to_store: bool,
    /// Containers that end again and again are started again at once.
    #[serde(default)]
    pub impatient: bool,
}

/// Keys to the cluster's object store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keys {
    /// The access key's id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

impl Keys {
    /// New ones.
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), secret: crate::cluster::random_name() }
    }
}

/// The bucket of the object store, whose objects are files in `store/<bucket>/` of the cluster's directory.
pub const BUCKET: &str = "backups";
/// The object store's port, at the node's address.
pub const STORE_PORT: u16 = 9000;

/// What the process inside says, a line of JSON each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Word {
    /// Something for people.
    Say(String),
    /// The cluster is up.
    Ready,
    /// Connections to this address of the machine go to that one inside.
    Listen {
        /// Like `127.96.0.11:5432`.
        at: std::net::SocketAddr,
        /// Like `10.96.0.11:5432`.
        to: std::net::SocketAddr,
        /// What it is, for people.
        what: String,
    },
    /// It cannot go on.
    Failed(String),
}

/// The process inside is told by this variable of the environment where its settings are.
pub const SETTINGS: &str = "PGCONVOY_EMBEDDED_SETTINGS";
