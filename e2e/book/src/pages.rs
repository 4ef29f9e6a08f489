//! The documents as they stand in the repository.

use anyhow::{Context as _, ensure};
use pulldown_cmark::{CodeBlockKind, Event, LinkType, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One document.
#[derive(Debug, Default)]
pub struct Page {
    /// What a link may name behind `#`.
    pub anchors: BTreeSet<String>,
    /// Where it links to.
    pub links: Vec<String>,
    /// Its blocks of code.
    pub blocks: Vec<Block>,
    /// The text of what stands as code in a line.
    pub words: BTreeSet<String>,
}

/// A block of code.
#[derive(Debug)]
pub struct Block {
    /// The line on which it begins.
    pub line: usize,
    /// What stands behind the three backticks; nothing of an indented block.
    pub language: String,
    /// A comment right before it, `<!-- like this -->`.
    pub comment: Option<String>,
    /// What stands in it.
    pub text: String,
}

impl Page {
    /// Reads a page.
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut comment: Option<String> = None;
        let mut block: Option<Block> = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.insert(anchor(&heading.take().unwrap_or_default()));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.to_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    let line = text[..range.start].matches('\n').count() + 1;
                    block = Some(Block { line, language, comment: comment.take(), text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Text(text) if block.is_some() => {
                    if let Some(block) = &mut block {
                        block.text.push_str(&text);
                    }
                }
                Event::Html(html) => {
                    let inside = html.trim().strip_prefix("<!--").and_then(|h| h.strip_suffix("-->"));
                    comment = inside.map(|h| h.trim().to_owned());
                }
                Event::Text(text) | Event::Code(text) if heading.is_some() => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Code(code) => {
                    page.words.insert(code.to_string());
                }
                Event::Start(Tag::Link { link_type, dest_url, .. }) if link_type != LinkType::Autolink => {
                    page.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Image { dest_url, .. }) => page.links.push(dest_url.to_string()),
                Event::Start(Tag::Paragraph | Tag::List(_) | Tag::Table(_)) => comment = None,
                _ => {}
            }
        }
        page
    }
}

/// As GitHub and mdBook make it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Every document of the repository, those too that nobody has committed yet.
pub fn documents(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, Page>> {
    let listed = std::process::Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.md"])
        .output()
        .context("git cannot be run")?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let mut pages = BTreeMap::new();
    for file in String::from_utf8(listed.stdout)?.lines() {
        let place = root.join(file);
        if place.exists() {
            let text = std::fs::read_to_string(&place).with_context(|| format!("cannot read {file}"))?;
            pages.insert(PathBuf::from(file), Page::read(&text));
        }
    }
    Ok(pages)
}
