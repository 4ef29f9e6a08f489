//! One message of PostgreSQL: what belongs to it, and its JSON.

use super::head::Head;
use crate::json::Line;
use std::time::Duration;

/// Most bytes of one message, all its parts together. What is beyond is counted, not kept.
pub(crate) const LIMIT: usize = 64 * 1024;

/// PostgreSQL's words for how bad it is, with the agent's.
const SEVERITIES: [(&str, &str); 8] = [
    ("DEBUG", "DEBUG"),
    ("LOG", "INFO"),
    ("INFO", "INFO"),
    ("NOTICE", "INFO"),
    ("WARNING", "WARN"),
    ("ERROR", "ERROR"),
    ("FATAL", "ERROR"),
    ("PANIC", "ERROR"),
];

/// Lines that continue a message, with the key that PostgreSQL's own JSON log has for them.
const PARTS: [(&str, &str); 7] = [
    ("DETAIL", "detail"),
    ("HINT", "hint"),
    ("QUERY", "internal_query"),
    ("CONTEXT", "context"),
    ("LOCATION", "location"),
    ("BACKTRACE", "backtrace"),
    ("STATEMENT", "statement"),
];

/// The word before `:  `, and what follows; none if that is not how the text begins.
fn labelled(text: &[u8]) -> Option<(&str, &[u8])> {
    // Words of other languages are no longer than this either.
    let place = text.iter().take(40).position(|b| *b == b':')?;
    let word = std::str::from_utf8(text.get(..place)?).ok().filter(|w| !w.is_empty() && !w.contains([' ', '\t']))?;
    Some((word, text.get(place..)?.strip_prefix(b":  ")?))
}

/// The severity that a text begins with, in PostgreSQL's word and the agent's.
pub(crate) fn severity(text: &[u8]) -> Option<(&'static str, &'static str)> {
    let (word, _) = labelled(text)?;
    SEVERITIES.into_iter().find(|(own, _)| *own == word)
}

/// The part that a text is, and what it says.
pub(crate) fn part(text: &[u8]) -> Option<(&'static str, &[u8])> {
    let (word, rest) = labelled(text)?;
    PARTS.iter().find(|(label, _)| *label == word).map(|(_, key)| (*key, rest))
}

/// A message, as far as it has come.
#[derive(Debug)]
pub(crate) struct Message {
    head: Head,
    /// When it came.
    came: Duration,
    level: Option<&'static str>,
    severity: String,
    /// Key and text; the first is the message itself.
    parts: Vec<(&'static str, Vec<u8>)>,
    kept: usize,
    cut: u64,
}

impl Message {
    /// Begins one with the text of its first line.
    pub(crate) fn begin(head: Head, text: &[u8], came: Duration) -> Self {
        let (level, word, rest) = match (severity(text), labelled(text)) {
            (Some((own, level)), Some((_, rest))) => (Some(level), own, rest),
            // In another language (`lc_messages`): the word is kept, its meaning is not guessed.
            (None, Some((word, rest))) if !head.state_code.is_empty() => (None, word, rest),
            _ => (None, "", text),
        };
        let verbose = format!("{}: ", head.state_code);
        // With log_error_verbosity = verbose the code stands there again.
        let rest = rest.strip_prefix(verbose.as_bytes()).filter(|_| verbose.len() > 2).unwrap_or(rest);
        let mut message = Self { came, level, severity: word.to_owned(), parts: Vec::new(), kept: 0, cut: 0, head };
        message.add("message", rest);
        message
    }

    /// Whether a line with this head belongs to it.
    pub(crate) fn is_of(&self, head: &Head) -> bool {
        self.head == *head
    }

    /// A further part begins.
    pub(crate) fn add(&mut self, key: &'static str, text: &[u8]) {
        self.parts.push((key, Vec::new()));
        self.append(text);
    }

    /// The last part has another line.
    pub(crate) fn line(&mut self, text: &[u8]) {
        self.append(b"\n");
        self.append(text);
    }

    /// So many bytes of it were not kept.
    pub(crate) fn cut(&mut self, bytes: u64) {
        self.cut += bytes;
    }

    fn append(&mut self, text: &[u8]) {
        let fits = text.len().min(LIMIT.saturating_sub(self.kept));
        self.kept += fits;
        self.cut += (text.len() - fits) as u64;
        if let Some((_, part)) = self.parts.last_mut() {
            part.extend_from_slice(&text[..fits]);
        }
    }

    /// As a line of JSON, with the time when it came if it does not say its own.
    pub(crate) fn json(&self) -> String {
        let head = &self.head;
        let mut line = Line::at(head.at.unwrap_or(self.came));
        if let Some(level) = self.level {
            line.text("level", level);
        }
        let mut parts = self.parts.iter().map(|(key, text)| (*key, String::from_utf8_lossy(text)));
        if let Some((key, text)) = parts.next() {
            line.text(key, &text);
        }
        line.text("target", "postgres");
        for (key, value) in [("error_severity", &self.severity), ("state_code", &head.state_code)] {
            if !value.is_empty() {
                line.text(key, value);
            }
        }
        line.number("pid", head.pid);
        for (key, value) in [
            ("backend_type", &head.backend_type),
            ("remote_host", &head.remote_host),
            ("user", &head.user),
            ("dbname", &head.dbname),
            ("application_name", &head.application_name),
        ] {
            if !value.is_empty() {
                line.text(key, value);
            }
        }
        parts.for_each(|(key, text)| line.text(key, &text));
        if self.cut > 0 {
            line.number("cut_bytes", self.cut);
        }
        line.end()
    }
}

/// A line that is nobody's message, as JSON: what it says, and no level.
pub(crate) fn plain(text: &[u8], cut: u64, now: Duration) -> String {
    let mut line = Line::at(now);
    line.text("message", &String::from_utf8_lossy(text));
    line.text("target", "postgres");
    if cut > 0 {
        line.number("cut_bytes", cut);
    }
    line.end()
}
