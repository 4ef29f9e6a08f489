//! The startup message, and proving who we are.

use crate::{
    client::Session,
    config::{Config, Mode, Password},
    error::Error,
    frames::{Frame, Frames},
};
use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    message::{backend::Message, frontend},
};

const DOING: &str = "authenticating";

/// Sends the startup message and goes through authentication up to the first ReadyForQuery. No deadline of its own.
pub(crate) async fn log_in(frames: &mut Frames, config: &Config) -> Result<Session, Error> {
    send_startup(frames, config)?;
    frames.flush(DOING).await?;
    authenticate(frames, config.password.as_ref()).await?;
    let mut session = Session::default();
    loop {
        match frames.receive(DOING).await? {
            Frame::Other(Message::ParameterStatus(p)) => {
                if p.name().is_ok_and(|n| n == "server_version") {
                    session.version = p.value().unwrap_or_default().to_owned();
                }
            }
            Frame::Other(Message::BackendKeyData(key)) => session.process_id = key.process_id(),
            Frame::Other(Message::ReadyForQuery(_)) => return Ok(session),
            other => return Err(frames.unexpected(DOING, &other)),
        }
    }
}

fn send_startup(frames: &mut Frames, config: &Config) -> Result<(), Error> {
    let mut parameters = vec![
        ("user", config.user.as_str()),
        ("application_name", config.application_name.as_str()),
        ("client_encoding", "UTF8"),
    ];
    match (config.mode, &config.database) {
        (Mode::Physical, None) => parameters.push(("replication", "true")),
        (Mode::Database, Some(database)) => {
            parameters.extend([("database", database.as_str()), ("replication", "database")]);
        }
        (Mode::Physical, Some(_)) => {
            return Err(Error::Invalid("a physical replication connection is to no database".into()));
        }
        (Mode::Database, None) => {
            return Err(Error::Invalid("a database must be named to connect to one".into()));
        }
    }
    parameters.extend(config.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    frontend::startup_message(parameters, frames.outgoing())
        .map_err(|_| Error::Invalid("a startup parameter contains a zero byte".into()))
}

async fn authenticate(frames: &mut Frames, password: Option<&Password>) -> Result<(), Error> {
    let refuse = |frames: &Frames, why: &str| Error::Authentication { peer: frames.peer(), why: why.to_owned() };
    let method = match frames.receive(DOING).await? {
        // `trust`, `peer`, or a certificate that the handshake has already shown.
        Frame::Other(Message::AuthenticationOk) => return Ok(()),
        Frame::Other(Message::AuthenticationSasl(body)) => {
            let offered: Vec<_> = body.mechanisms().collect().unwrap_or_default();
            if !offered.contains(&SCRAM_SHA_256) {
                return Err(refuse(frames, &format!("it offers {offered:?}, we speak SCRAM-SHA-256 only")));
            }
            let Some(password) = password else {
                return Err(refuse(frames, "it wants a password and we have none; check pg_hba.conf there"));
            };
            return scram(frames, password).await;
        }
        Frame::Other(Message::AuthenticationMd5Password(_)) => "md5",
        Frame::Other(Message::AuthenticationCleartextPassword) => "a password in clear text",
        Frame::Other(Message::AuthenticationGss) => "GSSAPI",
        Frame::Other(Message::AuthenticationSspi) => "SSPI",
        Frame::Other(Message::AuthenticationKerberosV5) => "Kerberos",
        other => return Err(frames.unexpected(DOING, &other)),
    };
    Err(refuse(
        frames,
        &format!("it wants {method}; we speak trust, peer, certificates and SCRAM-SHA-256; change pg_hba.conf there"),
    ))
}

async fn scram(frames: &mut Frames, password: &Password) -> Result<(), Error> {
    let broken = |frames: &Frames, e: std::io::Error| frames.protocol(DOING, format!("SCRAM: {e}"));
    let mut scram = ScramSha256::new(password.expose(), ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), frames.outgoing())
        .map_err(|e| Error::Invalid(e.to_string()))?;
    frames.flush(DOING).await?;
    match frames.receive(DOING).await? {
        Frame::Other(Message::AuthenticationSaslContinue(body)) => {
            scram.update(body.data()).map_err(|e| broken(frames, e))?;
        }
        other => return Err(frames.unexpected(DOING, &other)),
    }
    frontend::sasl_response(scram.message(), frames.outgoing()).map_err(|e| Error::Invalid(e.to_string()))?;
    frames.flush(DOING).await?;
    // The server proves here that it knows the password too: an AuthenticationOk without that proof is refused.
    match frames.receive(DOING).await? {
        Frame::Other(Message::AuthenticationSaslFinal(body)) => {
            scram.finish(body.data()).map_err(|e| broken(frames, e))?;
        }
        other => return Err(frames.unexpected(DOING, &other)),
    }
    match frames.receive(DOING).await? {
        Frame::Other(Message::AuthenticationOk) => Ok(()),
        other => Err(frames.unexpected(DOING, &other)),
    }
}
