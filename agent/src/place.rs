//! The `place` init container: puts the supervisor where the `postgres` container finds it, and ends.

use pgconvoy_crds::pod;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Copies the supervisor out of the agent's image into the shared directory.
///
/// # Errors
/// A sentence, when the image holds no supervisor or the shared directory cannot be written.
pub fn place() -> Result<(), PlaceError> {
    copy(Path::new(pod::SUPERVISOR_IN_IMAGE), Path::new(pod::SUPERVISOR))
}

/// Why the supervisor could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The source cannot be read.
    #[error("the supervisor cannot be read from {path}: {why}; the agent's image is not one of pgconvoy's")]
    Source {
        /// Where it should lie.
        path: String,
        /// What the kernel says.
        why: io::Error,
    },
    /// The target cannot be written.
    #[error("the supervisor cannot be written to {path}: {why}; PostgreSQL's container cannot start without it")]
    Target {
        /// Where it should go.
        path: String,
        /// What the kernel says.
        why: io::Error,
    },
}

/// Copies `from` to `to`, executable by everyone. A reader sees the old file or the whole new one, never a part: a
/// restarted pod places a new supervisor while the old one may still be running.
fn copy(from: &Path, to: &Path) -> Result<(), PlaceError> {
    let source = |why| PlaceError::Source { path: from.display().to_string(), why };
    let target = |why| PlaceError::Target { path: to.display().to_string(), why };
    let mut reader = File::open(from).map_err(source)?;
    if !reader.metadata().map_err(source)?.is_file() {
        return Err(source(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = to.with_file_name(name);
    write(&mut reader, &temporary).and_then(|()| fs::rename(&temporary, to)).map_err(target)?;
    let directory = to.parent().unwrap_or_else(|| Path::new("/"));
    File::open(directory).and_then(|d| d.sync_all()).map_err(target)
}

fn write(reader: &mut File, to: &Path) -> io::Result<()> {
    // Left behind by an attempt that was cut off; create_new below keeps us from writing through a link.
    match fs::remove_file(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(to)?;
    io::copy(reader, &mut file)?;
    // The umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_is_placed_whole_and_executable() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("in-image"), dir.path().join("supervisor"));
        fs::write(&from, b"\x7fELF one").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(dir.path().join("supervisor.new"), b"left behind, and longer than the real one").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"\x7fELF one");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        fs::write(&from, b"two").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two", "an upgrade replaces it");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn what_failed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let missing = copy(&dir.path().join("none"), &dir.path().join("to")).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("image"), "{missing}");
        let from = dir.path().join("from");
        fs::write(&from, b"x").unwrap();
        let unwritable = copy(&from, &dir.path().join("no/such/dir/s")).unwrap_err().to_string();
        assert!(unwritable.contains("no/such/dir/s"), "{unwritable}");
        assert!(copy(dir.path(), &dir.path().join("to")).is_err(), "a directory is no supervisor");
    }
}
