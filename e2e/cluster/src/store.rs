//! Where things lie. Shared by all clusters, and named by the content they were made from, so that each is made once and
//! two checkouts of different versions do not fight: `bin/HASH` programs, `img/NAME-HASH.img` image archives, `golden/HASH`
//! a containerd root with the images unpacked, `tools/NAME-VERSION` further programs, `log` of the builds. One directory per
//! cluster: `clusters/NAME`.

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The directory that holds all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store(PathBuf);

impl Store {
    /// `KCLUSTER_PREFIX`, or `pgconvoy/cluster` in the user's cache directory.
    ///
    /// # Errors
    /// When there is no home directory, or the path has characters that some of the programs cannot take.
    pub fn of_environment() -> anyhow::Result<Self> {
        let given = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let path = match (given("KCLUSTER_PREFIX"), given("XDG_CACHE_HOME"), given("HOME")) {
            (Some(prefix), _, _) => prefix,
            (_, Some(cache), _) => cache.join("pgconvoy/cluster"),
            (_, _, Some(home)) => home.join(".cache/pgconvoy/cluster"),
            _ => bail!("neither KCLUSTER_PREFIX nor HOME is set: there is no place to keep programs and clusters in"),
        };
        Self::at(&path)
    }

    /// A directory of one's choice.
    ///
    /// # Errors
    /// When it is not absolute, or has characters that some of the programs cannot take.
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
        match path.to_str() {
            Some(text) if text.starts_with('/') && text.chars().all(plain) => Ok(Self(path.to_owned())),
            _ => bail!(
                "{}: the place for programs and clusters must be an absolute path of letters, digits and /._-+@, because \
                 it is written into command lines and configurations; choose another by KCLUSTER_PREFIX",
                path.display()
            ),
        }
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    /// A directory below it, made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, below: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(below);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Opens a file to be locked; the lock ends with it.
    pub(crate) fn lock(&self, name: &str) -> anyhow::Result<File> {
        fs::create_dir_all(&self.0).with_context(|| format!("cannot make {}", self.0.display()))?;
        let path = self.0.join(name);
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        options.with_context(|| format!("cannot open {}", path.display()))
    }

    /// Names of the clusters that have a directory, up or not.
    #[must_use]
    pub fn clusters(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("clusters")).into_iter().flatten().flatten();
        let folders = entries.filter(|e| e.path().is_dir());
        let mut names: Vec<_> = folders.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// Twelve hexadecimal digits that stand for the content.
pub(crate) fn stamp<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_places_are_refused() {
        assert!(Store::at(Path::new("/root/.cache/x")).is_ok());
        assert!(Store::at(Path::new("cache")).is_err());
        let error = Store::at(Path::new("/home/a b")).unwrap_err().to_string();
        assert!(error.contains("KCLUSTER_PREFIX"), "{error}");
        assert!(Store::at(Path::new("/a:b")).is_err());
    }

    #[test]
    fn a_stamp_is_of_the_content() {
        assert_eq!(stamp(["a", "b"]), stamp(["ab"]));
        assert_eq!(stamp(["abc"]), "ba7816bf8f01");
    }
}
