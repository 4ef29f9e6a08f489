//! The sets that must be looked at.

use super::SetRef;
use futures::Stream;
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The sets that must be looked at: each once, however often it was marked. Its bound is the number of sets.
#[derive(Debug, Default)]
pub struct Dirty {
    marked: Mutex<HashSet<SetRef>>,
    wake: Notify,
}

impl Dirty {
    /// Marks a set.
    pub fn mark(&self, set: SetRef) {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner).insert(set);
        self.wake.notify_one();
    }

    fn take(&self) -> Option<SetRef> {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let set = marked.iter().next().cloned()?;
        marked.take(&set)
    }

    /// How many are marked.
    pub fn len(&self) -> usize {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is marked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The marked sets, one after the other, for ever. There may be one reader.
    pub fn stream(&self) -> impl Stream<Item = Result<SetRef, Infallible>> + '_ {
        futures::stream::unfold(self, |dirty| async move {
            loop {
                if let Some(set) = dirty.take() {
                    return Some((Ok(set), dirty));
                }
                dirty.wake.notified().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::set_ref;
    use futures::StreamExt;

    #[tokio::test]
    async fn a_set_marked_twice_comes_once() {
        let dirty = Dirty::default();
        dirty.mark(set_ref("a", "x"));
        dirty.mark(set_ref("a", "x"));
        dirty.mark(set_ref("b", "x"));
        assert_eq!(dirty.len(), 2);
        let mut stream = Box::pin(dirty.stream());
        let mut got = vec![stream.next().await.unwrap().unwrap(), stream.next().await.unwrap().unwrap()];
        got.sort_by_key(|r| r.namespace.clone());
        assert_eq!(got, vec![set_ref("a", "x"), set_ref("b", "x")]);
        assert!(dirty.is_empty());
    }
}
