//! What is on the volume: nothing, something half made, our data, or something that is not ours.

use super::{Error, disk};
use crate::settings::Paths;
use pgconvoy_ha::Data;
use pgconvoy_terms::{Incarnation, SystemId};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Our mark in the data directory.
pub(crate) const MARKER: &str = "pgconvoy.json";

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    /// UID of the PgReplicaSet whose data this is.
    pub(crate) set_uid: String,
    /// The name of the data.
    pub(crate) incarnation: Incarnation,
    /// initdb made it and nothing was ever started on it: only such data may be started as leader of epoch 1.
    pub(crate) fresh: bool,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    /// The format's version.
    pgconvoy: u32,
    set_uid: String,
    incarnation: String,
    fresh: bool,
    /// Of the fields above, as [`OnDisk::sum`] joins them.
    crc32c: u32,
}

impl OnDisk {
    fn sum(&self) -> u32 {
        let text = format!("{}\n{}\n{}\n{}\n", self.pgconvoy, self.set_uid, self.incarnation, self.fresh);
        u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, text.as_bytes())).unwrap_or(0)
    }
}

impl Marker {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: OnDisk = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if raw.pgconvoy != 1 {
            return Err(format!("it has version {}, which this agent does not know", raw.pgconvoy));
        }
        if raw.crc32c != raw.sum() {
            return Err("its checksum does not fit".into());
        }
        let incarnation = raw.incarnation.parse().map_err(|e: pgconvoy_terms::Malformed| e.to_string())?;
        Ok(Self { set_uid: raw.set_uid, incarnation, fresh: raw.fresh })
    }

    /// Writes it into `pgdata`, durably.
    pub(crate) fn write(&self, pgdata: &Path) -> Result<(), Error> {
        let mut raw = OnDisk {
            pgconvoy: 1,
            set_uid: self.set_uid.clone(),
            incarnation: self.incarnation.to_string(),
            fresh: self.fresh,
            crc32c: 0,
        };
        raw.crc32c = raw.sum();
        let path = pgdata.join(MARKER);
        let bytes = serde_json::to_vec(&raw).map_err(|e| Error::disk("encode", &path)(e.into()))?;
        disk::write(&path, &bytes)
    }

    /// Reads it from `pgdata`; the inner error is a sentence.
    pub(crate) fn read(pgdata: &Path) -> Result<Option<Result<Self, String>>, Error> {
        Ok(disk::read(&pgdata.join(MARKER))?.map(|bytes| Self::parse(&bytes)))
    }
}

/// The file that is there while data is being made.
pub(crate) fn making(paths: &Paths) -> PathBuf {
    paths.state.join("making")
}

/// Says that what is in the data directory is worthless from now on, and empties it. The lock is for as long as the data
/// is being made.
pub(crate) fn begin(paths: &Paths) -> Result<Lock, Error> {
    disk::make_directory(&paths.state)?;
    let lock = no_server(paths)?;
    disk::write(&making(paths), b"a clone or initdb has begun and has not ended\n")?;
    disk::make_directory(&paths.pgdata)?;
    disk::empty_directory(&paths.pgdata)?;
    Ok(lock)
}

/// Says that what is in the data directory is worthless from now on, and leaves it there. The lock is as for [`begin`].
pub(crate) fn begin_in_place(paths: &Paths) -> Result<Lock, Error> {
    let lock = no_server(paths)?;
    disk::write(&making(paths), b"a rewind has begun and has not ended\n")?;
    Ok(lock)
}

/// The file that PostgreSQL, with all that came of it, holds a lock on.
pub(crate) fn server_lock(paths: &Paths) -> PathBuf {
    paths.state.join("postgres.lock")
}

/// Makes sure that no PostgreSQL runs on the volume, and that none is started. The agent's own lock does not tell: its
/// pod's PostgreSQL outlives it, and a second pod of this node would find the lock free.
pub(crate) fn no_server(paths: &Paths) -> Result<Lock, Error> {
    Lock::on(&server_lock(paths))?.ok_or_else(|| {
        Error::NotYet(
            "PostgreSQL of another pod of this member still runs on the volume; waiting until it is gone. If that pod \
             was deleted by force, its node has yet to notice"
                .into(),
        )
    })
}

/// Says that the data directory is complete: its mark is written, everything is durable, then the file goes.
pub(crate) fn finish(paths: &Paths, marker: &Marker) -> Result<(), Error> {
    marker.write(&paths.pgdata)?;
    disk::sync_parent(&paths.pgdata)?;
    disk::remove(&making(paths))
}

/// Looks at the volume. `major`: of the image's PostgreSQL. `adopt`: the system identifier of another set's data that becomes this
/// one's.
pub(crate) fn inspect(paths: &Paths, set_uid: &str, adopt: Option<SystemId>, major: u32) -> Result<Data, Error> {
    if disk::read(&making(paths))?.is_some() {
        return Ok(Data::HalfMade);
    }
    let at = paths.pgdata.display();
    let foreign = |what: String| Ok(Data::Foreign(what));
    if paths.volume.join("PG_VERSION").exists() && paths.volume != paths.pgdata {
        return foreign(format!(
            "there is a PostgreSQL data directory in {} that pgconvoy did not make; it is left alone. Use another \
             volume, or empty this one",
            paths.volume.display()
        ));
    }
    let entries = match names(&paths.pgdata) {
        Err(e) => return foreign(format!("{at} cannot be read: {e}")),
        Ok(entries) => entries,
    };
    if entries.is_empty() {
        return Ok(Data::Empty);
    }
    let marker = match Marker::read(&paths.pgdata) {
        Err(e) => return foreign(e.to_string()),
        Ok(Some(Err(why))) => return foreign(format!("the mark {at}/{MARKER} cannot be relied on: {why}")),
        Ok(Some(Ok(marker))) => marker,
        Ok(None) => {
            let what = match disk::read(&paths.pgdata.join("PG_VERSION")) {
                Ok(Some(v)) => format!("a PostgreSQL {} data directory", String::from_utf8_lossy(&v).trim()),
                _ => "files".to_owned(),
            };
            return foreign(format!(
                "{at} holds {what} that pgconvoy did not make; it is left alone. Use another volume, or empty this one"
            ));
        }
    };
    let marker = match (marker.set_uid == set_uid, adopt) {
        (true, _) => marker,
        (false, Some(wanted)) => match system_id(&paths.pgdata) {
            Err(e) => return foreign(e.to_string()),
            Ok(system) if system == wanted => {
                let ours = Marker { set_uid: set_uid.to_owned(), ..marker };
                ours.write(&paths.pgdata)?;
                ours
            }
            Ok(system) => {
                return foreign(format!(
                    "{at} holds data with the system identifier {system}, and spec.bootstrap.adopt.systemId is {wanted}; it is \
                     left alone. Use another volume, or make the set again with the identifier of the data that is meant"
                ));
            }
        },
        (false, None) => {
            return foreign(format!(
                "{at} holds data of another replica set (UID {}, this one is {set_uid}); it is left alone. Use another \
                 volume, or delete this one if its data is not needed",
                marker.set_uid
            ));
        }
    };
    let version = match disk::read(&paths.pgdata.join("PG_VERSION")) {
        Ok(version) => version.unwrap_or_default(),
        Err(e) => return foreign(e.to_string()),
    };
    let version = String::from_utf8_lossy(&version).trim().to_owned();
    if version.parse() != Ok(major) {
        return Err(Error::Image(format!(
            "the pod's image holds PostgreSQL {major}, and {at} holds data of PostgreSQL {version}, which only an image \
             of that version can read; name one in spec.image"
        )));
    }
    match system_id(&paths.pgdata) {
        Ok(system) => Ok(Data::Good { incarnation: marker.incarnation, system }),
        Err(e) => foreign(e.to_string()),
    }
}

fn names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    match fs::read_dir(directory) {
        Ok(entries) => {
            let names: io::Result<Vec<_>> = entries.map(|e| e.map(|e| e.file_name())).collect();
            Ok(names?.into_iter().filter(|n| n != "lost+found").collect())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The first eight bytes of the control file.
fn system_id(pgdata: &Path) -> Result<SystemId, Error> {
    let path = pgdata.join("global/pg_control");
    let mut bytes = [0; 8];
    let file = fs::File::open(&path).map_err(Error::disk("open", &path))?;
    file.read_exact_at(&mut bytes, 0).map_err(Error::disk("read", &path))?;
    Ok(SystemId(u64::from_ne_bytes(bytes)))
}

/// A lock on the volume that ends with whoever has it. Two pods of one node may mount a volume at the same time.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: nix::fcntl::Flock<fs::File>,
}

impl Lock {
    /// Takes the one of the member's agent; none when another agent has it.
    pub(crate) fn take(paths: &Paths) -> Result<Option<Self>, Error> {
        disk::make_directory(&paths.state)?;
        Self::on(&paths.state.join("lock"))
    }

    fn on(path: &Path) -> Result<Option<Self>, Error> {
        use nix::fcntl::{Flock, FlockArg};
        let open = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = open.map_err(Error::disk("open", path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => Err(Error::disk("lock", path)(e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        let paths = Paths {
            volume: dir.path().into(),
            pgdata: at("pgdata"),
            state: at("state"),
            run: at("run"),
            tls: at("tls"),
            app: at("app"),
            archive: at("archive"),
        };
        (dir, paths)
    }

    fn good(paths: &Paths) -> Marker {
        let marker = Marker { set_uid: "u".into(), incarnation: Incarnation::from_random(5), fresh: true };
        begin(paths).unwrap();
        fs::create_dir_all(paths.pgdata.join("global")).unwrap();
        fs::write(paths.pgdata.join("PG_VERSION"), "15\n").unwrap();
        fs::write(paths.pgdata.join("global/pg_control"), 77u64.to_ne_bytes()).unwrap();
        finish(paths, &marker).unwrap();
        marker
    }

    fn foreign(data: Data) -> String {
        match data {
            Data::Foreign(what) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_states_of_a_volume() {
        let (_dir, paths) = volume();
        let look = || inspect(&paths, "u", None, 15).unwrap();
        assert_eq!(look(), Data::Empty);
        fs::create_dir_all(paths.pgdata.join("lost+found")).unwrap();
        assert_eq!(look(), Data::Empty);
        fs::write(paths.pgdata.join("x"), "").unwrap();
        assert!(foreign(look()).contains("holds files that pgconvoy did not make"));
        begin(&paths).unwrap();
        assert_eq!(look(), Data::HalfMade);
        assert!(!paths.pgdata.join("x").exists());
        let marker = good(&paths);
        assert_eq!(look(), Data::Good { incarnation: marker.incarnation, system: SystemId(77) });
        assert!(foreign(inspect(&paths, "other", None, 15).unwrap()).contains("another replica set"));
        // Another set goes on with it only by its system identifier; from then on it is that set's.
        let Data::Good { system, .. } = look() else { panic!("not good") };
        let stranger = Some(SystemId(system.0 ^ 1));
        assert!(foreign(inspect(&paths, "other", stranger, 15).unwrap()).contains("spec.bootstrap.adopt"));
        assert!(matches!(inspect(&paths, "other", Some(system), 15).unwrap(), Data::Good { .. }));
        assert!(matches!(inspect(&paths, "other", None, 15).unwrap(), Data::Good { .. }));
        assert!(matches!(inspect(&paths, "u", Some(system), 15).unwrap(), Data::Good { .. }));
        let other = inspect(&paths, "u", None, 17).unwrap_err();
        assert!(matches!(&other, Error::Image(why) if why.contains("data of PostgreSQL 15")), "{other}");
        fs::remove_file(paths.pgdata.join(MARKER)).unwrap();
        assert!(foreign(look()).contains("a PostgreSQL 15 data directory that pgconvoy did not make"));
    }

    #[test]
    fn a_changed_mark_is_not_believed() {
        let (_dir, paths) = volume();
        good(&paths);
        let path = paths.pgdata.join(MARKER);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("true", "false")).unwrap();
        assert!(foreign(inspect(&paths, "u", None, 15).unwrap()).contains("checksum does not fit"));
    }

    #[test]
    fn the_first_format_stays_readable() {
        let text = br#"{"pgconvoy":1,"set_uid":"u","incarnation":"faaaaaaaaa","fresh":true,"crc32c":2432679577}"#;
        let marker = Marker::parse(text).unwrap();
        assert_eq!(marker, Marker { set_uid: "u".into(), incarnation: Incarnation::from_random(5), fresh: true });
    }

    #[test]
    fn only_one_holds_the_lock() {
        let (_dir, paths) = volume();
        let lock = Lock::take(&paths).unwrap();
        assert!(lock.is_some() && Lock::take(&paths).unwrap().is_none());
        drop(lock);
        assert!(Lock::take(&paths).unwrap().is_some());
    }

    #[test]
    fn nothing_is_touched_while_a_server_runs() {
        let (_dir, paths) = volume();
        good(&paths);
        let server = no_server(&paths).unwrap();
        for refused in [begin(&paths), begin_in_place(&paths)] {
            assert!(refused.unwrap_err().to_string().contains("another pod of this member still runs"));
        }
        assert!(matches!(inspect(&paths, "u", None, 15).unwrap(), Data::Good { .. }));
        drop(server);
        drop(begin_in_place(&paths).unwrap());
        assert_eq!(inspect(&paths, "u", None, 15).unwrap(), Data::HalfMade);
    }
}
