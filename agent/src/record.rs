//! The member's record on its volume: what it promised and what it acted on last (PROTOCOL: "Member, on its volume").
//!
//! One line of header (`pgconvoy-record`, format version, CRC32C of the rest), then JSON. Written to a temporary file,
//! fsynced, renamed, and the directory fsynced: a promise is on disk before it is spoken.

use pgconvoy_crds::PgTermSpec;
use pgconvoy_ha::{Record, Unattached};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FILE: &str = "record";
const MAGIC: &str = "pgconvoy-record";
const VERSION: u32 = 1;

/// Why the record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk refuses.
    #[error("the member's record {path} cannot be {deed}: {why}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// `read` or `written`.
        deed: &'static str,
        /// What the kernel says.
        why: io::Error,
    },
    /// It is there but is not what was written.
    #[error(
        "the member's record {path} is damaged ({why}): what this member promised is not known, so it takes part in \
         nothing; delete the member's volume claim to have its data copied anew"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    set_uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incarnation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    making: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promised: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    led: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unattached: Vec<StoredUnattached>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<PgTermSpec>,
}

#[derive(Serialize, Deserialize)]
struct StoredUnattached {
    incarnation: String,
    epoch: String,
}

/// Reads the record in `state`; an empty one where there is no file yet.
///
/// # Errors
/// When it cannot be read, is damaged, or is of a newer format.
pub fn read(state: &Path) -> Result<Record, RecordError> {
    let path = state.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(why) => return Err(RecordError::Disk { path, deed: "read", why }),
    };
    parse(&text).map_err(|why| RecordError::Damaged { path, why })
}

/// Whether the record in `state`, if there is one, was written for another set than this: its data was kept, and is adopted.
pub fn of_another_set(state: &Path, set_uid: &str) -> bool {
    let text = fs::read_to_string(state.join(FILE)).unwrap_or_default();
    let stored = text.split_once('\n').and_then(|(_, body)| serde_json::from_str::<Stored>(body).ok());
    stored.is_some_and(|s| s.set_uid != set_uid)
}

fn parse(text: &str) -> Result<Record, String> {
    let (header, body) = text.split_once('\n').ok_or("it has no header")?;
    let fields: Vec<_> = header.split(' ').collect();
    let [magic, version, sum] = fields[..] else { return Err("its header is not one".to_owned()) };
    if magic != MAGIC {
        return Err("it is some other file".to_owned());
    }
    if version != VERSION.to_string() {
        return Err(format!("it has format {version}, this agent knows {VERSION}"));
    }
    if sum != checksum(body) {
        return Err("its checksum does not fit".to_owned());
    }
    let stored: Stored = serde_json::from_str(body).map_err(|e| e.to_string())?;
    fn field<T: std::str::FromStr<Err = pgconvoy_terms::Malformed>>(text: Option<String>) -> Result<Option<T>, String> {
        text.map(|t| t.parse::<T>().map_err(|e| e.to_string())).transpose()
    }
    let former = stored.former.iter().map(|name| name.parse()).collect::<Result<_, _>>();
    let note = |u: &StoredUnattached| Ok(Unattached { incarnation: u.incarnation.parse()?, epoch: u.epoch.parse()? });
    let unattached = stored.unattached.iter().map(note).collect::<Result<_, _>>();
    let malformed = |e: pgconvoy_terms::Malformed| e.to_string();
    let head = match stored.head {
        Some(head) => head.read().map_err(|e| e.to_string())?,
        None => None,
    };
    Ok(Record {
        incarnation: field(stored.incarnation)?,
        making: field(stored.making)?,
        promised: field(stored.promised)?,
        led: field(stored.led)?,
        former: former.map_err(malformed)?,
        unattached: unattached.map_err(malformed)?,
        head,
    })
}

/// Puts the record in place; it is on disk when this returns.
///
/// # Errors
/// When the disk refuses. What holds then is not known: the agent must end itself.
pub fn write(state: &Path, set_uid: &str, record: &Record) -> Result<(), RecordError> {
    let path = state.join(FILE);
    let result = (|| {
        let text = |t: &Option<_>| t.as_ref().map(ToString::to_string);
        let body = serde_json::to_string(&Stored {
            set_uid: set_uid.to_owned(),
            incarnation: record.incarnation.as_ref().map(ToString::to_string),
            making: record.making.as_ref().map(ToString::to_string),
            promised: text(&record.promised),
            led: text(&record.led),
            former: record.former.iter().map(ToString::to_string).collect(),
            unattached: record
                .unattached
                .iter()
                .map(|u| StoredUnattached { incarnation: u.incarnation.to_string(), epoch: u.epoch.to_string() })
                .collect(),
            head: record.head.as_ref().map(|t| PgTermSpec::write(set_uid, t)),
        })?;
        let temporary = state.join(format!("{FILE}.new"));
        let mut file = File::create(&temporary)?;
        write!(file, "{MAGIC} {VERSION} {}\n{body}", checksum(&body))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(state)?.sync_all()
    })();
    result.map_err(|why| RecordError::Disk { path, deed: "written", why })
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::{ChangeId, Epoch, Incarnation, Phase, Term};

    fn record() -> Record {
        let epoch = Epoch { number: 3, id: ChangeId::from_random(7) };
        Record {
            incarnation: Some(Incarnation::from_random(1)),
            making: Some(Incarnation::from_random(2)),
            promised: Some(epoch.clone()),
            led: Some(epoch.clone()),
            former: vec![Incarnation::from_random(3), Incarnation::from_random(4)],
            unattached: vec![Unattached { incarnation: Incarnation::from_random(3), epoch: epoch.clone() }],
            head: Some(Term {
                epoch: epoch.clone(),
                phase: Phase::Recruiting,
                leader: None,
                rules: vec![],
                lossy: false,
                history: vec![],
                chain: vec![epoch.id],
            }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read(state.path()).unwrap(), Record::default());
        write(state.path(), "uid", &record()).unwrap();
        assert_eq!(read(state.path()).unwrap(), record());
    }

    #[test]
    fn whose_record_it_is_is_known() {
        let state = tempfile::tempdir().unwrap();
        assert!(!of_another_set(state.path(), "uid"));
        write(state.path(), "uid", &record()).unwrap();
        assert!(!of_another_set(state.path(), "uid") && of_another_set(state.path(), "later"));
    }

    #[test]
    fn a_torn_record_is_told_from_none() {
        let state = tempfile::tempdir().unwrap();
        write(state.path(), "uid", &record()).unwrap();
        let path = state.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for damage in [&whole[..whole.len() - 1], &whole[..20], b"", b"something else\n{}"] {
            fs::write(&path, damage).unwrap();
            assert!(matches!(read(state.path()), Err(RecordError::Damaged { .. })), "{damage:?}");
        }
    }

    /// A record as version 1 writes it; newer agents must go on reading it.
    #[test]
    fn an_old_record_is_still_read() {
        let body = r#"{"setUid":"u","incarnation":"baaaaaaaaa","promised":"3.haaaaaaaaaaaa"}"#;
        let text = format!("pgconvoy-record 1 {}\n{body}", checksum(body));
        let read = parse(&text).unwrap();
        assert_eq!(read.incarnation, Some(Incarnation::from_random(1)));
        assert_eq!(read.promised.unwrap().number, 3);
        assert!(read.unattached.is_empty() && read.former.is_empty(), "nothing is known of where it did not follow");
    }
}
