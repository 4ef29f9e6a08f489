//! The page on troubleshooting knows every reason that the code gives, and none besides.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_book::root;
use std::collections::BTreeSet;

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The values of the constants in the module `reasons` of a file.
fn constants(file: &str) -> BTreeSet<String> {
    let text = read(file);
    let module = text.split_once("pub mod reasons {").unwrap().1.split_once("\n}").unwrap().0;
    let values = module.lines().filter(|l| l.trim_start().starts_with("pub const ")).map(|l| {
        let value = l.split('"').nth(1).unwrap_or_else(|| panic!("not understood: {l}"));
        value.to_owned()
    });
    values.collect()
}

/// What stands as code in the first cells of the tables below these headings of the page.
fn told(page: &str, headings: &[&str]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for heading in headings {
        let section = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}")).1;
        let section = section.split("\n## ").next().unwrap();
        for row in section.lines().filter(|l| l.starts_with("| `")) {
            let first = row.split('|').nth(1).unwrap();
            words.extend(first.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    words
}

#[test]
fn every_reason_of_a_condition_is_on_the_page() {
    let page = read("docs/troubleshooting.md");
    let sets = constants("crds/src/conditions.rs");
    assert!(sets.len() > 40 && sets.contains("CopiesLost"), "{sets:?}");
    assert_eq!(told(&page, &["Ready, Reconciling, Stalled", "Configured", "Archiving"]), sets);
    let schedules = constants("operator/src/schedules/status.rs");
    assert!(schedules.len() >= 8, "{schedules:?}");
    assert_eq!(told(&page, &["A schedule that is not Ready"]), schedules);
}

/// Words in CamelCase that stand behind `warn(About::…,`, `tell(`, `alarm(`, `deed(`, `warning(` in a file.
fn events(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for call in ["warn(", "tell(", "alarm(", "deed(", "warning("] {
        for rest in text.split(call).skip(1) {
            let rest = rest.trim_start();
            let rest = match rest.strip_prefix("About::") {
                Some(about) => about.split_once(',').unwrap_or_default().1.trim_start(),
                None => rest,
            };
            let word = rest.strip_prefix('"').and_then(|r| r.split_once('"')).unwrap_or_default().0;
            if word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphabetic()) {
                words.insert(word.to_owned());
            }
        }
    }
    words
}

#[test]
fn every_event_is_on_the_page() {
    let grep =
        ["-rlE", r"(warn|tell|alarm|deed|warning)\(", "--include=*.rs", "agent/src", "agent/ha/src", "operator/src"];
    let found = std::process::Command::new("grep").args(grep).current_dir(root()).output().unwrap();
    let mut said = BTreeSet::new();
    for file in String::from_utf8(found.stdout).unwrap().lines().filter(|f| !f.contains("test")) {
        // Tests stand at the end of a file.
        said.extend(events(read(file).split("#[cfg(test)]").next().unwrap()));
    }
    assert!(said.len() > 15, "{said:?}");
    let conditions = constants("crds/src/conditions.rs");
    let page = told(&read("docs/troubleshooting.md"), &["Events"]);
    let missing: Vec<_> = said.iter().filter(|e| !conditions.contains(*e) && !page.contains(*e)).collect();
    assert!(missing.is_empty(), "Events that the page does not know: {missing:?}");
}
