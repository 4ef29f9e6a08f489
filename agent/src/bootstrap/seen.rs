//! What the archive has to offer a member that needs a copy, looked at. Nothing is changed.

use super::ways::{Archive, Offer, Seen};
use crate::{
    archive::Access,
    postgres::{Error, FILES, Postgres},
};
use nix::sys::statvfs::statvfs;
use pgconvoy_archive::{
    fetch::Chain,
    retain::{Good, Inventory, reach_along},
    snapshot::{Manifest, SnapshotId, read_manifest},
    store::{Config, S3},
};
use pgconvoy_ha::Data;
use pgconvoy_terms::{Epoch, Lsn, MemberName, Position, SystemId};
use pgconvoy_wire::Client;
use std::time::Duration;

/// The archive's slot, as the leader has it: from there on it keeps what is not archived.
const ARCHIVE_SLOT: &str = "pgconvoy_archive";
/// For a call while it is only looked. Short: a slow store is taken for one that is away. Long: so is a member without data.
const LOOK: Duration = Duration::from_secs(20);
/// So many of the newest snapshots are considered.
const SNAPSHOTS: usize = 3;

/// What was found, for the choice and for the deed.
pub(super) struct Looked {
    pub(super) seen: Seen,
    /// None: there is no archive that could be used.
    pub(super) found: Option<Found>,
}

/// What leads to the log and the snapshots.
pub(super) struct Found {
    pub(super) config: Config,
    pub(super) system: SystemId,
    /// To the leader's epoch.
    pub(super) chain: Chain,
    /// Where the log of the data here ends, if it is a part of that.
    pub(super) here: Option<(Epoch, Lsn)>,
    pub(super) snapshots: Vec<(SnapshotId, Manifest)>,
}

/// The leader, as it answers.
struct Leader {
    system: SystemId,
    number: u32,
    /// It keeps its log from here on for this member.
    kept: Lsn,
    /// And from here on for the archive.
    unarchived: Option<Lsn>,
}

/// Looks. The inner error is why the archive cannot be used just now, a sentence without its end.
pub(super) async fn look(postgres: &Postgres, from: &MemberName, slot: &str) -> Result<Result<Looked, String>, Error> {
    let volume = postgres.paths().volume.clone();
    let room = move || statvfs(&volume).map_err(|e| Error::disk("ask for the room on", &volume)(e.into()));
    let room = postgres.disk.run("asking for the room on the volume", FILES, room).await?;
    let seen = |archive| Seen {
        archive,
        free: room.blocks_available() * room.fragment_size(),
        size: room.blocks() * room.fragment_size(),
        from: from.to_string(),
    };
    if !postgres.settings.borrow().archive {
        return Ok(Ok(Looked { seen: seen(Archive::None), found: None }));
    }
    let dir = postgres.paths().archive.clone();
    let read = move || Ok(Access::read(&dir, ""));
    let access = match postgres.disk.run("looking for the way to the archive", FILES, read).await? {
        Ok(Some(access)) => access,
        Ok(None) => return Ok(Err("what leads to it has not come yet, see the condition Archiving".to_owned())),
        Err(why) => return Ok(Err(why)),
    };
    Ok(match Box::pin(offers(postgres, access.config(), from, slot)).await {
        Ok((archive, found)) => Ok(Looked { seen: seen(archive), found }),
        Err(why) => Err(why),
    })
}

async fn offers(
    postgres: &Postgres,
    config: Config,
    from: &MemberName,
    slot: &str,
) -> Result<(Archive, Option<Found>), String> {
    let leader = leader(postgres, from, slot).await?;
    let mut short = config.clone();
    short.limits.call = LOOK;
    let store = S3::new(short).await.map_err(text)?;
    let mut inventory = Inventory::look(&store, leader.system).await.map_err(text)?;
    // The slot bears the number of the leader's epoch, and the beginning of its id.
    let same = |e: &Epoch| slot.ends_with(&format!("_e{}_{}", e.number, e.id.short()));
    let target = inventory.epochs.iter().find(|e| same(&e.dir.epoch)).map(|e| e.dir.epoch.clone());
    let Some(target) = target else {
        return Err(format!("nothing of epoch {} is archived yet", leader.number));
    };
    let chain = Chain::to(&store, leader.system, &target).await.map_err(text)?;
    let size = chain.target().map_or(1, |l| l.claim.segment_size.max(1));
    let meets = |end: Lsn| end.0 / size >= leader.kept.0 / size || leader.unarchived.is_some_and(|u| end >= u);

    let here = position(postgres, leader.system).and_then(|p| {
        let link = chain.links().iter().find(|l| l.dir.timeline() == p.timeline)?;
        Some((link.dir.epoch.clone(), p.end))
    });
    let mut lacks = None;
    if let Some((epoch, end)) = &here {
        let reach = reach_along(&store, &chain, epoch, *end).await.map_err(text)?;
        lacks = reach.filter(|r| r.end > *end && meets(r.end)).map(|r| r.end.bytes_since(*end));
    }

    inventory.good.retain(|g| chain.beginning(&g.epoch, g.start).is_some());
    inventory.good.sort_by_key(|g| std::cmp::Reverse((g.epoch.number, g.stop)));
    let (major, _) = postgres.image().await.map_err(text)?;
    let (mut list, mut snapshots) = (Vec::new(), Vec::new());
    for good in inventory.good.iter().take(SNAPSHOTS) {
        // It may have been removed just now.
        let Some(manifest) = read_manifest(&store, leader.system, &good.id).await.map_err(text)? else { continue };
        let reach = reach_along(&store, &chain, &good.epoch, good.start).await.map_err(text)?;
        let Some(end) = reach.map(|r| r.end) else { continue };
        let why = unfit(good, &manifest, end, major).or_else(|| {
            let kept = leader.kept;
            (!meets(end)).then(|| format!("leads to {end} only, and the leader has its log from {kept} on"))
        });
        list.push(Offer {
            name: good.id.to_string(),
            packed: manifest.parts.iter().map(|p| p.size).sum(),
            unpacked: manifest.parts.iter().map(|p| p.unpacked).sum(),
            log: end.bytes_since(good.start),
            unfit: why,
        });
        snapshots.push((good.id.clone(), manifest));
    }
    let found = Found { config, system: leader.system, chain, here, snapshots };
    Ok((Archive::There { lacks, snapshots: list }, Some(found)))
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Why a snapshot whose log goes to `end` cannot be used.
fn unfit(good: &Good, manifest: &Manifest, end: Lsn, major: u32) -> Option<String> {
    let of = manifest.postgresql.split(['.', ' ']).next().unwrap_or_default();
    if of != major.to_string() {
        return Some(format!("is of PostgreSQL {}, and the pod's image has {major}", manifest.postgresql));
    }
    (end < good.stop).then(|| format!("needs log up to {}, which is there up to {end} only", good.stop))
}

/// How far the log of the data here goes, if that is known and the data is whole.
fn position(postgres: &Postgres, system: SystemId) -> Option<Position> {
    let known = postgres.facts.known();
    match known.data {
        Data::Good { system: here, .. } if here == system => known.position,
        _ => None,
    }
}

/// Asks the leader, which is the member that has the slot.
async fn leader(postgres: &Postgres, from: &MemberName, slot: &str) -> Result<Leader, String> {
    let roster = postgres.settings.borrow().roster.clone();
    let others = roster.iter().filter(|m| *m != from && **m != postgres.config.identity.member);
    let mut said = None;
    for member in std::iter::once(from).chain(others) {
        match ask(postgres, member, slot).await {
            Ok(Some(leader)) => return Ok(leader),
            Ok(None) => {}
            Err(e) => said = Some(format!("{member}: {e}")),
        }
    }
    let why = said.map_or_else(String::new, |s| format!(" ({s})"));
    Err(format!("no member says that it keeps its log for this one{why}"))
}

async fn ask(postgres: &Postgres, member: &MemberName, slot: &str) -> Result<Option<Leader>, Error> {
    let Some(address) = postgres.addresses.borrow().get(member).copied() else { return Ok(None) };
    let mut client = Client::connect(&postgres.replication(member, address).await?).await?;
    let Some(kept) = client.read_slot(slot).await?.and_then(|s| s.restart_lsn) else { return Ok(None) };
    let identity = client.identify_system().await?;
    let unarchived = client.read_slot(ARCHIVE_SLOT).await?.and_then(|s| s.restart_lsn);
    drop(client.close().await);
    Ok(Some(Leader { system: identity.system_id, number: identity.timeline.0, kept, unarchived }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::ChangeId;

    #[test]
    fn a_snapshot_of_another_major_version_or_with_too_little_log_is_unfit() {
        let epoch = Epoch { number: 2, id: ChangeId::from_random(2) };
        let id: SnapshotId = "s".parse().unwrap();
        let good = Good { id, epoch: epoch.clone(), start: Lsn(0x100), stop: Lsn(0x200), time: 0, bytes: 1 };
        let manifest = |version: &str| Manifest {
            format: 1,
            epoch: epoch.clone(),
            start: good.start,
            stop: good.stop,
            postgresql: version.to_owned(),
            parts: vec![],
            time: String::new(),
        };
        let said = |version, end| unfit(&good, &manifest(version), Lsn(end), 17);
        assert_eq!(said("17.6 (Debian 17.6-1)", 0x200), None);
        assert_eq!(said("17.6", 0x1ff).unwrap(), "needs log up to 0/200, which is there up to 0/1FF only");
        assert!(said("16.2", 0x300).unwrap().contains("PostgreSQL 16.2"));
    }
}
