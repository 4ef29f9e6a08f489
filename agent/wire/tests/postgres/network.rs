//! A way to the server that does what a test wants: cuts, stands still, or changes bytes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What happens to the server's bytes.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The connection is closed after so many bytes.
    CutAfter(usize),
    /// Nothing comes after so many bytes, and the connection stays open.
    StandStillAfter(usize),
    /// The first byte behind the first occurrence of this text is changed.
    Flip(Vec<u8>),
}

pub(crate) struct Network {
    pub(crate) address: SocketAddr,
    /// Whether the fault has happened.
    pub(crate) happened: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Network {
    pub(crate) async fn to(server: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let happened = Arc::new(AtomicBool::new(false));
        let signal = happened.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(carry(client, server, fault.clone(), signal.clone()));
            }
        });
        Self { address, happened, task }
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, fault: Fault, happened: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upwards = tokio::spawn(async move { drop(tokio::io::copy(&mut from_client, &mut to_server).await) });
    let (mut carried, mut before) = (0, Vec::new());
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
        let piece = &mut buffer[..n];
        match &fault {
            Fault::CutAfter(limit) if carried + n > *limit => {
                happened.store(true, Ordering::SeqCst);
                break;
            }
            Fault::StandStillAfter(limit) if carried + n > *limit => {
                happened.store(true, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
            Fault::Flip(text) if !happened.load(Ordering::SeqCst) => {
                // The text may lie across the border of two pieces.
                let old = before.len();
                before.extend_from_slice(piece);
                let at = before.windows(text.len()).position(|w| w == text).map(|i| i + text.len());
                if let Some(at) = at.filter(|at| (old..before.len()).contains(at)) {
                    piece[at - old] ^= 1;
                    happened.store(true, Ordering::SeqCst);
                }
                before.drain(..before.len().saturating_sub(text.len()));
            }
            _ => {}
        }
        carried += n;
        if to_client.write_all(piece).await.is_err() {
            break;
        }
    }
    upwards.abort();
}
