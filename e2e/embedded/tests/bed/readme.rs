//! What the README shows of the tour, compared with what the tour says: the same lines in the same order, whatever their numbers.

use std::path::Path;

/// A line without what is another each time: numbers, positions in the log, keys of the bucket, and how wide a column is.
fn form(line: &str) -> String {
    let word = |word: &str| {
        if word.ends_with(".zst") {
            return "KEY".to_owned();
        }
        let position =
            |(a, b): (&str, &str)| [a, b].iter().all(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_hexdigit()));
        if word.split_once('/').is_some_and(position) {
            return "LSN".to_owned();
        }
        if word.starts_with("--") {
            return "--".to_owned();
        }
        let mut form = String::new();
        for c in word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }) {
            if !(c == '#' && form.ends_with('#')) {
                form.push(c);
            }
        }
        form.replace("#.#", "#")
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// The first line of the README's tour that does not come in what the tour said, in this order.
pub(crate) fn missing(root: &Path, said: &str) -> Option<String> {
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let block = readme.split_once("<!-- tour: ").and_then(|(_, rest)| rest.split_once("```\n")).unwrap().1;
    let shown = block.split_once("```").unwrap().0;
    assert!(shown.lines().count() > 20, "the README shows no tour:\n{shown}");
    let mut said = said.lines().map(form);
    let mut alike = |line: &str| {
        let wanted = form(line);
        // Who leads next is not the README's to say.
        let next = wanted.contains(" leads epoch # now, and ");
        said.any(|s| s == wanted || (next && s.starts_with("It was back so soon that it leads epoch #")))
    };
    shown.lines().filter(|l| !l.is_empty()).find(|l| !alike(l)).map(str::to_owned)
}

#[test]
fn numbers_do_not_matter_and_words_do() {
    assert_eq!(form("  Ready 3/3 after 12.6 s."), form("  Ready 3/3 after 6 s."));
    assert_eq!(form("up to 0/5000000 so far, after 3.1 s"), form("up to 0/50A0000 so far, after 13 s"));
    assert_ne!(form("quickstart-2 came back"), form("quickstart-2 went away"));
}

#[test]
fn what_the_tour_no_longer_says_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let recording = std::fs::read_to_string(root.join("docs/pictures/quickstart.txt")).unwrap();
    let said: String = recording.lines().filter_map(|l| Some(format!("{}\n", l.split_once('\t')?.1))).collect();
    assert_eq!(missing(&root, &said), None);
    let other = said.replace("A follower takes no writes:", "Followers take no writes:");
    assert_eq!(missing(&root, &other).as_deref(), Some("  A follower takes no writes:"));
}
