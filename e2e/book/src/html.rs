//! The book as it was built: every link in it leads somewhere.

use crate::{is_external, plain, wrong_external};
use anyhow::{Context as _, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One file of the book.
#[derive(Debug, Default)]
struct File {
    ids: BTreeSet<String>,
    links: Vec<String>,
}

/// How many links a book has, and what is wrong with some of them.
#[derive(Debug)]
pub struct Looked {
    /// Pages that were looked at.
    pub pages: usize,
    /// Links that were looked at.
    pub links: usize,
    /// A sentence for each that leads nowhere.
    pub wrong: Vec<String>,
}

/// Looks at every link of the book in `directory`.
pub fn check(directory: &Path) -> anyhow::Result<Looked> {
    let mut files = BTreeMap::new();
    read(directory, Path::new(""), &mut files)?;
    ensure!(files.contains_key(Path::new("index.html")), "there is no book in {}", directory.display());
    let mut looked = Looked { pages: files.len(), links: 0, wrong: vec![] };
    for (path, file) in &files {
        // It is served for any address, so its links are those of the book's root; nobody wrote it.
        if path == Path::new("404.html") {
            continue;
        }
        for link in &file.links {
            looked.links += 1;
            if let Some(why) = wrong(link, path, directory, &files) {
                looked.wrong.push(format!("{}: {link} {why}", path.display()));
            }
        }
    }
    Ok(looked)
}

fn wrong(link: &str, from: &Path, directory: &Path, files: &BTreeMap<PathBuf, File>) -> Option<&'static str> {
    if is_external(link) {
        return wrong_external(link);
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = match path {
        "" => from.to_owned(),
        path => plain(&from.parent().unwrap_or_else(|| Path::new("")).join(path)),
    };
    if target.starts_with("..") || target.is_absolute() {
        return Some("leads out of the book");
    }
    if !directory.join(&target).is_file() {
        return Some("leads to no file of the book");
    }
    let missing = |anchor: &str| !anchor.is_empty() && !files.get(&target).is_some_and(|f| f.ids.contains(anchor));
    anchor.is_some_and(missing).then_some("leads to a heading that is not there")
}

fn read(directory: &Path, below: &Path, files: &mut BTreeMap<PathBuf, File>) -> anyhow::Result<()> {
    let place = directory.join(below);
    for entry in std::fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read(directory, &path, files)?;
        } else if path.extension().is_some_and(|e| e == "html") {
            let text = std::fs::read_to_string(entry.path())?;
            let links = ["href", "src"].iter().flat_map(|name| attributes(&text, name)).collect();
            files.insert(path, File { ids: attributes(&text, "id").into_iter().collect(), links });
        }
    }
    Ok(())
}

/// The values of an attribute, of all elements. mdBook writes them in double quotes.
fn attributes(html: &str, name: &str) -> Vec<String> {
    let begins = format!(" {name}=\"");
    let values = html.split(&begins).skip(1).filter_map(|rest| rest.split_once('"'));
    values.map(|(value, _)| value.replace("&amp;", "&")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn a_dead_link_is_found() {
        let directory = std::env::temp_dir().join(format!("pgconvoy-book-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("a")).unwrap();
        let index = "<a href=\"a/b.html#here\">1</a><a href=\"a/b.html#there\">2</a><a href=\"a/c.html\">3</a>\
                     <a href=\"https://example.org/x\">4</a><a href=\"http://example.org\">5</a><a href=\"../x.md\">6</a>";
        std::fs::write(directory.join("index.html"), index).unwrap();
        std::fs::write(directory.join("a/b.html"), "<h1 id=\"here\"><a href=\"../index.html\"></h1>").unwrap();
        let looked = check(&directory);
        std::fs::remove_dir_all(&directory).unwrap();
        let looked = looked.unwrap();
        assert_eq!((looked.pages, looked.links), (2, 7));
        let expected = [
            "index.html: a/b.html#there leads to a heading that is not there",
            "index.html: a/c.html leads to no file of the book",
            "index.html: http://example.org is not https",
            "index.html: ../x.md leads out of the book",
        ];
        assert_eq!(looked.wrong, expected);
    }
}
