//! The part of a restore that touches the disk. It runs on a thread of its own.

use super::{
    flush::Flusher,
    manifest::{Manifest, Received},
    untar::{Sink, Untar},
};
use crate::error::Error;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
};
use tar::Header;
use tokio::sync::mpsc::Receiver;

/// After how many bytes of a file they are handed to the [`Flusher`].
const WRITE_BACK: u64 = 32 << 20;
/// Smaller pieces are left to the flush at the end.
const SMALL: u64 = 4 << 20;
/// A manifest has some 150 bytes for each file; this is more than a million files.
const MANIFEST_LIMIT: usize = 256 << 20;

/// How the files are made to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// One `syncfs` at the end. The quickest where the volume has a file system of its own; on a shared one it also
    /// waits for what others have written.
    #[default]
    Filesystem,
    /// An `fsync` for each file and directory.
    EachFile,
    /// Not at all: for copies that may be lost.
    None,
}

/// What the thread is given.
pub(super) enum Item {
    /// An archive begins.
    Archive(Root),
    /// The manifest begins.
    Manifest,
    /// Bytes of what has begun last.
    Data(Bytes),
    /// All has come: check it and make it durable. Without it the thread stops and says nothing.
    End,
}

/// Where an archive goes.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// The directory on this machine.
    pub(super) dir: PathBuf,
    /// Its path below the data directory, as the manifest has it; empty for the data directory itself.
    pub(super) prefix: PathBuf,
    /// What may be a symbolic link in it, and where it then points: tablespaces.
    pub(super) links: HashMap<PathBuf, PathBuf>,
}

/// What the thread hands back.
pub(super) struct Unpacked {
    pub(super) manifest: Manifest,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Makes sure that `dir` is an empty directory of mode 0700.
pub(super) fn prepare(dir: &Path) -> Result<File, Error> {
    let target = |why: &str| Error::Target { dir: dir.to_owned(), why: why.to_owned() };
    match fs::symlink_metadata(dir) {
        Ok(m) if !m.is_dir() => return Err(target("it is no directory")),
        Ok(_) => {
            let mut entries = fs::read_dir(dir).map_err(Error::disk("read", dir))?;
            if entries.next().is_some() {
                return Err(target("it is not empty; remove what is in it, or choose another"));
            }
            fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(Error::disk("set the mode of", dir))?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => make_dir(dir)?,
        Err(e) => return Err(Error::disk("look at", dir)(e)),
    }
    File::open(dir).map_err(Error::disk("open", dir))
}

fn make_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::disk("create the directory", path))
}

/// Unpacks what comes in, until [`Item::End`]. `None` when the sender went away before.
///
/// `roots` are the directories that were opened before the first byte was written: `syncfs` reports a failed write only
/// to descriptors that are older than it. `writing` is dropped when nothing more is created or written.
pub(super) fn run(
    data_dir: &Path,
    roots: Vec<File>,
    durability: Durability,
    mut items: Receiver<Item>,
    writing: std::sync::mpsc::Sender<()>,
) -> Result<Option<Unpacked>, Error> {
    let flusher = if durability == Durability::None { Flusher::none() } else { Flusher::start() };
    let mut files = Files::new(flusher);
    let mut archive: Option<Untar> = None;
    let mut manifest: Option<Vec<u8>> = None;
    loop {
        match items.blocking_recv() {
            None => return Ok(None),
            Some(Item::Archive(root)) => {
                complete(archive.as_ref(), &files)?;
                files.root = Some(root);
                archive = Some(Untar::new());
            }
            Some(Item::Manifest) => {
                complete(archive.take().as_ref(), &files)?;
                manifest = Some(Vec::new());
            }
            Some(Item::Data(data)) => match (&mut manifest, &mut archive) {
                (Some(manifest), _) if manifest.len() + data.len() > MANIFEST_LIMIT => {
                    return Err(Error::Manifest(format!("it is longer than {MANIFEST_LIMIT} bytes")));
                }
                (Some(manifest), _) => manifest.extend_from_slice(&data),
                (None, Some(archive)) => archive.push(&data, &mut files)?,
                (None, None) => return Err(Error::Manifest("data came before any archive".into())),
            },
            Some(Item::End) => break,
        }
    }
    complete(archive.as_ref(), &files)?;
    let bytes = manifest.ok_or_else(|| Error::Manifest("it did not come".into()))?;
    let manifest = Manifest::parse(&bytes)?;
    let mut problems = manifest.compare(&files.received);
    if !problems.is_empty() {
        problems.truncate(Error::PROBLEM_LIMIT);
        return Err(Error::Damaged { problems });
    }
    let path = data_dir.join("backup_manifest");
    let mut file = create(&path)?;
    file.write_all(&bytes).map_err(Error::disk("write", &path))?;
    drop(writing);
    match durability {
        Durability::None => {}
        Durability::Filesystem => {
            for root in &roots {
                nix::unistd::syncfs(root).map_err(|e| Error::disk("flush the file system of", data_dir)(e.into()))?;
            }
        }
        Durability::EachFile => {
            file.sync_all().map_err(Error::disk("flush", &path))?;
            files.sync(&roots, data_dir)?;
        }
    }
    // The directory's own entry in its parent.
    if let (Some(parent), true) = (data_dir.parent(), durability != Durability::None) {
        sync(parent)?;
    }
    Ok(Some(Unpacked { manifest, files: files.received.len() as u64, bytes: files.bytes }))
}

fn complete(archive: Option<&Untar>, files: &Files) -> Result<(), Error> {
    match archive {
        Some(archive) if !archive.is_complete() => {
            let entry = files.root.as_ref().map(|r| r.dir.display().to_string()).unwrap_or_default();
            Err(Error::Archive { entry, why: "its archive ends too early".into() })
        }
        _ => Ok(()),
    }
}

fn create(path: &Path) -> Result<File, Error> {
    // `create_new` follows no link and overwrites nothing: an entry that comes twice is an error.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(Error::disk("create", path))
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|f| f.sync_all()).map_err(Error::disk("flush", path))
}

struct Files {
    flusher: Flusher,
    root: Option<Root>,
    received: HashMap<PathBuf, Received>,
    /// Every file and directory made, for [`Durability::EachFile`].
    made: Vec<PathBuf>,
    bytes: u64,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Where it lies.
    path: PathBuf,
    /// Its path in the manifest.
    name: PathBuf,
    crc: Digest,
    size: u64,
    /// Up to here it has been handed to the [`Flusher`].
    written_back: u64,
}

impl Open {
    fn write_back(&mut self, flusher: &Flusher) {
        flusher.give(&self.file);
        self.written_back = self.size;
    }
}

impl Sink for Files {
    fn entry(&mut self, header: &Header, size: u64) -> Result<(), Error> {
        let raw = header.path_bytes();
        let refuse =
            |why: &str| Error::Archive { entry: String::from_utf8_lossy(&raw).into_owned(), why: why.to_owned() };
        let root = self.root.as_ref().ok_or_else(|| refuse("no archive has begun"))?;
        // The server writes some entries with `./` in front, and directories and tablespaces with a slash behind.
        let name = raw.strip_prefix(b"./").unwrap_or(&raw);
        let relative = Path::new(OsStr::from_bytes(name.strip_suffix(b"/").unwrap_or(name)));
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        if relative.as_os_str().is_empty() || raw.contains(&0) || !relative.components().all(plain) {
            return Err(refuse("its path leaves the data directory"));
        }
        // Nothing of this archive goes through a link: a tablespace's files come in an archive of their own.
        if relative.ancestors().skip(1).any(|above| root.links.contains_key(above)) {
            return Err(refuse("it lies in a tablespace, whose files come in their own archive"));
        }
        let path = root.dir.join(relative);
        match header.entry_type() {
            kind if kind.is_file() => {
                let crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
                let (file, name) = (create(&path)?, root.prefix.join(relative));
                self.open = Some(Open { file, path, name, crc, size: 0, written_back: 0 });
                return Ok(());
            }
            _ if size != 0 => return Err(refuse("it has contents and is no file")),
            kind if kind.is_dir() => make_dir(&path)?,
            kind if kind.is_symlink() => {
                let to = root.links.get(relative).ok_or_else(|| refuse("it is a link that is no tablespace"))?;
                symlink(to, &path).map_err(Error::disk("create the link", &path))?;
                return Ok(());
            }
            _ => return Err(refuse("it is no file, directory or tablespace")),
        }
        self.made.push(path);
        Ok(())
    }

    fn data(&mut self, piece: &[u8]) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.write_all(piece).map_err(Error::disk("write", &open.path))?;
        open.crc.update(piece);
        open.size += piece.len() as u64;
        self.bytes += piece.len() as u64;
        if open.size - open.written_back >= WRITE_BACK {
            open.write_back(&self.flusher);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if open.size - open.written_back >= SMALL {
            open.write_back(&self.flusher);
        }
        // The algorithm is one of 32 bits.
        let crc32c = open.crc.finalize() as u32;
        if self.received.insert(open.name.clone(), Received { size: open.size, crc32c }).is_some() {
            let entry = open.name.display().to_string();
            return Err(Error::Archive { entry, why: "it comes twice".into() });
        }
        self.made.push(open.path);
        Ok(())
    }
}

impl Files {
    fn new(flusher: Flusher) -> Self {
        Self { flusher, root: None, received: HashMap::new(), made: Vec::new(), bytes: 0, open: None }
    }

    fn sync(&self, roots: &[File], data_dir: &Path) -> Result<(), Error> {
        self.made.iter().try_for_each(|path| sync(path))?;
        roots.iter().try_for_each(|root| root.sync_all().map_err(Error::disk("flush", data_dir)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::EntryType;

    fn unpack(dir: &Path, entries: &[(&str, EntryType, &[u8])]) -> Result<Files, Error> {
        let links = HashMap::from([(PathBuf::from("pg_tblspc/16385"), PathBuf::from("/elsewhere"))]);
        let root = Root { dir: dir.to_owned(), prefix: PathBuf::new(), links };
        let mut files = Files { root: Some(root), ..Files::new(Flusher::none()) };
        let mut untar = Untar::new();
        for (name, kind, contents) in entries {
            let mut header = Header::new_ustar();
            // Written by hand: the crate's own setters refuse what an attacker would send.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(contents.len() as u64);
            header.set_mode(0o4777);
            header.set_cksum();
            untar.push(header.as_bytes(), &mut files)?;
            untar.push(contents, &mut files)?;
            untar.push(&vec![0; (512 - contents.len() % 512) % 512], &mut files)?;
        }
        Ok(files)
    }

    #[test]
    fn files_and_directories_come_out_private() {
        let dir = tempfile::tempdir().unwrap();
        let entries: &[(&str, EntryType, &[u8])] = &[
            ("base/", EntryType::Directory, b""),
            ("./base/1", EntryType::Regular, b"123456789"),
            ("empty", EntryType::Regular, b""),
            ("pg_tblspc", EntryType::Directory, b""),
            ("./pg_tblspc/16385/", EntryType::Symlink, b""),
        ];
        let files = unpack(dir.path(), entries).unwrap();
        assert_eq!(files.received[Path::new("base/1")], Received { size: 9, crc32c: 0xe306_9283 });
        assert_eq!(files.received[Path::new("empty")], Received { size: 0, crc32c: 0 });
        let mode = |p: &str| fs::metadata(dir.path().join(p)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("base"), mode("base/1")), (0o700, 0o600));
        assert_eq!(fs::read_link(dir.path().join("pg_tblspc/16385")).unwrap(), Path::new("/elsewhere"));
    }

    #[test]
    fn what_would_leave_the_directory_is_refused() {
        let f = EntryType::Regular;
        for (name, kind, part) in [
            ("../x", f, "leaves"),
            ("/tmp/pgconvoy-x", f, "leaves"),
            ("a/../../x", f, "leaves"),
            ("", f, "leaves"),
            ("./", EntryType::Directory, "leaves"),
            ("././../x", f, "leaves"),
            ("./pg_tblspc/16385/x", f, "own archive"),
            (".", EntryType::Directory, "leaves"),
            ("a", EntryType::Symlink, "no tablespace"),
            ("a", EntryType::Link, "is no file"),
            ("a", EntryType::Fifo, "is no file"),
            ("a", EntryType::Char, "is no file"),
            ("a", EntryType::GNULongName, "is no file"),
            ("pg_tblspc/16385/x", f, "own archive"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let said = unpack(dir.path(), &[(name, kind, b"")]).err().map(|e| e.to_string());
            assert!(said.as_deref().is_some_and(|s| s.contains(part)), "{name:?} {kind:?}: {said:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{name:?}");
        }
    }

    #[test]
    fn the_same_file_twice_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let twice: &[(&str, EntryType, &[u8])] = &[("a", EntryType::Regular, b"1"), ("a", EntryType::Regular, b"2")];
        assert_eq!(unpack(dir.path(), twice).err().map(|e| e.reason()), Some("Disk"));
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"1");
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        assert!(prepare(dir.path()).unwrap_err().to_string().contains("not empty"));
        assert!(prepare(&dir.path().join("x")).unwrap_err().to_string().contains("no directory"));
        let new = dir.path().join("new");
        prepare(&new).unwrap();
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
