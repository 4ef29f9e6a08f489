//! The bytes' way: a TCP connection, TLS over it, or a Unix socket.

use crate::{
    config::{Config, Target},
    error::Error,
};
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use std::io;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

/// Anything that bytes go in and out of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, and does the TLS handshake if the configuration wants one. No deadline of its own.
///
/// Keepalives of TCP are left as they are: every wait of this crate has a deadline of its own, which notices a dead
/// peer earlier than TCP would.
pub(crate) async fn open(config: &Config) -> Result<Box<dyn Stream>, Error> {
    let peer = config.target.to_string();
    let unreachable = |source| Error::Connect { peer: peer.clone(), source };
    match &config.target {
        Target::Unix { dir, port } => {
            if config.tls.is_some() {
                return Err(Error::Invalid("PostgreSQL speaks no TLS over a Unix socket".into()));
            }
            let path = dir.join(format!(".s.PGSQL.{port}"));
            Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?))
        }
        Target::Tcp { addr, server_name } => {
            let stream = TcpStream::connect(addr).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            match &config.tls {
                None => Ok(Box::new(stream)),
                Some(tls) => handshake(stream, server_name, TlsConnector::from(tls.clone()), peer.clone()).await,
            }
        }
    }
}

async fn handshake(
    mut stream: TcpStream,
    server_name: &str,
    connector: TlsConnector,
    peer: String,
) -> Result<Box<dyn Stream>, Error> {
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|_| Error::Invalid(format!("{server_name:?} can be no name in a certificate")))?;
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    // One byte is read and no more: whatever a man in the middle might have put behind it goes into the handshake and
    // fails there, instead of being taken for an answer of the server.
    let answer = async {
        stream.write_all(&request).await?;
        stream.read_u8().await
    };
    match answer.await {
        Ok(b'S') => {}
        Ok(b'N') => return Err(Error::TlsUnavailable { peer }),
        Ok(other) => {
            let what = format!("the answer to SSLRequest is {:?}", char::from(other));
            return Err(Error::Protocol { peer, doing: "asking for TLS", what });
        }
        Err(source) => return Err(Error::Cut { peer, doing: "asking for TLS", source }),
    }
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(source) => Err(Error::Tls { peer, source }),
    }
}

/// Whether an I/O error comes from TLS: the server may refuse our certificate only after the handshake.
pub(crate) fn is_tls(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}
