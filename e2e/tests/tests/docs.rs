//! The documents: what they link to is there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// One document: its headings' anchors, and where it links to.
#[derive(Debug, Default)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.insert(anchor(&heading.take().unwrap_or_default()));
                }
                Event::Start(Tag::Link { link_type, dest_url, .. }) if link_type != LinkType::Autolink => {
                    page.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Image { dest_url, .. }) => page.links.push(dest_url.to_string()),
                _ => {}
            }
        }
        page
    }
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn documents() -> BTreeMap<PathBuf, Page> {
    let root = pgconvoy_e2e::root();
    let listed = std::process::Command::new("git").arg("-C").arg(&root).args(["ls-files", "*.md"]).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let files = String::from_utf8(listed.stdout).unwrap();
    let read = |file: &str| (PathBuf::from(file), Page::read(&std::fs::read_to_string(root.join(file)).unwrap()));
    files.lines().map(read).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let (root, pages) = (pgconvoy_e2e::root(), documents());
    assert!(pages.len() > 10, "{pages:?}");
    let mut dead = vec![];
    let mut links = 0;
    for (file, page) in &pages {
        for link in page.links.iter().filter(|l| !l.contains("://") && !l.starts_with("mailto:")) {
            links += 1;
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(p, a)| (p, Some(a)));
            let target = match path {
                "" => file.clone(),
                path => plain(&file.parent().unwrap().join(path)),
            };
            let there = root.join(&target).exists();
            let right = anchor.is_none_or(|a| pages.get(&target).is_some_and(|p| p.anchors.contains(a)));
            if !(there && right) {
                dead.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(links > 50, "only {links} links were found");
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// What a condition or a message of the plugin calls a runbook is the title of one.
#[test]
fn runbooks_have_the_titles_by_which_messages_name_them() {
    let root = pgconvoy_e2e::root();
    let titles: BTreeSet<String> = std::fs::read_dir(root.join("docs/runbooks"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .filter_map(|text| text.lines().next().and_then(|l| l.strip_prefix("# ")).map(str::to_owned))
        .collect();
    let mut named = 0;
    for folder in ["agent", "operator", "plugin"] {
        let grep = ["-rhoE", "runbook: [^)\"{]+", "--include=*.rs"];
        let found = std::process::Command::new("grep").args(grep).arg(root.join(folder)).output().unwrap();
        for line in String::from_utf8(found.stdout).unwrap().lines() {
            let title = line.trim_start_matches("runbook: ").trim().trim_end_matches('\\').trim();
            assert!(titles.contains(title), "{folder} names a runbook {title:?}; there are {titles:?}");
            named += 1;
        }
    }
    assert!(named > 0, "no message names a runbook");
}
