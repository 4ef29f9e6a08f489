//! The first database of a set.

use super::{nothing_unpacks, restore};
use crate::postgres::{Error, Marker, Postgres, initdb_options, making};
use crate::settings::PostgresSettings;
use pgconvoy_crds::pod;
use pgconvoy_ha::Data;
use pgconvoy_terms::Incarnation;
use std::{ffi::OsString, time::Duration};

/// For initdb on a slow disk.
const INITDB: Duration = Duration::from_secs(300);
/// For making it durable.
const FLUSH: Duration = Duration::from_secs(300);

/// Makes a new database, or restores another set's, under this name. Nothing runs afterwards.
pub(crate) async fn found(postgres: &Postgres, incarnation: &Incarnation) -> Result<(), Error> {
    match postgres.facts.known().data {
        Data::Good { incarnation: there, .. } if there == *incarnation => return Ok(()),
        Data::Good { incarnation: there, .. } => {
            return Err(Error::Unfit(format!(
                "there is data on the volume already (incarnation {there}); nothing new is made over it"
            )));
        }
        Data::Foreign(what) => return Err(Error::Unfit(what)),
        Data::Unknown => return Err(Error::NotYet("the volume has not been looked at yet".into())),
        Data::Empty | Data::HalfMade => {}
    }
    nothing_unpacks(postgres).await?;
    let paths = postgres.paths().clone();
    let begin = {
        let paths = paths.clone();
        move || making::begin(&paths)
    };
    let _alone = postgres.disk.run("emptying the data directory", FLUSH, begin).await?;
    postgres.facts.set(|k| k.data = Data::HalfMade);
    let settings = postgres.settings.borrow().clone();
    match &settings.restore {
        Some(from) => Box::pin(restore::restore(postgres, from)).await?,
        None => initdb(postgres, incarnation, &settings).await?,
    }
    let marker =
        Marker { set_uid: postgres.config.identity.set_uid.clone(), incarnation: incarnation.clone(), fresh: true };
    let finish = move || {
        making::sync_filesystem(&paths.pgdata)?;
        making::finish(&paths, &marker)
    };
    postgres.disk.run("making the new database durable", FLUSH, finish).await?;
    postgres.look_at_volume_again().await
}

async fn initdb(postgres: &Postgres, incarnation: &Incarnation, settings: &PostgresSettings) -> Result<(), Error> {
    let (major, _) = postgres.image().await?;
    let options = initdb_options(&settings.initdb);
    let mut args: Vec<OsString> = vec!["-D".into(), postgres.paths().pgdata.clone().into()];
    args.extend(
        [
            format!("--username={}", pod::SUPERUSER),
            format!("--encoding={}", options.encoding.unwrap_or_default()),
            format!("--locale={}", options.locale.unwrap_or_default()),
            // Our own pg_hba.conf takes its place before anything starts.
            "--auth-local=peer".to_owned(),
            "--auth-host=reject".to_owned(),
            "--no-instructions".to_owned(),
            "--no-sync".to_owned(),
        ]
        .map(OsString::from),
    );
    match options.data_checksums {
        Some(false) if major >= 18 => args.push("--no-data-checksums".into()),
        Some(false) => {}
        _ => args.push("--data-checksums".into()),
    }
    tracing::info!(%incarnation, "making a new database");
    postgres.programs.output("initdb", args, INITDB).await.map(drop)
}
