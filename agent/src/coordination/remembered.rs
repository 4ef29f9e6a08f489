//! Small JSON files in the state directory: what was last known, for the time when the API is away.
//!
//! They are hints. One that cannot be read is forgotten with a line in the log.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// What the file holds; `None` when there is none, or it cannot be read.
pub(super) fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(why) => {
            tracing::warn!("{} cannot be read and is ignored: {why}", file.display());
            return None;
        }
    };
    let parsed = serde_json::from_slice::<Version>(&text).and_then(|v| {
        if v.version == VERSION {
            serde_json::from_slice::<Envelope<T>>(&text).map(|e| e.content)
        } else {
            Err(serde::de::Error::custom(format!("version {} is not known to this agent", v.version)))
        }
    });
    parsed.inspect_err(|why| tracing::warn!("{} cannot be read and is ignored: {why}", file.display())).ok()
}

/// Replaces the file. A crash leaves the old one or the new one, never a part.
pub(super) fn write<T: Serialize>(file: &Path, content: &T) -> io::Result<()> {
    let text = serde_json::to_vec(&Envelope { version: VERSION, content })?;
    let directory = file.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(directory)?;
    let temporary = file.with_extension("json.new");
    let mut out = File::create(&temporary)?;
    out.write_all(&text)?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    File::open(directory)?.sync_all()
}
