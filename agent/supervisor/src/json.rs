//! JSON objects of a log, as text: no reader, no tree, one line.

use std::{fmt::Write as _, time::Duration};

/// A line that is being written: `{"timestamp":…`, then what is added.
pub(crate) struct Line(String);

impl Line {
    /// Begins a line with its time, counted from 1970.
    pub(crate) fn at(since: Duration) -> Self {
        let mut text = String::with_capacity(256);
        text.push_str("{\"timestamp\":");
        quote(&mut text, &timestamp(since));
        Self(text)
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        quote(&mut self.0, value);
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{value}");
    }

    /// The whole line, with its end.
    pub(crate) fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    fn key(&mut self, key: &str) {
        self.0.push(',');
        quote(&mut self.0, key);
        self.0.push(':');
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// RFC 3339 in UTC. Days to date after Howard Hinnant's `civil_from_days`.
fn timestamp(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        let at = |s: u64, ms: u64| timestamp(Duration::from_millis(s * 1000 + ms));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_826_154, 7), "2000-02-29T12:09:14.007Z");
        assert_eq!(at(1_735_689_599, 999), "2024-12-31T23:59:59.999Z");
        assert_eq!(at(1_740_787_200, 0), "2025-03-01T00:00:00.000Z");
    }

    #[test]
    fn quotes() {
        let mut line = Line::at(Duration::ZERO);
        line.text("a", "a\"b\\c\nd\t\u{1}é");
        line.number("n", 7);
        let end = "\"a\":\"a\\\"b\\\\c\\nd\\t\\u0001é\",\"n\":7}\n";
        assert_eq!(line.end(), format!("{{\"timestamp\":\"1970-01-01T00:00:00.000Z\",{end}"));
    }
}
