//! PostgreSQL's backup manifest: what a backup should consist of.

use crate::error::Error;
use pgconvoy_terms::{Lsn, SystemId, TimelineId};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fmt,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// A file as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Path below the data directory.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its CRC32C; `None` where the backup was made without checksums.
    pub crc32c: Option<u32>,
}

/// A stretch of WAL that the backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// Its timeline.
    pub timeline: TimelineId,
    /// First byte.
    pub start: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
}

/// A manifest whose own checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster it was made of; PostgreSQL writes it since 17.
    pub system_id: Option<SystemId>,
    /// Every file but WAL segments.
    pub files: Vec<ManifestFile>,
    /// The WAL that is needed, one stretch for each timeline.
    pub wal_ranges: Vec<WalRange>,
}

/// One difference between a backup and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestProblem {
    /// A file did not come.
    Missing(PathBuf),
    /// A file came that is not in the manifest.
    Extra(PathBuf),
    /// A file has another size.
    Size {
        /// The file.
        path: PathBuf,
        /// The size in the manifest.
        expected: u64,
        /// The size that came.
        received: u64,
    },
    /// A file has other contents.
    Checksum(PathBuf),
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "{} is missing", path.display()),
            Self::Extra(path) => write!(f, "{} does not belong to it", path.display()),
            Self::Size { path, expected, received } => {
                write!(f, "{} has {received} bytes instead of {expected}", path.display())
            }
            Self::Checksum(path) => write!(f, "{} has a wrong checksum", path.display()),
        }
    }
}

/// A file that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) size: u64,
    pub(crate) crc32c: u32,
}

#[derive(Deserialize)]
struct RawManifest<'a> {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_id: Option<u64>,
    #[serde(rename = "Files", borrow)]
    files: Vec<RawFile<'a>>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<RawRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct RawFile<'a> {
    #[serde(rename = "Path")]
    path: Option<String>,
    /// Hexadecimal, for names that are not UTF-8.
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<&'a str>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<&'a str>,
    #[serde(rename = "Checksum")]
    checksum: Option<&'a str>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl Manifest {
    /// Reads a `backup_manifest` and checks its own checksum.
    ///
    /// # Errors
    /// [`Error::Manifest`] when it is damaged, of an unknown version, or uses other checksums than CRC32C.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bad = |what: &dyn fmt::Display| Error::Manifest(what.to_string());
        let sum = own_checksum(bytes).ok_or_else(|| bad(&"it is cut off"))?;
        let raw: RawManifest<'_> = serde_json::from_slice(bytes).map_err(|e| bad(&e))?;
        if !(1..=2).contains(&raw.version) {
            return Err(bad(&format_args!("its version is {}; 1 and 2 are known", raw.version)));
        }
        if hex(&raw.checksum).as_deref() != Some(&sum[..]) {
            return Err(bad(&"its own checksum does not fit: it was damaged on the way"));
        }
        let files = raw.files.into_iter().map(file).collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashSet::with_capacity(files.len());
        if let Some(twice) = files.iter().find(|f| !seen.insert(f.path.as_path())) {
            return Err(bad(&format_args!("{} stands in it twice", twice.path.display())));
        }
        let lsn = |text: &str| text.parse::<Lsn>().map_err(|e| bad(&e));
        let range = |r: RawRange| -> Result<WalRange, Error> {
            Ok(WalRange { timeline: TimelineId(r.timeline), start: lsn(&r.start)?, end: lsn(&r.end)? })
        };
        let wal_ranges = raw.wal_ranges.into_iter().map(range).collect::<Result<_, _>>()?;
        Ok(Self { system_id: raw.system_id.map(SystemId), files, wal_ranges })
    }

    /// Compares what came with what should have come. WAL segments are no part of a manifest: they carry checksums of
    /// their own, record by record.
    pub(crate) fn compare(&self, received: &HashMap<PathBuf, Received>) -> Vec<ManifestProblem> {
        let mut problems = Vec::new();
        for file in &self.files {
            match received.get(&file.path) {
                None => problems.push(ManifestProblem::Missing(file.path.clone())),
                Some(came) if came.size != file.size => problems.push(ManifestProblem::Size {
                    path: file.path.clone(),
                    expected: file.size,
                    received: came.size,
                }),
                Some(came) if file.crc32c.is_none_or(|crc| crc == came.crc32c) => {}
                Some(_) => problems.push(ManifestProblem::Checksum(file.path.clone())),
            }
        }
        let known: HashSet<&Path> = self.files.iter().map(|f| f.path.as_path()).collect();
        let extra = received.keys().filter(|path| !known.contains(path.as_path()) && !path.starts_with("pg_wal"));
        problems.extend(extra.cloned().map(ManifestProblem::Extra));
        problems
    }
}

/// The SHA-256 of everything up to the last line; `None` when there is no such line.
fn own_checksum(bytes: &[u8]) -> Option<[u8; 32]> {
    let body = bytes.strip_suffix(b"\n")?;
    let last_line = body.iter().rposition(|b| *b == b'\n')? + 1;
    Some(Sha256::digest(body.get(..last_line)?).into())
}

fn file(raw: RawFile<'_>) -> Result<ManifestFile, Error> {
    let path = match (raw.path, raw.encoded_path) {
        (Some(path), None) => PathBuf::from(path),
        (None, Some(encoded)) => {
            let bytes = hex(encoded).ok_or_else(|| Error::Manifest(format!("the path {encoded:?} is unreadable")))?;
            PathBuf::from(OsString::from_vec(bytes))
        }
        _ => return Err(Error::Manifest("a file has no path, or two".into())),
    };
    let crc32c = match (raw.algorithm, raw.checksum) {
        (None, None) => None,
        (Some("CRC32C"), Some(text)) => {
            // The server writes the four bytes as they lie in its memory, which is little-endian.
            let bytes = hex(text).and_then(|b| <[u8; 4]>::try_from(b).ok());
            let bytes = bytes.ok_or_else(|| Error::Manifest(format!("the checksum {text:?} is unreadable")))?;
            Some(u32::from_le_bytes(bytes))
        }
        (algorithm, _) => {
            return Err(Error::Manifest(format!("{}: checksums of kind {algorithm:?}", path.display())));
        }
    };
    Ok(ManifestFile { path, size: raw.size, crc32c })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(files: &str) -> Vec<u8> {
        let body = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7,\n\"Files\": [\n{files}\n],\n\
             \"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n"
        );
        let sum: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
        format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
    }

    const ONE: &str = r#"{ "Path": "base/1/2", "Size": 9, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "839206e3" }"#;

    #[test]
    fn a_manifest_is_read() {
        let m = Manifest::parse(&manifest(ONE)).unwrap();
        // CRC32C of "123456789" is e3069283.
        let file = ManifestFile { path: "base/1/2".into(), size: 9, crc32c: Some(0xe306_9283) };
        assert_eq!((m.files, m.system_id), (vec![file], Some(SystemId(7))));
        assert_eq!(m.wal_ranges[0].end, Lsn(0x200_0100));
        let encoded = r#"{ "Encoded-Path": "62ff", "Size": 0, "Last-Modified": "x" }"#;
        let m = Manifest::parse(&manifest(encoded)).unwrap();
        assert_eq!(m.files[0].path.as_os_str().as_encoded_bytes(), b"b\xff");
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let good = manifest(ONE);
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x01;
            assert!(Manifest::parse(&bad).is_err(), "byte {i} of {:?}", String::from_utf8_lossy(&bad));
        }
        for length in 0..good.len() {
            assert!(Manifest::parse(&good[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_file_named_twice_or_with_foreign_checksums_is_refused() {
        assert!(Manifest::parse(&manifest(&format!("{ONE},\n{ONE}"))).is_err());
        assert!(Manifest::parse(&manifest(&ONE.replace("CRC32C", "SHA256"))).is_err());
    }

    #[test]
    fn every_difference_is_found() {
        let m = Manifest::parse(&manifest(ONE)).unwrap();
        let came = |path: &str, size, crc32c| HashMap::from([(PathBuf::from(path), Received { size, crc32c })]);
        assert_eq!(m.compare(&came("base/1/2", 9, 0xe306_9283)), []);
        assert_eq!(m.compare(&came("base/1/2", 9, 1)), [ManifestProblem::Checksum("base/1/2".into())]);
        assert!(matches!(m.compare(&came("base/1/2", 8, 1))[..], [ManifestProblem::Size { expected: 9, .. }]));
        let mut two = came("base/1/2", 9, 0xe306_9283);
        two.insert("pg_wal/000000010000000000000001".into(), Received { size: 1, crc32c: 0 });
        assert_eq!(m.compare(&two), []);
        two.insert("base/1/3".into(), Received { size: 1, crc32c: 0 });
        assert_eq!(m.compare(&two), [ManifestProblem::Extra("base/1/3".into())]);
        assert_eq!(m.compare(&HashMap::new()), [ManifestProblem::Missing("base/1/2".into())]);
    }
}
