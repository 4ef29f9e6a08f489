//! PostgreSQL's own `backup_manifest`, so that `pg_verifybackup` accepts what was restored.

use pgconvoy_terms::{Lsn, SystemId, TimelineId};
use sha2::{Digest, Sha256};
use std::{fmt::Write, path::PathBuf};

/// A file as it went into the snapshot.
#[derive(Debug, Clone)]
pub(super) struct FileSum {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) crc32c: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
}

/// Writes the manifest. Versions from 17 on want the system identifier.
pub(super) fn write(
    major: u32,
    system: SystemId,
    files: &[FileSum],
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
) -> String {
    let mut text = String::from("{ \"PostgreSQL-Backup-Manifest-Version\": ");
    text += if major >= 17 { "2,\n" } else { "1,\n" };
    if major >= 17 {
        let _ = writeln!(text, "\"System-Identifier\": {system},");
    }
    text += "\"Files\": [\n";
    let entries: Vec<String> = files.iter().map(entry).collect();
    text += &entries.join(",\n");
    text += "\n],\n\"WAL-Ranges\": [\n";
    let _ = writeln!(text, "{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}");
    text += "],\n";
    // The checksum covers everything before the line that holds it.
    let sum: String = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let _ = writeln!(text, "\"Manifest-Checksum\": \"{sum}\"}}");
    text
}

fn entry(file: &FileSum) -> String {
    let name = match file.path.to_str() {
        // JSON's own rules for a string.
        Some(path) => format!("\"Path\": {}", serde_json::Value::from(path)),
        None => {
            let bytes = std::os::unix::ffi::OsStrExt::as_bytes(file.path.as_os_str());
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("\"Encoded-Path\": \"{hex}\"")
        }
    };
    // PostgreSQL writes the four bytes as they lie in its memory.
    let sum: String = file.crc32c.to_le_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{{ {name}, \"Size\": {}, \"Last-Modified\": \"{}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{sum}\" }}",
        file.size,
        utc(file.modified)
    )
}

/// `2026-01-31 12:00:00 GMT`, as PostgreSQL writes it.
fn utc(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_by_the_replication_clients_reader() {
        let file = |path: &str| FileSum { path: path.into(), size: 3, crc32c: 0xE306_9283, modified: 1_700_000_000 };
        for (major, system) in [(15, None), (17, Some(SystemId(7)))] {
            let files = [file("base/1/2"), file("with \"quotes\"")];
            let text = write(major, SystemId(7), &files, TimelineId(3), Lsn(0x200_0028), Lsn(0x300_0000));
            let read = pgconvoy_wire::Manifest::parse(text.as_bytes()).unwrap();
            assert_eq!(read.system_id, system);
            assert_eq!(
                (read.files[0].crc32c, read.files[1].path.to_str()),
                (Some(0xE306_9283), Some("with \"quotes\""))
            );
            assert_eq!((read.wal_ranges[0].timeline, read.wal_ranges[0].start), (TimelineId(3), Lsn(0x200_0028)));
        }
        assert_eq!(utc(1_700_000_000), "2023-11-14 22:13:20 GMT");
    }
}
