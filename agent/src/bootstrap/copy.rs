//! A copy of another member's data, by BASE_BACKUP over mutual TLS.

use super::progress::Progress;
use crate::postgres::{Error, FILES, Marker, Postgres, empty_directory, making};
use pgconvoy_ha::Data;
use pgconvoy_terms::{Incarnation, MemberName};
use pgconvoy_wire::{BackupOptions, Client, RestoreOptions};
use std::time::Duration;

/// For removing what is there, which may be large.
const EMPTYING: Duration = Duration::from_secs(600);

/// Copies the set's data onto the volume, under this name. Nothing runs afterwards.
pub(super) async fn copy_from(
    postgres: &Postgres,
    incarnation: &Incarnation,
    from: &MemberName,
    progress: &Progress,
) -> Result<(), Error> {
    let Some(address) = postgres.addresses.borrow().get(from).copied() else {
        return Err(Error::NotYet(format!("the address of {from} is not known yet")));
    };
    // Connected first: data that is there is not thrown away for a source that does not answer.
    let config = postgres.replication(from, address).await?;
    let mut client = Client::connect(&config).await?;
    let system = client.identify_system().await?.system_id;
    let (major, _) = postgres.image().await?;
    if client.server_major() != major {
        return Err(Error::Unfit(format!(
            "{from} runs PostgreSQL {}, this member's image has {major}: a copy must be of the same major version",
            client.server_major()
        )));
    }
    postgres.fence().await?;
    let paths = postgres.paths().clone();
    let begin = {
        let paths = paths.clone();
        move || making::begin(&paths)
    };
    let _alone = postgres.disk.run("emptying the data directory", EMPTYING, begin).await?;
    postgres.facts.set(|k| k.data = Data::HalfMade);
    tracing::info!(%from, %incarnation, "copying the set's data");
    let copied = copy(postgres, client, progress).await;
    if let Err(e) = copied {
        // Worthless, and the next try may need the room.
        let pgdata = paths.pgdata.clone();
        postgres.disk.run("removing a copy that failed", EMPTYING, move || empty_directory(&pgdata)).await?;
        return Err(e);
    }
    let marker =
        Marker { set_uid: postgres.config.identity.set_uid.clone(), incarnation: incarnation.clone(), fresh: false };
    let finish = move || making::finish(&paths, &marker);
    postgres.disk.run("marking the copy as complete", FILES, finish).await?;
    postgres.look_at_volume_again().await?;
    match postgres.facts.known().data {
        Data::Good { system: copied, .. } if copied == system => Ok(()),
        other => Err(Error::Unfit(format!("the copy of {from} is not of its database {system}: {other:?}"))),
    }
}

async fn copy(postgres: &Postgres, client: Client, progress: &Progress) -> Result<(), Error> {
    let label = format!("pgconvoy {}", postgres.config.identity.member);
    let mut backup = client.base_backup(BackupOptions::new(label)).await?;
    let progress = |p: pgconvoy_wire::RestoreProgress| progress.at(p.done, p.total.unwrap_or(0));
    let pgdata = postgres.paths().pgdata.clone();
    let restored = Box::pin(backup.restore_into(&pgdata, &RestoreOptions::default(), progress)).await?;
    tracing::info!(files = restored.files, bytes = restored.bytes, end = %restored.end.lsn, "the copy is complete");
    Ok(())
}
