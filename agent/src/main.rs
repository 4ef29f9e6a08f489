//! `pgconvoy-agent`: the per-pod process.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use pgconvoy_agent::archive::Ask;
use pgconvoy_agent::settings::{Identity, Paths};
use pgconvoy_crds::pod::{self, env};
use std::net::IpAddr;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about = "Keeps one PostgreSQL a member of its replica set")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Puts the supervisor where PostgreSQL's container finds it, and ends.
    Place,
    /// Runs until the pod stops.
    Run,
    /// What lies in the set's archive.
    #[command(subcommand)]
    Archive(Ask),
}

fn main() -> Result<()> {
    // One provider for every TLS connection of the process, before the first is made.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = Arguments::parse().command;
    let level = if matches!(command, Command::Archive(_)) { "error" } else { "info" };
    let filter = EnvFilter::try_from_env("PGCONVOY_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
    match command {
        Command::Place => Ok(pgconvoy_agent::place::place()?),
        Command::Archive(ask) => inspect(ask),
        Command::Run => {
            let identity = identity()?;
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("no threads can be made")?
                .block_on(Box::pin(pgconvoy_agent::run::run(identity)))
        }
    }
}

fn inspect(ask: Ask) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no threads can be made")?;
    // Errors are for people here, on one line.
    let code = match runtime.block_on(pgconvoy_agent::archive::answer(ask)) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("error: {error:#}");
            2
        }
    };
    std::process::exit(code)
}

fn identity() -> Result<Identity> {
    let text = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set in the environment"));
    let member = text(env::MEMBER)?;
    let ip = text(env::POD_IP)?;
    let adopt = std::env::var(env::ADOPT).ok().map(|id| id.parse()).transpose();
    Ok(Identity {
        adopt: adopt.with_context(|| format!("{} is no system identifier", env::ADOPT))?,
        member: member.parse().with_context(|| format!("{} is no member's name", env::MEMBER))?,
        namespace: text(env::NAMESPACE)?,
        set_uid: text(env::SET_UID)?,
        pod_uid: text(env::POD_UID)?,
        pod_ip: ip.parse::<IpAddr>().with_context(|| format!("{} is no address: {ip:?}", env::POD_IP))?,
        node: text(env::NODE)?,
        paths: Paths::default(),
        postgres_port: pod::PORT_POSTGRES,
        peers_port: pod::PORT_PEERS,
        http_port: pod::PORT_HTTP,
    })
}
