//! What a member does when something happens to it, in words: the tables of docs/failover.md are what the real core does in one
//! representative case each, and nothing that can happen is missing in them.
//!
//! `PGCONVOY_UPDATE=1 cargo test -p pgconvoy-ha --test table` writes them anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

#[path = "table/bench.rs"]
mod bench;
#[path = "table/cases.rs"]
mod cases;
#[path = "table/states.rs"]
mod states;
#[path = "table/words.rs"]
mod words;

use bench::Bench;
use cases::Case;
use states::State;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- table: agent/ha/tests/table.rs -->\n";
const END: &str = "<!-- end of table -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What follows in each state from each thing that may happen, and which variants that showed.
fn outcomes() -> (Vec<Vec<String>>, BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    let mut outcome = |state: &State, case: &Case| {
        let mut bench: Bench = (state.make)();
        seen.insert(bench.state());
        (case.before)(&mut bench);
        bench.begin();
        (case.happens)(&mut bench);
        seen.extend(bench.kinds().iter().cloned());
        words::sentence(&bench.deeds())
    };
    let cases = cases::all();
    let all = states::all().iter().map(|s| cases.iter().map(|c| outcome(s, c)).collect()).collect();
    (all, seen)
}

/// What stands on the page: first what is the same wherever it happens, then state by state.
fn tables() -> String {
    let (states, cases, (all, _)) = (states::all(), cases::all(), outcomes());
    // What most states come to is said once; of each state, what is different there.
    let most = |i: usize| {
        let times = |d: &String| all.iter().filter(|s| s[i] == *d).count();
        all.iter().map(|s| &s[i]).find(|d| !d.is_empty() && times(d) >= 5).cloned()
    };
    let table = |rows: Vec<(&str, &str)>| {
        let rows: String = rows.iter().map(|(what, does)| format!("| {what} | {does} |\n")).collect();
        format!("| what happens | what it does |\n|---|---|\n{rows}\n")
    };
    let general: Vec<_> = (0..cases.len()).filter_map(|i| Some((i, most(i)?))).collect();
    let mut text = "### Unless something else is said below\n\n".to_owned();
    text += &table(general.iter().map(|(i, does)| (cases[*i].what, does.as_str())).collect());
    for (state, does) in states.iter().zip(&all) {
        let like = state.like.map(|name| states.iter().position(|s| s.name == name).unwrap());
        let shown = |i: &usize| {
            // What goes on as it was is not said twice.
            let goes_on = *i > 0 && cases[*i].what.starts_with("nobody says") && does[*i] == does[*i - 1];
            let expected = like.map(|l| all[l][*i].clone()).or_else(|| most(*i)).unwrap_or_default();
            !goes_on && expected != does[*i]
        };
        let word = |i: usize| if does[i].is_empty() { "nothing" } else { does[i].as_str() };
        text += &format!("### {}\n\n{}\n\n", state.name, state.means);
        text += &table((0..cases.len()).filter(shown).map(|i| (cases[i].what, word(i))).collect());
    }
    text
}

/// The names of an enum's variants, as its source has them.
fn variants(file: &str, of: &str) -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join(file)).unwrap();
    let (_, body) = source.split_once(&format!("\npub enum {of} {{\n")).unwrap();
    let body = body.split("\n}\n").next().unwrap();
    let lines = body.lines().filter_map(|l| l.strip_prefix("    "));
    let names = lines.filter(|l| l.starts_with(|c: char| c.is_ascii_uppercase()));
    names.map(|l| format!("{of}::{}", l.split([' ', '(', ',', '{']).next().unwrap())).collect()
}

#[test]
fn nothing_that_can_happen_is_missing() {
    let (_, seen) = outcomes();
    let events = "agent/ha/src/event.rs";
    let mut all = variants("terms/src/term.rs", "Phase");
    for of in ["Event", "Ask", "Answer", "SwapOutcome", "Unreachable"] {
        all.extend(variants(events, of));
    }
    assert!(all.len() > 30, "{all:?}");
    let missing: Vec<_> = all.difference(&seen).collect();
    assert!(missing.is_empty(), "without a case in agent/ha/tests/table/cases.rs, or a state: {missing:?}");
}

#[test]
fn the_page_says_what_the_code_does() {
    let file = root().join("docs/failover.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (written, tail) = rest.split_once(END).unwrap();
    let real = format!("\n{}", tables());
    if std::env::var_os("PGCONVOY_UPDATE").is_some() {
        std::fs::write(file, format!("{head}{BEGIN}{real}{END}{tail}")).unwrap();
        return;
    }
    let differ = written.lines().zip(real.lines()).find(|(a, b)| a != b);
    assert!(
        written == real,
        "docs/failover.md does not say what the code does; PGCONVOY_UPDATE=1 cargo test -p pgconvoy-ha --test table writes it \
         anew. The first difference, page and code:\n{differ:#?}"
    );
}
