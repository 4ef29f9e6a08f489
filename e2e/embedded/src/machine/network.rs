//! The network inside: a bridge that joins the pods, and the addresses of Services.

use anyhow::Context as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The node's address in the pods' network.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// Its hardware address. A bridge without one of its own takes that of one of its ports, another when pods come and go; then every
/// pod keeps sending to the last one for half a minute.
const HARDWARE: &str = "02:00:00:00:00:01";
/// The API server's Service.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Its port there.
pub const API_PORT: u16 = 443;

/// Runs commands of `ip`, one a line.
///
/// # Errors
/// When there is no such program, or a command fails.
pub fn ip(lines: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run the program ip; it comes with the package iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("cannot write to ip")?;
    }
    let done = child.wait_with_output().context("cannot wait for ip")?;
    anyhow::ensure!(done.status.success(), "ip failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// Makes the node's part.
///
/// # Errors
/// When the kernel has no bridges, or there is no program `ip`.
pub fn node() -> anyhow::Result<()> {
    ip(&format!(
        "link set lo up\nlink add pods address {HARDWARE} type bridge\naddr add {NODE}/16 dev pods\nlink set pods up\n\
         route add local 10.96.0.0/16 dev lo\n"
    ))
}

/// The address of the pod with this number.
pub fn pod_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(NODE) + 1 + number)
}

/// Joins the network namespace of process `pid` to the node's.
///
/// # Errors
/// When `ip` fails.
pub fn join(number: u32, pid: u32) -> anyhow::Result<()> {
    ip(&format!("link add p{number} type veth peer name eth0 netns {pid}\nlink set p{number} master pods up\n"))
}

/// What the pod does on its side.
///
/// # Errors
/// When `ip` fails.
pub fn pod(address: Ipv4Addr) -> anyhow::Result<()> {
    ip(&format!("link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\nroute add default via {NODE}\n"))
}
