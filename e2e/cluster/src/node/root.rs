//! A node's root directory: the machine's own programs and files, but its own `/run`, `/var/lib`, `/var/log` and `/opt`.
//!
//! It is put together in a file system in memory, so the machine's own directories get nothing, not even mount points.

use super::Place;
use crate::{control, files};
use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

const NONE: Option<&str> = None;

/// Makes it, and moves this mount namespace into it.
pub(super) fn make(place: &Place) -> anyhow::Result<()> {
    // Copies of the places where network namespaces are held would keep them when their clusters are gone.
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the table of mounts")?;
    for point in held(&table) {
        umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("cannot let go of {point}"))?;
    }
    let new = place.folder.join("rootfs");
    mount(Some("tmpfs"), &new, Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=1m"))
        .context("cannot make a file system in memory")?;
    mirror(Path::new("/"), &new, &["run", "var", "opt"])?;
    fs::create_dir(new.join("var"))?;
    mirror(Path::new("/var"), &new.join("var"), &["lib", "log"])?;
    for folder in ["run", "opt", "var/lib", "var/log"] {
        fs::create_dir_all(new.join(folder))?;
    }
    mount(Some("tmpfs"), &new.join("run"), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot make /run")?;
    fs::create_dir_all(new.join("run/lock"))?;
    fs::create_dir_all(new.join("run/netns"))?;
    bind(&place.folder.join("log"), &new.join("var/log"))?;
    for (own, target) in [("kubelet", "/var/lib/kubelet"), ("cni", "/var/lib/cni"), ("volumes", files::VOLUMES)] {
        let target = new.join(target.trim_start_matches('/'));
        fs::create_dir_all(&target)?;
        bind(&place.folder.join(own), &target)?;
    }
    // The clusters' directory may lie in what was left out.
    let store = place.state.ancestors().nth(2).unwrap_or(&place.state);
    let inside = new.join(store.strip_prefix("/").unwrap_or(store));
    if !inside.exists() {
        fs::create_dir_all(&inside)?;
        bind(store, &inside)?;
    }
    std::env::set_current_dir(&new)?;
    // The old root lies on top of the new one for a moment.
    pivot_root(".", ".").context("cannot change the root directory")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot leave the machine's root directory")?;
    std::env::set_current_dir("/")?;
    // Volumes that a pod shares both ways must be seen outside of it.
    mount(NONE, "/", NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE).context("cannot share mounts with pods")?;
    control::write(Path::new("/run/.kcluster-node"), &place.name())
}

/// Mount points that hold namespaces.
fn held(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| line.split(' ').nth(4))
}

/// Shows everything in `from` but `without` in `to`.
fn mirror(from: &Path, to: &Path, without: &[&str]) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)?.flatten() {
        if without.iter().any(|w| entry.file_name() == *w) {
            continue;
        }
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            bind(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::File::create(&target)?;
            bind(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> anyhow::Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .with_context(|| format!("cannot show {} at {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_namespaces_is_found() {
        let table = "1 0 254:0 / / rw - ext4 /dev/vda rw\n\
                     2 1 0:4 net:[4026532300] /c/a/net/cp rw - nsfs nsfs rw\n\
                     3 1 0:5 / /nsfs rw - tmpfs tmpfs rw\n";
        assert_eq!(held(table).collect::<Vec<_>>(), ["/c/a/net/cp"]);
    }
}
