//! Lines, words, fields, percent-encoding.

use std::fmt;

/// Why a line is not one of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than the protocol allows.
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// Holds a byte that is not printable ASCII, or two spaces in a row.
    Characters,
    /// Begins with a word that this version does not know.
    Verb(String),
    /// Lacks a field.
    Missing(&'static str),
    /// Has a field twice that may be there once.
    Twice(&'static str),
    /// Has a field or word that this version does not know.
    Surplus(String),
    /// A field holds what it cannot hold.
    Value {
        /// The field.
        field: &'static str,
        /// What it should hold.
        wanted: &'static str,
        /// The beginning of what it holds.
        got: String,
    },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { what, limit } => write!(f, "{what} is longer than {limit} bytes"),
            Self::Characters => {
                f.write_str("a line consists of printable ASCII words with one space between them, other bytes as %XX")
            }
            Self::Verb(verb) => write!(f, "{verb:?} is not known to protocol version {}", super::VERSION),
            Self::Missing(field) => write!(f, "the field {field} is missing"),
            Self::Twice(field) => write!(f, "the field {field} is there twice"),
            Self::Surplus(word) => write!(f, "{word:?} does not belong to this line"),
            Self::Value { field, wanted, got } => write!(f, "{field} must be {wanted}, got {got:?}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Shows the beginning of what came; it may be long.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

pub(super) fn value(field: &'static str, wanted: &'static str, got: &str) -> Malformed {
    Malformed::Value { field, wanted, got: excerpt(got) }
}

/// Appends `bytes` percent-encoded.
pub(super) fn encode(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        if unreserved(b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
}

/// How many characters `b` takes when it is encoded.
pub(super) fn encoded_length(b: u8) -> usize {
    if unreserved(b) { 1 } else { 3 }
}

fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Appends ` name=value`.
pub(super) fn field(out: &mut String, name: &str, bytes: &[u8]) {
    out.push(' ');
    out.push_str(name);
    out.push('=');
    encode(out, bytes);
}

pub(super) fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, Malformed> {
    let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let (high, low) = (digit(bytes.next()), digit(bytes.next()));
        match (high, low) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err(value(field, "percent-encoded (%XX)", text)),
        }
    }
    Ok(out)
}

/// Decodes a text for people.
pub(super) fn decode_text(field: &'static str, text: &str) -> Result<String, Malformed> {
    String::from_utf8(decode(field, text)?).map_err(|_| value(field, "UTF-8", text))
}

/// Decodes an id or an epoch: 1 to 128 bytes without control characters, and not `-`, which stands for "none".
pub(super) fn decode_name(field: &'static str, text: &str) -> Result<String, Malformed> {
    let name = decode_text(field, text)?;
    if name.is_empty() || name.len() > super::MAX_NAME || name == "-" || name.chars().any(char::is_control) {
        return Err(value(field, "1 to 128 bytes of text other than \"-\"", text));
    }
    Ok(name)
}

pub(super) fn number<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, Malformed> {
    // `parse` alone would take a leading plus sign.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(value(field, "a number", text));
    }
    text.parse().map_err(|_| value(field, "a number in range", text))
}

/// The words of one line after its verb.
pub(super) struct Words<'a> {
    words: std::str::Split<'a, char>,
}

impl<'a> Words<'a> {
    /// Checks the line's bytes and splits off its first word.
    pub(super) fn of(line: &'a [u8]) -> Result<(&'a str, Self), Malformed> {
        let printable = line.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
        let text = std::str::from_utf8(line).map_err(|_| Malformed::Characters)?;
        if !printable || text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
            return Err(Malformed::Characters);
        }
        let mut words = text.split(' ');
        let verb = words.next().unwrap_or_default();
        Ok((verb, Self { words }))
    }

    pub(super) fn word(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        self.words.next().ok_or(Malformed::Missing(what))
    }

    /// Nothing may follow.
    pub(super) fn end<T>(mut self, value: T) -> Result<T, Malformed> {
        match self.words.next() {
            None => Ok(value),
            Some(word) => Err(Malformed::Surplus(excerpt(word))),
        }
    }

    /// The rest as fields, of which only `known` may occur.
    pub(super) fn fields(self, known: &[&'static str]) -> Result<Fields<'a>, Malformed> {
        let mut list = Vec::new();
        for word in self.words {
            match word.split_once('=') {
                Some((name, value)) if known.contains(&name) => list.push((name, value)),
                _ => return Err(Malformed::Surplus(excerpt(word))),
            }
        }
        Ok(Fields { list })
    }

    /// The rest as fields, whatever their names.
    pub(super) fn any_fields(self) -> Fields<'a> {
        Fields { list: self.words.filter_map(|word| word.split_once('=')).collect() }
    }
}

/// The fields of one line, in order.
pub(super) struct Fields<'a> {
    list: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    pub(super) fn many(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.list.iter().filter(move |(n, _)| *n == name).map(|(_, v)| *v)
    }

    pub(super) fn maybe(&self, name: &'static str) -> Result<Option<&'a str>, Malformed> {
        let mut all = self.many(name);
        let first = all.next();
        if all.next().is_some() {
            return Err(Malformed::Twice(name));
        }
        Ok(first)
    }

    pub(super) fn one(&self, name: &'static str) -> Result<&'a str, Malformed> {
        self.maybe(name)?.ok_or(Malformed::Missing(name))
    }
}

/// `-` is none; everything else is read by `read`.
pub(super) fn optional<T>(text: &str, read: impl FnOnce(&str) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
    if text == "-" { Ok(None) } else { read(text).map(Some) }
}
