//! Connections from outside: the program that a person started takes them, and hands them in through a Unix socket, which
//! is in no network namespace.

use anyhow::Context as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The socket's name in the cluster's directory.
pub const SOCKET: &str = "in.sock";

/// Outside: takes connections at `at` for `to`; where it does so. A port that is taken is replaced by a free one of the
/// same address, unless it is `fixed`.
///
/// # Errors
/// When the address cannot be had.
pub async fn listen(at: SocketAddr, fixed: bool, to: SocketAddr, socket: PathBuf) -> anyhow::Result<SocketAddr> {
    let listener = match TcpListener::bind(at).await {
        Err(e) if e.kind() == ErrorKind::AddrInUse && !fixed => TcpListener::bind((at.ip(), 0)).await,
        done => done,
    };
    let listener = listener.with_context(|| format!("cannot listen at {at}"))?;
    let at = listener.local_addr().context("a socket without an address")?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move {
                let Ok(mut server) = UnixStream::connect(&socket).await else { return };
                let _ = client.set_nodelay(true);
                if server.write_all(format!("{to}\n").as_bytes()).await.is_ok() {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    Ok(at)
}

/// Inside: connects what comes through the socket.
///
/// # Errors
/// When the socket cannot be made.
pub fn let_in(directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(SOCKET);
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot make {}", path.display()))?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let mut line = String::new();
                if client.read_line(&mut line).await.is_err() {
                    return;
                }
                let Ok(to) = line.trim().parse::<SocketAddr>() else { return };
                if let Ok(mut server) = TcpStream::connect(to).await {
                    let _ = server.set_nodelay(true);
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    Ok(())
}
