//! The documents: what they link to is there, the book has all of them, and runbooks have the names by which they are called.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_book::pages::{Page, documents};
use pgconvoy_book::{REPOSITORY, is_external, plain, root, wrong_external};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_link_leads_somewhere() {
    let (root, pages) = (root(), documents(&root()).unwrap());
    assert!(pages.len() > 10, "{pages:?}");
    let mut dead = vec![];
    let mut links = 0;
    for (file, page) in &pages {
        for link in &page.links {
            links += 1;
            // The repository on the web is this one.
            let here = link.strip_prefix(&format!("{REPOSITORY}/blob/main/")).map(|rest| format!("/{rest}"));
            let wrong = match &here {
                None if is_external(link) => wrong_external(link),
                _ => {
                    let link = here.as_deref().unwrap_or(link);
                    let (path, anchor) = link.split_once('#').map_or((link, None), |(p, a)| (p, Some(a)));
                    let target = match path.strip_prefix('/') {
                        Some(path) => PathBuf::from(path),
                        None if path.is_empty() => file.clone(),
                        None => plain(&file.parent().unwrap().join(path)),
                    };
                    let there = root.join(&target).exists();
                    let right = anchor.is_none_or(|a| pages.get(&target).is_some_and(|p| p.anchors.contains(a)));
                    (!(there && right)).then_some("is dead")
                }
            };
            if let Some(why) = wrong {
                dead.push(format!("{}: {link} {why}", file.display()));
            }
        }
    }
    assert!(links > 50, "only {links} links were found");
    assert!(dead.is_empty(), "wrong links:\n{}", dead.join("\n"));
}

/// What is not in SUMMARY.md, mdBook leaves out.
#[test]
fn the_book_has_every_page() {
    let pages = documents(&root()).unwrap();
    let summary = Page::read(&std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap());
    let listed: BTreeSet<PathBuf> = summary.links.iter().map(|l| Path::new("docs").join(l)).collect();
    assert_eq!(listed.len(), summary.links.len(), "a page is listed twice");
    let written: BTreeSet<PathBuf> =
        pages.into_keys().filter(|p| p.starts_with("docs") && !p.ends_with("SUMMARY.md")).collect();
    assert_eq!(listed, written, "docs/SUMMARY.md lists the left ones, the right ones are there");
}

/// What a condition or a message of the plugin calls a runbook is the title of one.
#[test]
fn runbooks_have_the_titles_by_which_messages_name_them() {
    let root = root();
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

/// Files and folders that a page names, as code, are there.
#[test]
fn files_that_are_named_are_there() {
    let folders =
        ["agent/", "charts/", "crds/", "deploy/", "docs/", "e2e/", "examples/", "images/", "operator/", "plugin/"];
    let (root, mut named, mut missing) = (root(), 0, vec![]);
    for (file, page) in documents(&root).unwrap() {
        let paths = page.words.iter().filter(|w| folders.iter().any(|f| w.starts_with(f)));
        for path in paths.filter(|p| p.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))) {
            named += 1;
            if !root.join(path).exists() {
                missing.push(format!("{}: {path}", file.display()));
            }
        }
    }
    assert!(named > 30, "only {named} files are named");
    assert!(missing.is_empty(), "files that are not there:\n{}", missing.join("\n"));
}

/// Each runbook says how we know, and the tests that it names are there.
#[test]
fn runbooks_name_tests_that_are_there() {
    let root = root();
    for entry in std::fs::read_dir(root.join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, known) =
            text.split_once("\n## How we know\n").unwrap_or_else(|| panic!("{}: how do we know?", path.display()));
        let tests: Vec<_> =
            known.split('`').skip(1).step_by(2).filter(|w| w.matches('_').count() > 2 && !w.contains('/')).collect();
        assert!(!tests.is_empty(), "{} names no test", path.display());
        for test in tests {
            let grep = ["-rqE", &format!("fn {test}\\("), "--include=*.rs", "e2e", "agent", "operator"];
            let found = std::process::Command::new("grep").args(grep).current_dir(&root).status().unwrap();
            assert!(found.success(), "{}: there is no test {test}", path.display());
        }
    }
}
