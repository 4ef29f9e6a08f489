//! The images that every node has from the start, so that nothing is ever pulled.

use super::{debian, say};
use crate::store::stamp;
use crate::{Store, files, run};
use anyhow::{Context, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Their short names.
pub(crate) const NAMES: [&str; 4] = ["pause", "nothing", "postgres-17", "postgres-15"];

/// What kind an image is.
enum Kind {
    /// One static program that sleeps. As `pause` it holds pods' namespaces, as `nothing` it is the image that is not PostgreSQL.
    Sleeper,
    /// PostgreSQL under the official image's name and in its layout, so that examples run as they are. Major, Debian release.
    Postgres(&'static str, &'static str),
}

fn kind(name: &str) -> anyhow::Result<Kind> {
    Ok(match name {
        "pause" | "nothing" => Kind::Sleeper,
        "postgres-17" => Kind::Postgres("17", "trixie"),
        "postgres-15" => Kind::Postgres("15", "bookworm"),
        _ => bail!("there is no image {name}; there is {}", NAMES.join(", ")),
    })
}

/// The archive of an image, named by its recipe.
pub(crate) fn file(store: &Store, name: &str) -> PathBuf {
    let recipe = match kind(name) {
        Ok(Kind::Postgres(major, suite)) => {
            stamp([name, suite, files::POSTGRES, files::OCI, &settings(major).join(" ")])
        }
        _ => stamp([name, files::PAUSE, files::OCI]),
    };
    store.path("img").join(format!("{name}-{recipe}.img"))
}

/// Makes what is missing.
pub(super) fn make(store: &Store) -> anyhow::Result<()> {
    for name in NAMES {
        let target = file(store, name);
        if target.exists() {
            continue;
        }
        say(&format!("image {name}: building"));
        let work = store.folder(&format!("img/{name}.part"))?;
        let made = match kind(name)? {
            Kind::Sleeper => sleeper(name, &work),
            Kind::Postgres(major, suite) => postgres(major, suite, &work),
        };
        made.with_context(|| format!("image {name} could not be made"))?;
        fs::rename(work.join("image"), &target)?;
        fs::remove_dir_all(&work)?;
        say(&format!("image {name}: done"));
    }
    Ok(())
}

fn sleeper(name: &str, work: &Path) -> anyhow::Result<()> {
    let (root, source) = (work.join("root"), work.join("pause.c"));
    fs::create_dir_all(&root)?;
    fs::write(&source, files::PAUSE)?;
    run::done(Command::new("gcc").args(["-static", "-Os", "-s", "-o"]).arg(root.join("pause")).arg(&source), "")?;
    let options = ["--user", "65534", "--entrypoint", "/pause"];
    archive(&format!("docker.io/local/{name}:1"), &root, work, &options)
}

/// What the official image promises to those who run it.
fn settings(major: &str) -> Vec<String> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let words = [
        "--stop-signal".to_owned(),
        "SIGINT".to_owned(),
        "--label".to_owned(),
        format!("org.opencontainers.image.title=PostgreSQL {major} (Debian packages, for tests)"),
        "--env".to_owned(),
        format!("PATH={path}:/usr/lib/postgresql/{major}/bin"),
        "--env".to_owned(),
        "LANG=C.UTF-8".to_owned(),
        "--env".to_owned(),
        format!("PG_MAJOR={major}"),
        "--env".to_owned(),
        "PGDATA=/var/lib/postgresql/data".to_owned(),
        "--entrypoint".to_owned(),
        "docker-entrypoint.sh".to_owned(),
        "--cmd".to_owned(),
        "postgres".to_owned(),
    ];
    words.to_vec()
}

fn postgres(major: &str, suite: &str, work: &Path) -> anyhow::Result<()> {
    // The package manager works as a user of its own in there.
    fs::set_permissions(work, fs::Permissions::from_mode(0o755))?;
    let (scratch, raw, script) = (work.join("scratch"), work.join("raw.tar"), work.join("postgres-rootfs.py"));
    fs::create_dir_all(&scratch)?;
    let no_database = "mkdir -p $1/etc/postgresql-common; \
                       echo create_main_cluster=false > $1/etc/postgresql-common/createcluster.conf";
    let package = format!("postgresql-{major}");
    debian::root(suite, &["ca-certificates", &package], &[no_database], &scratch, &raw)?;
    fs::write(&script, files::POSTGRES)?;
    let root = work.join("root.tar");
    run::done(Command::new("python3").arg(&script).arg(major).arg(&raw).arg(&root), "")?;
    let options = settings(major);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    archive(&format!("docker.io/library/postgres:{major}"), &root, work, &options)
}

/// Writes `work/image`: an archive of an image with this full name from a root file system, a directory or a tar archive.
/// `options` are those of `images/oci.py`.
pub(crate) fn archive(name: &str, root: &Path, work: &Path, options: &[&str]) -> anyhow::Result<()> {
    let layer = if root.is_dir() {
        let layer = work.join("layer.tar");
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "-cf"])
            .arg(&layer)
            .arg("-C")
            .arg(root)
            .arg(".");
        run::done(&mut tar, "")?;
        layer
    } else {
        root.to_owned()
    };
    let script = work.join("oci.py");
    fs::write(&script, files::OCI)?;
    let mut command = Command::new("python3");
    run::done(command.arg(&script).arg(name).arg(work.join("image")).arg(layer).args(options), "").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_recipe() {
        let store = Store::at(Path::new("/p")).unwrap();
        let all: std::collections::BTreeSet<_> = NAMES.iter().map(|n| file(&store, n)).collect();
        assert_eq!(all.len(), NAMES.len());
        assert!(NAMES.iter().all(|name| kind(name).is_ok()));
        assert!(kind("mysql").is_err());
    }
}
