//! A pod's volumes: directories.

use crate::api::text;
use crate::http::Server;
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Where a pod's volumes are.
pub(super) struct Volumes<'a> {
    pub(super) server: &'a Server,
    pub(super) pod: &'a Value,
    /// The pod's own directory.
    pub(super) own: PathBuf,
    /// The cluster's directory.
    pub(super) cluster: PathBuf,
    /// The token of the pod's service account.
    pub(super) token: &'a str,
}

impl Volumes<'_> {
    fn namespace(&self) -> &str {
        text(self.pod, "/metadata/namespace")
    }

    fn object(&self, plural: &str, name: &str) -> Option<Value> {
        let find = |a: &mut crate::api::Api| a.get(&*a.kind("", "v1", plural)?, self.namespace(), name).ok();
        self.server.with(find)
    }

    /// Makes what is missing, and brings Secrets and ConfigMaps up to date; the directory of each volume.
    ///
    /// # Errors
    /// What a volume waits for.
    pub(super) fn ready(&self) -> Result<BTreeMap<String, PathBuf>, String> {
        let volumes = self.pod.pointer("/spec/volumes").and_then(Value::as_array);
        let mut all = BTreeMap::new();
        for volume in volumes.into_iter().flatten() {
            let name = text(volume, "/name").to_owned();
            let at = self.own.join("volumes").join(&name);
            let at =
                self.one(volume, at).map_err(|why| format!("MountVolume.SetUp failed for volume {name:?}: {why}"))?;
            all.insert(name, at);
        }
        Ok(all)
    }

    fn one(&self, volume: &Value, at: PathBuf) -> Result<PathBuf, String> {
        if let Some(claim) = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
            let there = self
                .object("persistentvolumeclaims", claim)
                .ok_or_else(|| format!("persistentvolumeclaim {claim:?} not found"))?;
            if text(&there, "/status/phase") != "Bound" {
                return Err(format!("persistentvolumeclaim {claim:?} is not bound"));
            }
            let at = self.cluster.join("volumes").join(text(&there, "/spec/volumeName"));
            // Someone may have taken the disk away: that is what the pod shall see.
            return Ok(at).and_then(|at| directory(&at, 0o700));
        }
        if let Some(empty) = volume.get("emptyDir") {
            let memory = empty["medium"] == "Memory";
            let uid = text(self.pod, "/metadata/uid");
            let at = if memory { self.cluster.join("memory").join(uid).join(text(volume, "/name")) } else { at };
            return directory(&at, 0o777);
        }
        let files = self.files(volume)?;
        directory(&at, 0o755)?;
        publish(&at, &files)?;
        Ok(at)
    }

    /// The files of a Secret, a ConfigMap or a projection: name, content, mode.
    fn files(&self, volume: &Value) -> Result<BTreeMap<String, (Vec<u8>, u32)>, String> {
        let mut files = BTreeMap::new();
        let kinds = ["secret", "configMap", "projected"];
        let Some((kind, source)) = kinds.iter().find_map(|k| Some((*k, volume.get(*k)?))) else {
            return Err("a volume of a kind that the embedded cluster does not have".to_owned());
        };
        let mode = source["defaultMode"].as_u64().and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644);
        if kind == "projected" {
            for part in source["sources"].as_array().into_iter().flatten() {
                if let Some(token) = part.get("serviceAccountToken") {
                    files.insert(text(token, "/path").to_owned(), (self.token.as_bytes().to_vec(), mode));
                } else if let Some(items) = part.pointer("/downwardAPI/items").and_then(Value::as_array) {
                    for item in items {
                        let value = super::environment::field(self.pod, text(item, "/fieldRef/fieldPath"));
                        files.insert(text(item, "/path").to_owned(), (value.into_bytes(), mode));
                    }
                } else {
                    self.keyed(part, mode, &mut files)?;
                }
            }
        } else {
            self.keyed(volume, mode, &mut files)?;
        }
        Ok(files)
    }

    /// Those of a Secret or a ConfigMap.
    fn keyed(&self, part: &Value, mode: u32, files: &mut BTreeMap<String, (Vec<u8>, u32)>) -> Result<(), String> {
        let (plural, source, name) = match (part.get("secret"), part.get("configMap")) {
            (Some(s), _) => {
                ("secrets", s, if s.get("name").is_some() { text(s, "/name") } else { text(s, "/secretName") })
            }
            (_, Some(c)) => ("configmaps", c, text(c, "/name")),
            _ => return Err("a source that the embedded cluster does not have".to_owned()),
        };
        let Some(object) = self.object(plural, name) else {
            let word = plural.trim_end_matches('s');
            return if source["optional"] == true { Ok(()) } else { Err(format!("{word} {name:?} not found")) };
        };
        let content = |key: &str| -> Option<Vec<u8>> {
            let value = object["data"][key].as_str()?;
            if plural == "secrets" {
                base64::engine::general_purpose::STANDARD.decode(value).ok()
            } else {
                Some(value.as_bytes().to_vec())
            }
        };
        match source["items"].as_array() {
            Some(items) => {
                for item in items {
                    let (key, path) = (text(item, "/key"), text(item, "/path"));
                    match content(key) {
                        Some(bytes) => drop(files.insert(path.to_owned(), (bytes, mode))),
                        None if source["optional"] == true => {}
                        None => return Err(format!("references non-existent secret key: {key}")),
                    }
                }
            }
            None => {
                for key in object["data"].as_object().into_iter().flatten().map(|(k, _)| k) {
                    files.extend(content(key).map(|bytes| (key.clone(), (bytes, mode))));
                }
            }
        }
        Ok(())
    }
}

fn directory(at: &Path, mode: u32) -> Result<PathBuf, String> {
    let io = |e: std::io::Error| format!("{}: {e}", at.display());
    if !at.exists() {
        fs::DirBuilder::new().recursive(true).mode(mode).create(at).map_err(io)?;
        fs::set_permissions(at, fs::Permissions::from_mode(mode)).map_err(io)?;
    }
    Ok(at.to_path_buf())
}

/// As the kubelet does: a new directory beside the old one, and one rename that changes all files at once.
fn publish(at: &Path, files: &BTreeMap<String, (Vec<u8>, u32)>) -> Result<(), String> {
    let io = |what: &Path| {
        let what = what.display().to_string();
        move |e: std::io::Error| format!("{what}: {e}")
    };
    let data = at.join("..data");
    let same = |(name, (bytes, _)): (&String, &(Vec<u8>, u32))| fs::read(data.join(name)).is_ok_and(|b| b == *bytes);
    let count = fs::read_dir(&data).map_or(usize::MAX, Iterator::count);
    if count == files.len() && files.iter().all(same) {
        return Ok(());
    }
    let old = fs::read_link(&data).ok();
    let number = old.as_ref().and_then(|o| o.to_str()?.strip_prefix("..")?.parse::<u32>().ok()).unwrap_or(0) + 1;
    let new = at.join(format!("..{number}"));
    fs::create_dir_all(&new).map_err(io(&new))?;
    for (name, (bytes, mode)) in files {
        let path = new.join(name);
        // The real one's belong to root, and the group is the pod's. Here they belong to the only user that there is, and
        // PostgreSQL wants a key of its own user's to be nobody else's.
        let mode = mode & 0o700;
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(mode).open(&path).map_err(io(&path))?;
        std::io::Write::write_all(&mut file, bytes).map_err(io(&path))?;
    }
    let link = at.join("..data_tmp");
    let _ = fs::remove_file(&link);
    symlink(format!("..{number}"), &link).map_err(io(&link))?;
    fs::rename(&link, &data).map_err(io(&data))?;
    for name in files.keys() {
        let visible = at.join(name);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new("..data").join(name), &visible).map_err(io(&visible))?;
        }
    }
    for entry in fs::read_dir(at).map_err(io(at))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !files.contains_key(&name) {
            fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
        }
    }
    if let Some(old) = old {
        let old = at.join(old);
        fs::remove_dir_all(&old).map_err(io(&old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn files_change_all_at_once_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let files = |list: &[(&str, &str)]| -> BTreeMap<String, (Vec<u8>, u32)> {
            list.iter().map(|(n, t)| ((*n).to_owned(), (t.as_bytes().to_vec(), 0o640))).collect()
        };
        publish(dir.path(), &files(&[("a", "1"), ("b", "1")])).unwrap();
        let before = fs::read_link(dir.path().join("..data")).unwrap();
        publish(dir.path(), &files(&[("a", "1"), ("b", "1")])).unwrap();
        assert_eq!(fs::read_link(dir.path().join("..data")).unwrap(), before, "nothing new, nothing done");
        publish(dir.path(), &files(&[("a", "2"), ("c", "1")])).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "2");
        assert!(!dir.path().join("b").exists());
        assert_eq!(fs::metadata(dir.path().join("c")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "a, c, ..data and one directory");
    }
}
