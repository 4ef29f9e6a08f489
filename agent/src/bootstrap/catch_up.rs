//! Bringing a member to the set's data by the cheapest way that can be gone ([`super::ways`]).

use super::{
    copy::copy_from,
    nothing_unpacks,
    progress::Progress,
    refill::{self, Failed},
    seen::{Looked, look},
    tries::Key,
    ways::{Archive, Choice, Seen, Way, choose},
};
use crate::postgres::{Error, Postgres};
use pgconvoy_ha::Data;
use pgconvoy_terms::{Incarnation, MemberName};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// For what must come first.
const FIRST: Duration = Duration::from_secs(1);

/// Brings the set's data onto the volume, under this name. Nothing runs afterwards.
///
/// What fails is tried again by whoever calls; after three failures another way is taken.
pub(crate) async fn catch_up(
    postgres: &Postgres,
    incarnation: &Incarnation,
    from: &MemberName,
    slot: &str,
    replace: bool,
) -> Result<(), Error> {
    match postgres.facts.known().data {
        Data::Good { incarnation: there, .. } if there == *incarnation => return Ok(()),
        Data::Good { .. } if replace => {}
        Data::Good { incarnation: there, .. } => {
            return Err(Error::Unfit(format!(
                "there is data on the volume already (incarnation {there}); it is not replaced unless that is wanted"
            )));
        }
        Data::Foreign(what) => return Err(Error::Unfit(what)),
        Data::Unknown => return Err(Error::NotYet("the volume has not been looked at yet".into())),
        Data::Empty | Data::HalfMade => {}
    }
    nothing_unpacks(postgres).await?;
    postgres.kept().tries.forget(Instant::now());
    let Looked { seen, found } = considered(postgres, from, slot).await?;
    let Choice { way, how } = choose(&seen, &postgres.kept().tries);
    let progress = Progress::begin(postgres, &how);
    let done = match (&way, &found) {
        (Way::Log, Some(found)) => Box::pin(refill::add_log(postgres, incarnation, found, &progress)).await,
        (Way::Restore(name), Some(found)) => {
            Box::pin(refill::restore(postgres, incarnation, found, name, &progress)).await
        }
        _ => Box::pin(copy_from(postgres, incarnation, from, &progress)).await.map_err(Failed::Here),
    };
    let now = Instant::now();
    match done {
        Ok(()) => {
            postgres.kept().tries.succeeded(&way.key(), now);
            tracing::info!(%incarnation, how, "the data is complete");
            Ok(())
        }
        Err(Failed::Archive { why, lasting }) => {
            postgres.kept().tries.failed(way.key(), why.clone(), lasting, now);
            Err(Error::Archive(format!("{how}, failed: {why}")))
        }
        // Another step must come first, which is no failure of the way. To look again costs requests.
        Err(Failed::Here(e @ Error::NotYet(_))) => {
            sleep(FIRST).await;
            Err(e)
        }
        Err(Failed::Here(e)) => {
            postgres.kept().tries.failed(way.key(), e.to_string(), false, now);
            Err(e)
        }
    }
}

/// What there is to choose from. An archive that cannot be looked at is looked at again, three times in all.
async fn considered(postgres: &Postgres, from: &MemberName, slot: &str) -> Result<Looked, Error> {
    let given_up = postgres.kept().tries.given_up(&Key::Look);
    let why = match given_up {
        Some(why) => why,
        None => match look(postgres, from, slot).await? {
            Ok(looked) => {
                postgres.kept().tries.succeeded(&Key::Look, Instant::now());
                return Ok(looked);
            }
            Err(why) => {
                let mut kept = postgres.kept();
                kept.tries.failed(Key::Look, why.clone(), false, Instant::now());
                match kept.tries.given_up(&Key::Look) {
                    Some(why) => why,
                    None => {
                        let n = kept.tries.count(&Key::Look);
                        return Err(Error::Archive(format!("looking at the archive failed {n} times: {why}")));
                    }
                }
            }
        },
    };
    let archive = Archive::Unusable(format!("looking at the archive {why}"));
    // Room matters to what comes out of the archive only.
    Ok(Looked { seen: Seen { archive, free: 0, size: 0, from: from.to_string() }, found: None })
}
