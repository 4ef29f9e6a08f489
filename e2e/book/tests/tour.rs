//! The README's tour and its picture are those of the recording. That the recording is what the tour says today is seen where the tour is
//! run (`e2e/embedded/tests/quickstart.rs`).

#![allow(clippy::unwrap_used, reason = "to panic is how a test fails")]

use pgconvoy_book::{root, tour};

#[test]
fn the_readme_and_the_picture_are_of_the_recording() {
    let file = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let recording = tour::Recording::read(&file("docs/pictures/quickstart.txt")).unwrap();
    let again = "cargo run -p pgconvoy-book -- record ./quickstart --once";
    let readme = file("README.md");
    assert!(
        tour::shown(&readme, &recording).unwrap() == readme,
        "the README shows another tour than was recorded: {again}"
    );
    let picture = file("docs/pictures/quickstart.svg");
    assert!(tour::picture(&recording.lines) == picture, "the picture is not of the recording: {again}");
    assert!(readme.contains("docs/pictures/quickstart.svg"));
}
