//! `pgconvoy-book check DIRECTORY` looks at every link of the book that mdBook has built there. `pgconvoy-book preprocess` is what mdBook
//! runs while it builds (`docs/book.toml`). `pgconvoy-book record ./quickstart --once` records the tour, for the README and its picture.

#![forbid(unsafe_code)]

use anyhow::{Context as _, bail, ensure};
use pgconvoy_book::{html, outside, root, tour};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        // mdBook asks first; any renderer will do.
        ["preprocess", "supports", _] => Ok(()),
        ["preprocess"] => {
            let mut input = String::new();
            std::io::stdin().read_to_string(&mut input).context("cannot read what mdBook hands over")?;
            let book = outside::preprocess(&input, &root())?;
            std::io::stdout().write_all(book.to_string().as_bytes()).context("cannot hand the book back to mdBook")
        }
        ["check", directory] => {
            let looked = html::check(Path::new(directory))?;
            if !looked.wrong.is_empty() {
                bail!("dead links in the book:\n{}", looked.wrong.join("\n"));
            }
            println!("{} links on {} pages lead somewhere", looked.links, looked.pages);
            Ok(())
        }
        ["record", program, arguments @ ..] => record(program, arguments),
        _ => bail!("usage: pgconvoy-book check DIRECTORY | preprocess | record ./quickstart --once"),
    }
}

/// Runs the tour, and writes what it says, and when, into `docs/pictures`, and what follows from it.
fn record(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut child =
        Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().context("the tour cannot be run")?;
    let begun = Instant::now();
    let mut lines = vec![];
    for line in BufReader::new(child.stdout.take().context("the tour has no output")?).lines() {
        let text = line.context("the tour's output cannot be read")?;
        println!("{text}");
        lines.push(tour::Line { at: begun.elapsed().as_secs_f64(), text });
    }
    let status = child.wait().context("the tour's end")?;
    ensure!(status.success(), "the tour failed: {status}; nothing was written");
    // As they are read again, so that the picture is the same to the letter.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").context("the machine's load cannot be read")?;
    let machine = format!("{cores} cores, load {}", load.split(' ').next().unwrap_or("unknown"));
    let kept = tour::Recording { machine, lines }.written();
    let recording = tour::Recording::read(&kept)?;
    let root = root();
    let readme = std::fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    let readme = tour::shown(&readme, &recording)?;
    for (file, text) in [
        ("docs/pictures/quickstart.txt", kept),
        ("docs/pictures/quickstart.svg", tour::picture(&recording.lines)),
        ("README.md", readme),
    ] {
        std::fs::write(root.join(file), text).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}
