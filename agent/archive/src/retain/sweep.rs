//! Removing what a plan lets go: snapshots first, then the WAL that only they needed.

use super::{inventory::Inventory, plan::Plan};
use crate::{
    layout::{EpochDir, Error, Gap, Piece, begin_key, begins, gaps, parse_segment},
    snapshot::{SnapshotId, folder, manifest_key},
    store::{Listed, Store, walk},
};
use bytes::Bytes;
use pgconvoy_terms::Lsn;

/// S3 takes no more with one request.
const MOST: usize = 1000;

/// What went, or would go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Snapshots, complete ones.
    pub snapshots: Vec<SnapshotId>,
    /// Remains of others.
    pub abandoned: Vec<SnapshotId>,
    /// Objects of WAL.
    pub wal: u64,
    /// Objects of all kinds.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// There is more: the limit was reached.
    pub more: bool,
}

/// Removes what the plan lets go, up to `limit` objects. With `dry`, only counts them. Interrupted anywhere, what is left can be
/// restored as before, and the next call goes on.
///
/// # Errors
/// As the store's calls.
pub async fn sweep(
    store: &dyn Store,
    inventory: &Inventory,
    plan: &Plan,
    limit: u64,
    dry: bool,
) -> Result<Swept, Error> {
    let mut work = Work { store, limit, dry, swept: Swept::default() };
    for (ids, complete) in [(&plan.expire, true), (&plan.abandoned, false)] {
        for id in ids {
            if !work.snapshot(inventory, id).await? {
                return Ok(work.swept);
            }
            if complete { &mut work.swept.snapshots } else { &mut work.swept.abandoned }.push(id.clone());
        }
    }
    let Some(floor) = &plan.floor else { return Ok(work.swept) };
    for epoch in inventory.epochs.iter().filter(|e| e.dir.epoch.number < floor.number) {
        if !work.epoch(&epoch.dir).await? {
            return Ok(work.swept);
        }
    }
    for (dir, begin) in &floor.begins {
        let size = inventory.epochs.iter().find(|e| e.dir == *dir).map(|e| e.segment_size);
        if let Some(size) = size
            && !work.before(dir, *begin, size).await?
        {
            return Ok(work.swept);
        }
    }
    // Nothing is left from which one would come to these.
    let passed = |gap: &Gap| {
        gap.dir.epoch.number < floor.number
            || floor.begins.iter().any(|(dir, begin)| *dir == gap.dir && gap.to <= *begin)
    };
    let gone: Vec<String> = gaps(store, inventory.system).await?.iter().filter(|g| passed(g)).map(Gap::key).collect();
    if !dry {
        for batch in gone.chunks(MOST) {
            store.delete(batch).await?;
        }
    }
    Ok(work.swept)
}

struct Work<'a> {
    store: &'a dyn Store,
    limit: u64,
    dry: bool,
    swept: Swept,
}

impl Work<'_> {
    /// Removes these objects in their order; `false`: the limit came first.
    async fn remove(&mut self, objects: &[Listed]) -> Result<bool, Error> {
        for batch in objects.chunks(MOST) {
            let room = usize::try_from(self.limit.saturating_sub(self.swept.objects)).unwrap_or(usize::MAX);
            let now = batch.get(..room.min(batch.len())).unwrap_or(batch);
            self.delete(now).await?;
            if now.len() < batch.len() {
                self.swept.more = true;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn delete(&mut self, objects: &[Listed]) -> Result<(), Error> {
        if !self.dry && !objects.is_empty() {
            let keys: Vec<String> = objects.iter().map(|o| o.key.clone()).collect();
            self.store.delete(&keys).await?;
        }
        self.swept.objects += objects.len() as u64;
        self.swept.bytes += objects.iter().map(|o| o.size).sum::<u64>();
        Ok(())
    }

    async fn all(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let mut found = Vec::new();
        walk(self.store, prefix, None, false, |page| {
            found.extend(page.objects);
            true
        })
        .await?;
        Ok(found)
    }

    /// Removes a snapshot as a whole: the limit ends nothing in the middle of it.
    async fn snapshot(&mut self, inventory: &Inventory, id: &SnapshotId) -> Result<bool, Error> {
        if self.swept.objects >= self.limit {
            self.swept.more = true;
            return Ok(false);
        }
        let manifest = manifest_key(inventory.system, id);
        // Without its manifest it is none any more; only then its parts go.
        let (first, rest): (Vec<_>, Vec<_>) =
            self.all(&folder(inventory.system, id)).await?.into_iter().partition(|o| o.key == manifest);
        for objects in [first, rest] {
            for batch in objects.chunks(MOST) {
                self.delete(batch).await?;
            }
        }
        Ok(true)
    }

    /// Notes in the archive from where on an epoch's WAL is there, so that nobody takes what is missing for a gap.
    async fn note(&self, dir: &EpochDir, begin: Lsn) -> Result<(), Error> {
        if !self.dry {
            let _ = self.store.put_new(&begin_key(dir, begin), Bytes::from_static(b"{}\n")).await?;
        }
        Ok(())
    }

    /// Removes an epoch. Its claim goes last.
    async fn epoch(&mut self, dir: &EpochDir) -> Result<bool, Error> {
        self.note(dir, Lsn(u64::MAX)).await?;
        let all = self.all(&dir.to_string()).await?;
        let (wal, mut rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|o| o.key.starts_with(&dir.wal()));
        rest.sort_by_key(|o| o.key == dir.claim());
        self.wal(&wal).await?;
        Ok(!self.swept.more && self.remove(&rest).await?)
    }

    async fn wal(&mut self, objects: &[Listed]) -> Result<bool, Error> {
        let before = self.swept.objects;
        let done = self.remove(objects).await;
        self.swept.wal += self.swept.objects - before;
        done
    }

    /// Removes an epoch's WAL before a position.
    async fn before(&mut self, dir: &EpochDir, begin: Lsn, size: u64) -> Result<bool, Error> {
        let mut found: Vec<Listed> = Vec::new();
        walk(self.store, &dir.wal(), None, true, |page| {
            let mut inside = true;
            for object in page.objects {
                let Some(segment) = parse_segment(&object.key) else { continue };
                if segment.start(size).0.saturating_add(size) <= begin.0 {
                    found.push(object);
                } else {
                    inside = false;
                }
            }
            inside
        })
        .await?;
        let pieces = self.all(&dir.live()).await?;
        // The next piece's number follows from the newest.
        let newest = pieces.iter().filter_map(|o| Piece::parse(&o.key)).map(|p| p.number).max();
        let gone = |o: &Listed| {
            Piece::parse(&o.key).is_some_and(|p| {
                Some(p.number) != newest && (p.start.0 - p.start.0 % size).saturating_add(size) <= begin.0
            })
        };
        found.extend(pieces.into_iter().filter(gone));
        if found.is_empty() {
            return Ok(true);
        }
        self.note(dir, begin).await?;
        let earlier: Vec<Listed> = if self.dry {
            vec![]
        } else {
            begins(self.store, dir).await?.into_iter().filter(|(lsn, _)| *lsn < begin).map(|(_, o)| o).collect()
        };
        Ok(self.wal(&found).await? && self.remove(&earlier).await?)
    }
}
