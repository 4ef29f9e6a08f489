//! One containerd root with the images unpacked. Nodes take hard links of its content and snapshots, which nobody changes.

use super::{end_leftovers, images, say};
use crate::store::stamp;
use crate::{Store, files, mark, run};
use anyhow::{Context, bail, ensure};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where it is or will be: named by its images.
pub(super) fn folder(store: &Store) -> PathBuf {
    let names: Vec<_> = images::NAMES.iter().map(|n| images::file(store, n).display().to_string()).collect();
    store.path("golden").join(stamp(names.iter().map(String::as_str)))
}

/// Whether it is there.
pub(super) fn exists(store: &Store) -> bool {
    folder(store).exists()
}

/// Makes it, if it is not there.
pub(super) fn make(store: &Store, bin: &Path) -> anyhow::Result<()> {
    let (parent, target) = (store.folder("golden")?, folder(store));
    let lock = store.lock("golden.lock")?;
    lock.lock().context("cannot wait for another build")?;
    if target.exists() {
        return Ok(());
    }
    say("unpacking the images");
    end_leftovers(&parent)?;
    let part = parent.join("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let log = store.folder("log")?.join("golden.log");
    let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // In namespaces of its own it leaves nothing, however it ends.
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]);
    command.arg(crate::host::program()?).arg("unpack").arg(&part).arg(bin);
    command.args(images::NAMES.iter().map(|name| images::file(store, name)));
    command.env(mark::VARIABLE, mark::value(&parent, "unpack")).stdin(Stdio::null());
    let status = command.stdout(out.try_clone()?).stderr(out).status().context("cannot run unshare")?;
    ensure!(status.success(), "the images cannot be unpacked:\n{}", super::tail(&log, 5));
    fs::rename(part.join("root"), &target)?;
    fs::remove_dir_all(&part)?;
    Ok(())
}

/// Unpacks archives into `part/root`; runs in namespaces of its own.
///
/// # Errors
/// When containerd does not run, or an archive is bad.
pub fn unpack(part: &Path, bin: &Path, archives: &[PathBuf]) -> anyhow::Result<()> {
    ensure!(std::process::id() == 1, "this is started by `kcluster build`");
    let none = None::<&str>;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("cannot make /run")?;
    let config = part.join("containerd.toml");
    let text = format!(
        r#"version = 3
root = "{0}/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri","io.containerd.cri.v1.images","io.containerd.cri.v1.runtime","io.containerd.nri.v1.nri"]
[grpc]
address = "{1}"
[plugins."io.containerd.internal.v1.opt"]
path = "{0}/opt"
"#,
        part.display(),
        files::CONTAINERD
    );
    fs::write(&config, text)?;
    let mut child =
        Command::new(bin.join("containerd")).arg("-c").arg(&config).spawn().context("cannot run containerd")?;
    let limit = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(files::CONTAINERD).is_err() {
        if Instant::now() > limit || child.try_wait()?.is_some() {
            bail!("containerd does not come up");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for archive in archives {
        let mut ctr = Command::new(bin.join("ctr"));
        run::done(ctr.args(["-a", files::CONTAINERD, "-n", "k8s.io", "images", "import"]).arg(archive), "")?;
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id())?), nix::sys::signal::Signal::SIGTERM)?;
    child.wait()?;
    Ok(())
}

/// Makes a node's containerd root of it, unless there is one.
pub(crate) fn copy(store: &Store, target: &Path) -> anyhow::Result<()> {
    if target.exists() {
        return Ok(());
    }
    let golden = folder(store);
    ensure!(golden.exists(), "the images are not unpacked yet: kcluster build");
    let lock = store.lock("golden.lock")?;
    lock.lock_shared().context("cannot wait for another build")?;
    // Somebody uses it.
    drop(File::open(&golden).and_then(|f| f.set_modified(std::time::SystemTime::now())));
    let part = target.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let snapshots = "io.containerd.snapshotter.v1.overlayfs";
    for entry in fs::read_dir(&golden)?.flatten() {
        let name = entry.file_name();
        let shared = name == "io.containerd.content.v1.content" || name == snapshots;
        run::done(Command::new("cp").arg(if shared { "-al" } else { "-a" }).arg(entry.path()).arg(&part), "")?;
    }
    // The one file in there that is written to.
    let index = Path::new(snapshots).join("metadata.db");
    run::done(
        Command::new("cp").args(["-a", "--remove-destination"]).arg(golden.join(&index)).arg(part.join(&index)),
        "",
    )?;
    fs::rename(&part, target).with_context(|| format!("cannot make {}", target.display()))
}
