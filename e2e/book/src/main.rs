//! `pgconvoy-book check DIRECTORY` looks at every link of the book that mdBook has built there. `pgconvoy-book preprocess` is what mdBook
//! runs while it builds (`docs/book.toml`).

#![forbid(unsafe_code)]

use anyhow::{Context as _, bail};
use pgconvoy_book::{html, outside, root};
use std::io::{Read as _, Write as _};
use std::path::Path;

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
        _ => bail!("usage: pgconvoy-book check DIRECTORY | preprocess"),
    }
}
