//! What is promised is shown by tests, and those that the pages name are there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_book::root;
use std::collections::{BTreeMap, BTreeSet};

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The names of all tests in the repository: functions below an attribute that says so.
fn tests() -> BTreeSet<String> {
    let grep = ["-rhE", "-A6", r"^ *#\[(tokio::)?test", "--include=*.rs", "--exclude-dir=target", "."];
    let found = std::process::Command::new("grep").args(grep).current_dir(root()).output().unwrap();
    let lines = String::from_utf8(found.stdout).unwrap();
    let after = |line: &str| line.split_once("fn ").map(|(_, rest)| rest.split('(').next().unwrap().to_owned());
    lines.lines().filter_map(after).collect()
}

/// What no test shows yet, and the page says so.
const NOT_YET: [&str; 1] = ["L2"];

/// Words of code that can only be the name of a test: small letters and at least two lines below them.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split('`').skip(1).step_by(2);
    let small = |w: &str| w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    words.filter(|w| small(w) && w.matches('_').count() >= 2).map(str::to_owned).collect()
}

#[test]
fn every_promise_names_tests_that_are_there() {
    let (page, tests) = (read("docs/failover.md"), tests());
    assert!(tests.len() > 500, "{}", tests.len());
    let (_, section) = page.split_once("\n## What is promised\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|l| l.strip_prefix("| "));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    let mut shown: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for cells in cells.filter(|c| c[0].len() < 4 && c[0].starts_with(['S', 'L'])) {
        shown.entry(cells[0]).or_default().extend(named(cells.last().unwrap()));
    }
    let promises: Vec<String> = (1..=11).map(|n| format!("S{n}")).chain((1..=4).map(|n| format!("L{n}"))).collect();
    for promise in &promises {
        let names = shown.get(promise.as_str()).unwrap_or_else(|| panic!("{promise} is not on the page"));
        assert_eq!(names.is_empty(), NOT_YET.contains(&promise.as_str()), "{promise} names {names:?}");
        let gone: Vec<_> = names.difference(&tests).collect();
        assert!(gone.is_empty(), "{promise} names what is no test: {gone:?}");
    }
}
