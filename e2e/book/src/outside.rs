//! The book's preprocessor: what a page links to outside of `docs/` is not part of the book, so there it leads to the repository on the
//! web.

use crate::{REPOSITORY, is_external, plain};
use anyhow::Context as _;
use pulldown_cmark::{Event, Options, Parser, Tag};
use serde_json::Value;
use std::path::Path;

/// What mdBook hands over, with the links turned round: of `[context, book]` the book.
pub fn preprocess(input: &str, root: &Path) -> anyhow::Result<Value> {
    let mut both: Value = serde_json::from_str(input).context("mdBook hands over something that is not JSON")?;
    let mut book = both.get_mut(1).map(Value::take).context("mdBook hands over no book")?;
    let items = book.get_mut("items").context("mdBook's book has no items; mdBook 0.5 was expected")?;
    walk(items, root);
    Ok(book)
}

fn walk(items: &mut Value, root: &Path) {
    for item in items.as_array_mut().into_iter().flatten() {
        let Some(chapter) = item.get_mut("Chapter") else { continue };
        if let (Some(path), Some(content)) = (chapter["source_path"].as_str(), chapter["content"].as_str()) {
            chapter["content"] = turned(content, &Path::new("docs").join(path), root).into();
        }
        if let Some(inner) = chapter.get_mut("sub_items") {
            walk(inner, root);
        }
    }
}

/// The text of the page at `page` with its links out of `docs/` turned round.
fn turned(text: &str, page: &Path, root: &Path) -> String {
    let mut turned = text.to_owned();
    let links =
        Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter().filter_map(|(event, range)| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some((dest_url.to_string(), range))
            }
            _ => None,
        });
    // The last one first, so that the places of the others stay true.
    for (link, range) in links.collect::<Vec<_>>().into_iter().rev() {
        let (path, anchor) = link.split_at(link.find('#').unwrap_or(link.len()));
        let target = plain(&page.parent().unwrap_or_else(|| Path::new("")).join(path));
        if is_external(&link) || path.is_empty() || target.starts_with("docs") {
            continue;
        }
        let Some(at) = text[range.clone()].rfind(&format!("]({link}")) else { continue };
        let kind = if root.join(&target).is_dir() { "tree" } else { "blob" };
        let from = range.start + at + 2;
        turned
            .replace_range(from..from + link.len(), &format!("{REPOSITORY}/{kind}/main/{}{anchor}", target.display()));
    }
    turned
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn links_out_of_the_documents_lead_to_the_repository() {
        let page =
            "See [a](../e2e/cluster/README.md#x), [b](failover.md), [`c`](../../examples), [d](https://a.b/../c).";
        let input = serde_json::json!([{}, {"items": [
            {"Chapter": {"content": "", "source_path": "a.md", "sub_items": [
                {"Chapter": {"content": page, "source_path": "runbooks/b.md", "sub_items": []}}]}},
            "Separator"]}]);
        let book = preprocess(&input.to_string(), &crate::root()).unwrap();
        let content = book["items"][0]["Chapter"]["sub_items"][0]["Chapter"]["content"].as_str().unwrap();
        // `../e2e` of a runbook lies in docs/: that is dead, and the check of the links says so.
        assert_eq!(content, page.replace("../../examples", "https://github.com/pgconvoy/pgconvoy/tree/main/examples"));
        let top = turned(page, Path::new("docs/testing.md"), &crate::root());
        assert!(
            top.contains("(https://github.com/pgconvoy/pgconvoy/blob/main/e2e/cluster/README.md#x), [b](failover.md)"),
            "{top}"
        );
    }
}
