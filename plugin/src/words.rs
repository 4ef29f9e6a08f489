//! Small words: ages, sizes, lists, and text that is safe to print.

use jiff::Timestamp;

/// How long ago, in the one unit that matters: `45s`, `12m`, `3h`, `2d`.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    // A clock of the cluster may be ahead of this one.
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes for people: `0 B`, `1.5 MiB`, `20 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut unit = 0_u32;
    while unit < 4 && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB"].get(unit as usize).copied().unwrap_or("B");
    let whole = bytes >> (10 * unit);
    if unit == 0 || whole >= 10 {
        return format!("{whole} {name}");
    }
    let tenths = ((bytes >> (10 * (unit - 1))) & 1023) * 10 / 1024;
    format!("{whole}.{tenths} {name}")
}

/// Text without control characters: what comes from pods and databases must not steer the terminal.
pub(crate) fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push(c),
            '\n' | '\r' => safe.push(' '),
            c if c.is_control() => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// Lines with columns under each other. Columns are two spaces apart, the last one is not padded.
pub(crate) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_one_unit() {
        let sizes: Vec<_> = [0, 1023, 1024, 1536, 10 << 20, (9 << 30) + (1 << 29), u64::MAX].map(size).into();
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 MiB", "9.5 GiB", "16777215 TiB"]);
        let at = |s: i64| Timestamp::from_second(1_000_000 + s).unwrap();
        let ages: Vec<_> = [-5, 119, 120, 7200, 172_800].map(|s| age(at(s), at(0))).into();
        assert_eq!(ages, ["0s", "119s", "2m", "2h", "2d"]);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\td\u{9b}"), "a\\u{1b}[31mb c\td\\u{9b}");
    }
}
