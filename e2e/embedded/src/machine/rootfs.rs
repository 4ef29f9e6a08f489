//! A container's file system: a small one in memory, into which parts of the machine's are mounted.

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where the machine's own `/usr` is while a container has another.
const HOST_USR: &str = "/.host/usr";

/// A file system.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
pub struct Root {
    /// An empty directory to build it on.
    pub at: PathBuf,
    /// Programs and other files beside the machine's own `/usr`: where, and what. None: the machine's own as it is.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Directories of the machine that are there under the same name, read only.
    pub directories: Vec<PathBuf>,
    /// Text files.
    pub texts: Vec<(PathBuf, String)>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
}

/// A mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    pub from: PathBuf,
    /// Where.
    pub to: PathBuf,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// Files of the machine's `/etc` that programs look at.
const ETC: [&str; 9] =
    ["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "ssl", "alternatives", "locale.conf", "pki"];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

fn bind(from: &Path, to: &Path) -> anyhow::Result<()> {
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

/// Makes a mount read only. What the machine forbids on it stays forbidden, or the kernel would refuse.
fn protect(at: &Path) -> anyhow::Result<()> {
    let there = statvfs(at).with_context(|| format!("cannot look at {}", at.display()))?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (is, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if there.contains(is) {
            flags |= keep;
        }
    }
    let none = None::<&str>;
    mount(none, at, none, flags, none).with_context(|| format!("cannot make {} read only", at.display()))
}

fn directory(at: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))
}

/// Mounts a file or a directory, which need not be there yet.
fn put(from: &Path, to: &Path) -> anyhow::Result<()> {
    let kind = fs::metadata(from).with_context(|| format!("there is no {}", from.display()))?;
    if kind.is_dir() {
        directory(to)?;
    } else {
        directory(to.parent().unwrap_or(to))?;
        if !to.exists() {
            fs::write(to, "").with_context(|| format!("cannot make {}", to.display()))?;
        }
    }
    bind(from, to)
}

/// Makes the file system and moves into it. The process is alone in its mount namespace, and the first in its PID
/// namespace.
///
/// # Errors
/// When a mount is refused.
pub fn become_root(root: &Root) -> anyhow::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot take the mounts apart")?;
    mount(Some("root"), &root.at, Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=4m"))
        .context("cannot mount a file system in memory")?;
    let at = |path: &Path| root.at.join(path.strip_prefix("/").unwrap_or(path));
    if root.files.is_empty() {
        directory(&at(Path::new("/usr")))?;
        bind(Path::new("/usr"), &at(Path::new("/usr")))?;
        protect(&at(Path::new("/usr")))?;
    } else {
        usr_with(root, &at)?;
    }
    top(&at)?;
    for dir in &root.directories {
        put(dir, &at(dir))?;
        protect(&at(dir))?;
    }
    directory(&at(Path::new("/etc")))?;
    for name in ETC {
        let from = Path::new("/etc").join(name);
        if from.exists() {
            put(&from, &at(&from))?;
        }
    }
    for (path, text) in &root.texts {
        directory(at(path).parent().unwrap_or(&root.at))?;
        fs::write(at(path), text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    directory(&at(Path::new("/dev/shm")))?;
    for name in DEVICES {
        put(&Path::new("/dev").join(name), &at(&Path::new("/dev").join(name)))?;
    }
    for m in &root.mounts {
        put(&m.from, &at(&m.to))?;
        if m.read_only {
            protect(&at(&m.to))?;
        }
    }
    for path in ["/proc", "/tmp", "/.old"] {
        directory(&at(Path::new(path)))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &at(Path::new("/proc")), Some("proc"), flags, none).context("cannot mount /proc")?;
    nix::unistd::pivot_root(&root.at, &at(Path::new("/.old"))).context("cannot change the root")?;
    std::env::set_current_dir("/").context("cannot go to the root")?;
    umount2("/.old", MntFlags::MNT_DETACH).context("cannot let the machine's file system go")?;
    let _ = fs::remove_dir("/.old");
    mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).context("cannot make the root read only")
}

/// `/bin`, `/lib` and so on, as the machine has them.
fn top(at: &impl Fn(&Path) -> PathBuf) -> anyhow::Result<()> {
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let path = Path::new("/").join(name);
        let Ok(kind) = fs::symlink_metadata(&path) else { continue };
        if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(|| format!("cannot read {}", path.display()))?;
            symlink(target, at(&path)).with_context(|| format!("cannot make {}", path.display()))?;
        } else {
            put(&path, &at(&path))?;
        }
    }
    Ok(())
}

/// A `/usr` with more files than the machine's: everything in it leads to the machine's own.
fn usr_with(root: &Root, at: &impl Fn(&Path) -> PathBuf) -> anyhow::Result<()> {
    let host = at(Path::new(HOST_USR));
    directory(&host)?;
    bind(Path::new("/usr"), &host)?;
    protect(&host)?;
    // The directories on the way to a new file are real ones, and what else is in them leads to the machine's own.
    let mut real = vec![PathBuf::from("/usr")];
    for (path, _) in &root.files {
        let mut ancestors: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_path_buf).collect();
        ancestors.retain(|a| a.starts_with("/usr"));
        ancestors.reverse();
        for dir in ancestors {
            if !real.contains(&dir) {
                real.push(dir);
            }
        }
    }
    for dir in &real {
        directory(&at(dir))?;
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if real.contains(&path) || root.files.iter().any(|(p, _)| *p == path) {
                continue;
            }
            let target = Path::new(HOST_USR).join(path.strip_prefix("/usr").unwrap_or(&path));
            symlink(target, at(&path)).with_context(|| format!("cannot make {}", path.display()))?;
        }
    }
    for (path, from) in &root.files {
        put(from, &at(path))?;
        protect(&at(path))?;
    }
    Ok(())
}
