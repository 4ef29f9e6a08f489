//! The tour of `./quickstart`, recorded: what the README shows of it, and a picture of a terminal that plays it.

use anyhow::{Context as _, ensure};
use std::fmt::Write as _;

/// A line that the tour wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Seconds since the tour began.
    pub at: f64,
    /// What it wrote.
    pub text: String,
}

/// Where the README shows the tour.
const BEGIN: &str = "<!-- tour: written by `pgconvoy-book record`, see docs/quickstart.md -->\n```\n";
const END: &str = "<!-- end of tour -->";

/// What was recorded, and how busy the machine was.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Like `2 cores, load 1.2`.
    pub machine: String,
    /// What the tour wrote.
    pub lines: Vec<Line>,
}

impl Recording {
    /// As it is kept: the machine behind a `#`, and then a line each, with its time before a tab.
    pub fn written(&self) -> String {
        self.lines.iter().fold(format!("# {}\n", self.machine), |mut text, line| {
            let _ = writeln!(text, "{:.1}\t{}", line.at, line.text);
            text
        })
    }

    /// Reads what is kept.
    ///
    /// # Errors
    /// When it is no recording.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let (machine, rest) = text.split_once('\n').unwrap_or_default();
        let machine = machine.strip_prefix("# ").context("the recording does not say on what machine it was made")?;
        let line = |line: &str| {
            let (at, text) = line.split_once('\t').context("a line of the recording has no time")?;
            Ok(Line { at: at.parse().context("a line of the recording has no time")?, text: text.to_owned() })
        };
        Ok(Self { machine: machine.to_owned(), lines: rest.lines().map(line).collect::<anyhow::Result<_>>()? })
    }
}

/// Whether a line tells what has changed meanwhile, like `    2.3 s  quickstart-1 …`: which of them come is another thing each time.
fn is_change(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let number = words.next().is_some_and(|w| w.parse::<f64>().is_ok());
    text.starts_with("   ") && number && words.next() == Some("s")
}

/// What the README shows: the steps, without the cluster's coming and going, the example's text, and what has changed meanwhile.
pub fn excerpt(lines: &[Line]) -> String {
    let steps = lines.iter().map(|l| l.text.trim_end());
    let steps = steps.skip_while(|l| !l.starts_with("2. ")).take_while(|l| !l.starts_with("7. "));
    let mut text = String::new();
    let mut yaml = false;
    for line in steps {
        yaml = (yaml || line.trim_start().starts_with("apiVersion: ")) && line.starts_with("    ");
        let left_out = yaml || line.is_empty() || is_change(line) || line.trim_start().starts_with("(1 row");
        if left_out {
            continue;
        }
        if line.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The README with what it shows of this recording.
///
/// # Errors
/// When it has no place for it.
pub fn shown(readme: &str, recording: &Recording) -> anyhow::Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("the README has no place for the tour")?;
    let (_, after) = rest.split_once(END).context("the README's tour does not end")?;
    let excerpt = excerpt(&recording.lines);
    ensure!(excerpt.lines().count() > 20, "that was no whole tour:\n{excerpt}");
    let machine = &recording.machine;
    Ok(format!("{before}{BEGIN}{excerpt}```\n(recorded on {machine})\n{END}{after}"))
}

/// Lines of the terminal, and columns.
const ROWS: usize = 26;
const COLUMNS: usize = 112;
/// Pixels of a line and of a column.
const HEIGHT: usize = 17;
const WIDTH: f64 = 7.25;
/// A pause is not played for longer, in seconds.
const PAUSE: f64 = 1.0;
/// After a heading one wants to read, in seconds.
const READING: f64 = 0.6;

/// A terminal that plays the tour once, as SVG. Whoever plays no animations sees its end.
pub fn picture(lines: &[Line]) -> String {
    let (mut at, mut last) = (0.0, 0.0);
    let mut played = vec![];
    for line in lines.iter().skip_while(|l| l.text.trim().is_empty()) {
        let pause = (line.at - last).clamp(0.03, PAUSE);
        last = line.at;
        at += if is_heading(&line.text) { pause.max(READING) } else { pause };
        played.push((at, line.text.as_str()));
    }
    let (whole, top) = (at + 1.0, HEIGHT * 2);
    let (width, height) = ((COLUMNS as f64 * WIDTH) as usize + 24, top + ROWS * HEIGHT + 12);
    let up = |shown: usize| shown.saturating_sub(ROWS) * HEIGHT;
    let mut scroll = String::from("0%{transform:translateY(0)}");
    for (shown, (at, _)) in played.iter().enumerate().skip(ROWS) {
        let _ = write!(scroll, "{:.2}%{{transform:translateY(-{}px)}}", at / whole * 100.0, up(shown + 1));
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"The tour of ./quickstart in a terminal\">\n<style>\n\
         text{{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#c9d1d9;white-space:pre}}\n\
         .h{{fill:#fff;font-weight:bold}}.c{{fill:#7ee787}}.g{{fill:#79c0ff}}\n\
         .l text{{animation:wait 0s step-end}}.l{{animation:scroll {whole:.1}s step-end;transform:translateY(-{}px)}}\n\
         @keyframes wait{{from,to{{opacity:0}}}}\n@keyframes scroll{{{scroll}}}\n\
         @media(prefers-reduced-motion:reduce){{.l,.l text{{animation:none!important}}}}\n</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n\
         <circle cx=\"18\" cy=\"16\" r=\"5\" fill=\"#ff5f57\"/><circle cx=\"36\" cy=\"16\" r=\"5\" fill=\"#febc2e\"/>\
         <circle cx=\"54\" cy=\"16\" r=\"5\" fill=\"#28c840\"/>\n\
         <text x=\"{}\" y=\"20\" text-anchor=\"middle\">./quickstart --once</text>\n\
         <clipPath id=\"s\"><rect x=\"0\" y=\"{top}\" width=\"{width}\" height=\"{}\"/></clipPath>\n<g clip-path=\"url(#s)\"><g class=\"l\">\n",
        up(played.len()),
        width / 2,
        ROWS * HEIGHT + 6,
    );
    for (n, (at, text)) in played.iter().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let class = match text.trim_start() {
            _ if is_heading(text) => " class=\"h\"",
            t if t.starts_with("$ ") => " class=\"c\"",
            t if t.starts_with("Ready ") || t.starts_with("Writes: ") || t.contains("came back by itself") => {
                " class=\"g\""
            }
            _ => "",
        };
        let y = top + (n + 1) * HEIGHT - 4;
        let _ = writeln!(
            svg,
            "<text{class} x=\"12\" y=\"{y}\" xml:space=\"preserve\" style=\"animation-duration:{at:.2}s\">{}</text>",
            escaped(text)
        );
    }
    svg.push_str("</g></g>\n</svg>\n");
    svg
}

fn is_heading(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// As it stands in XML, and no longer than the terminal is wide.
fn escaped(text: &str) -> String {
    let cut: String = match text.chars().count() {
        n if n > COLUMNS => text.chars().take(COLUMNS - 1).chain(['…']).collect(),
        _ => text.to_owned(),
    };
    cut.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn the_readme_shows_steps_and_results() {
        let said = "1. A cluster\n  Up after 1.0 s.\n\n2. A set\n  $ kubectl apply -f x\n    apiVersion: a\n    kind: B\n      c: d\n\n    \
                    6.0 s  q-1   Leader\n  Ready 3/3 after 6.4 s.\n\n3. Write\n  INSERT 0 1\n   hello | t\n  (1 row)\n7. Any kubectl\n";
        let lines: Vec<_> = said.lines().map(|l| Line { at: 0.0, text: l.to_owned() }).collect();
        let wanted =
            "2. A set\n  $ kubectl apply -f x\n  Ready 3/3 after 6.4 s.\n\n3. Write\n  INSERT 0 1\n   hello | t\n";
        assert_eq!(excerpt(&lines), wanted);
        let recording = Recording { machine: "2 cores, load 1.2".into(), lines };
        assert_eq!(Recording::read(&recording.written()).unwrap(), recording);
    }

    #[test]
    fn a_picture_shows_text_as_text() {
        let lines = [Line { at: 0.5, text: "1. A <b> & c".into() }, Line { at: 90.0, text: "x".repeat(200) }];
        let picture = picture(&lines);
        assert!(picture.contains(">1. A &lt;b&gt; &amp; c<"), "{picture}");
        assert!(picture.contains(&format!(">{}…<", "x".repeat(111))), "{picture}");
        assert!(picture.contains("animation-duration:1.60s"), "a long pause is short: {picture}");
    }
}
