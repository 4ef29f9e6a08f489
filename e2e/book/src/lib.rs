//! The documents: what they link to, what stands in their blocks of code, and the book that mdBook makes of them.

#![forbid(unsafe_code)]

pub mod html;
pub mod outside;
pub mod pages;
pub mod tour;
pub mod yaml;

use std::path::{Component, Path, PathBuf};

/// Where the project's repository is read on the web.
pub const REPOSITORY: &str = "https://github.com/pgconvoy/pgconvoy";

/// The repository's root.
pub fn root() -> PathBuf {
    plain(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
}

/// Without `..`.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            // What leads out of the beginning stays visible.
            Component::ParentDir if !plain.pop() => plain.push(".."),
            Component::ParentDir | Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Whether a link leads somewhere else than to a file: it has a scheme.
pub fn is_external(link: &str) -> bool {
    link.split_once(':').is_some_and(|(scheme, _)| {
        scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// What is wrong with an external link, as far as that can be told without a network.
pub fn wrong_external(link: &str) -> Option<&'static str> {
    if link.strip_prefix("mailto:").is_some_and(|to| to.contains('@')) {
        return None;
    }
    let Some(rest) = link.strip_prefix("https://") else { return Some("is not https") };
    let host = rest.split(['/', '#', '?']).next().unwrap_or_default();
    if !host.contains('.') || !host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)) {
        return Some("has no host");
    }
    link.contains(|c: char| c.is_whitespace() || "<>\"{}|\\^`".contains(c))
        .then_some("has a character that no address has")
}
